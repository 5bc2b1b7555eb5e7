"""The loop: stages, steps, selection, checkpoints. It reports through a callback and knows neither Ray nor tables."""

from sadcl.training.engine import Diverged
from sadcl.training.heartbeat import Heartbeat
from sadcl.training.loop import Epoch, Outcome, fit
from sadcl.training.replica_check import Disagreement
from sadcl.training.sync_points import LeaveReason, Rescheduled

__all__ = [
    "Disagreement",
    "Diverged",
    "Epoch",
    "Heartbeat",
    "LeaveReason",
    "Outcome",
    "Rescheduled",
    "fit",
]
