"""What a run reports while it trains and when it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sadcl.data.transforms import Normalisation
from sadcl.training.features import FeaturesReport
from sadcl.training.sync_points import LeaveReason


@dataclass(frozen=True)
class Epoch:
    """What the first worker reports after each epoch."""

    stage: int
    epoch: int
    """From 1."""
    epochs: int
    """Epochs that the stage has at most."""
    metrics: dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """What a run ends with; the figures are those of its selected epoch and weights."""

    checkpoint: str
    """URI of best.pt."""
    stage: int
    epoch: int
    """From 1."""
    weights: str
    """``raw`` or ``ema``."""
    metrics: dict[str, float]
    labels: list[dict[str, Any]]
    """One row for each split and label: AP, P, R, F1 in percent, support in images."""
    seconds: float
    images: int
    """Training images of all epochs together."""
    memory_mb: float
    """Peak memory in MiB, of the GPU or, on a CPU, of this process."""
    normalisation: Normalisation
    """Mean and standard deviation of the images."""
    precision: str
    """``fp32``, ``bf16`` or ``fp64``: what ``optim.precision`` was on the device. A run that was
    resumed on another kind of device may have several, such as ``bf16 then fp32``."""
    logits: dict[str, Tensor]
    """(N, L) in float16 for each split that was evaluated with the selected weights."""
    stopped: str = ""
    """Why the report stopped the run early; empty where it did not."""


ReportEpoch = Callable[[Epoch], str | None]
"""Called after each epoch on the first worker; a text stops the run there, and is the reason."""
StepDone = Callable[[int, int, int, int, float], None]
"""Called after each step on every worker with stage, epoch, step, steps of the epoch, and the
seconds in which bank and prototypes gathered the rows of all workers."""

PrecisionChanged = Callable[[str, str], None]
"""Called on the first worker where a stage resumes in another precision, with both."""


@dataclass(frozen=True)
class Callbacks:
    """Functions that a run calls; each may be None."""

    report: ReportEpoch | None = None
    step_done: StepDone | None = None
    leave_reason: LeaveReason | None = None
    """Called on the first worker every few seconds; a text saves the state and ends the run."""
    precision_changed: PrecisionChanged | None = None
    features: FeaturesReport | None = None
    """Called on the first worker while the feature maps of a frozen backbone are computed."""
