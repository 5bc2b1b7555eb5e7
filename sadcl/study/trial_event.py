"""The events of a trial: what it and its workers report while it runs, one frozen dataclass each.

Events hold values and no sentences about them; :mod:`sadcl.study.event_text` has the words. They
travel between processes, so that this module imports neither torch nor Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrialStarted:
    """A process has begun to train the trial, or to resume it."""

    key: str
    phase: str
    title: str
    """The name of the trial that people read."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """What the search set, by field."""


@dataclass(frozen=True)
class EpochEnded:
    """An epoch has ended; the answer to this event may stop the trial."""

    key: str
    stage: int
    epoch: int
    """From 1."""
    epochs: int
    """Epochs of the stage."""
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class TrialEnded:
    """The trial has ended, and its row is in the trials table."""

    key: str
    status: str
    """``complete``, ``pruned`` or ``failed``."""
    cause: str = ""
    """Why it was stopped early or failed."""
    val_mAP: float | None = None
    test_mAP: float | None = None


@dataclass(frozen=True)
class TrialRestarts:
    """The trial's workers are lost or have left, and it resumes from its last checkpoint."""

    key: str
    reason: str
    planned: bool
    """Whether the workers were asked to leave; otherwise something failed."""


@dataclass(frozen=True)
class PrecisionChanged:
    """The trial resumes on a device that computes in another precision than it had before."""

    key: str
    before: str
    """``fp32``, ``bf16`` or ``fp64``."""
    now: str


@dataclass(frozen=True)
class FeaturesComputed:
    """Feature maps of a frozen backbone are being computed, or have been (``done`` = ``images``).

    They may be computed by another process, which this trial waits for.
    """

    key: str
    done: int
    """Images of one view whose maps are stored."""
    images: int
    seconds_left: float
    """0 where all are done."""


@dataclass(frozen=True)
class WaitingForRoom:
    """The trial waits until its workers fit into the cluster."""

    key: str
    workers: int
    occupied: bool = False
    """Whether other trials use the room; otherwise there are too few nodes."""


@dataclass(frozen=True)
class WorkerBeat:
    """A sign of life of one worker.

    It has the fields of :class:`sadcl.training.heartbeat.Beat`, which explains them, and the key.
    """

    key: str
    rank: int
    ranks: int
    host: str
    pid: int
    location: str = ""
    waits: bool = False
    compiling: bool = False
    images: int = 0
    collectives: int = 0
    stage: int = 0
    epoch: int = 0
    step: int = 0
    steps: int = 0
    progress: float | None = None
    step_seconds: float | None = None
    synchronisation_seconds: float | None = None
    last: bool = False


@dataclass(frozen=True)
class WorkerFailed:
    """One of several workers has failed; the others and the trial may still continue."""

    key: str
    rank: int
    cause: str


@dataclass(frozen=True)
class LateWorker:
    """A worker that the others of a hanging trial wait for.

    Attributes:
        beat: Its last beat; None where it has stopped, or has sent none yet.
        silent_seconds: Time since that beat where none came when one was due, else None.
        still_seconds: Time since the worker was last seen to advance.
    """

    rank: int
    beat: WorkerBeat | None = None
    silent_seconds: float | None = None
    still_seconds: float = 0.0


@dataclass(frozen=True)
class HangStarted:
    """A trial hangs.

    Attributes:
        front: The beat of the worker that is furthest.
        late: The workers that have not arrived where the others are, by rank.
        waiting: The beats of the others, by rank; empty where no worker differs from the others,
            and then all of them are late.
    """

    key: str
    front: WorkerBeat
    late: tuple[LateWorker, ...]
    waiting: tuple[WorkerBeat, ...] = ()


@dataclass(frozen=True)
class HangEnded:
    """A trial that hung continues."""

    key: str
    seconds: float
    """Time that it stood still."""


TrialEvent = (
    TrialStarted
    | EpochEnded
    | FeaturesComputed
    | TrialEnded
    | TrialRestarts
    | PrecisionChanged
    | WaitingForRoom
    | WorkerBeat
    | WorkerFailed
    | HangStarted
    | HangEnded
)

Emit = Callable[[TrialEvent], str | None]
"""Takes an event, and answers the end of an epoch with why the trial is to stop, or None."""
