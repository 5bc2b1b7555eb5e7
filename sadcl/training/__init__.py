"""The loop: stages, steps, selection, checkpoints. It reports through a callback and knows neither Ray nor tables."""

from sadcl.training.agreement import Disagreement
from sadcl.training.engine import Diverged
from sadcl.training.loop import Epoch, Outcome, fit
from sadcl.training.meeting import Ask, Left
from sadcl.training.pulse import Pulse

__all__ = ["Ask", "Disagreement", "Diverged", "Epoch", "Left", "Outcome", "Pulse", "fit"]
