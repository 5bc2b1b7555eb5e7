"""Training: stages, steps, selection, checkpoints.

It reports through callbacks and knows neither Ray nor tables.
"""

from sadcl.training.engine import Diverged
from sadcl.training.heartbeat import Heartbeat
from sadcl.training.loop import fit
from sadcl.training.replica_check import Disagreement
from sadcl.training.report import Callbacks, Epoch, Outcome
from sadcl.training.sync_points import LeaveReason, Rescheduled

__all__ = [
    "Callbacks",
    "Disagreement",
    "Diverged",
    "Epoch",
    "Heartbeat",
    "LeaveReason",
    "Outcome",
    "Rescheduled",
    "fit",
]
