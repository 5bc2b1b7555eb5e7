"""What people read about the events of a trial that need their attention."""

from __future__ import annotations

from sadcl.console import clock_text
from sadcl.study.trial_event import (
    FeaturesComputed,
    HangEnded,
    HangStarted,
    LateWorker,
    PrecisionChanged,
    TrialRestarts,
    WaitingForRoom,
    WorkerBeat,
    WorkerFailed,
)

Notice = (
    FeaturesComputed
    | WorkerFailed
    | TrialRestarts
    | PrecisionChanged
    | WaitingForRoom
    | HangStarted
    | HangEnded
)
"""Events that are shown at once, whatever else is on the screen."""


def notice_text(event: Notice) -> str:
    """Describe the event in one line."""
    if isinstance(event, FeaturesComputed):
        if event.done == event.images:
            return f"the feature maps of {event.images:,} images are stored"
        left = clock_text(event.seconds_left)
        return f"computes feature maps: {event.done:,} of {event.images:,}, about {left} left"
    if isinstance(event, WorkerFailed):
        return event.cause
    if isinstance(event, TrialRestarts):
        verb = "resumes" if event.planned else "restarts"
        return f"{event.reason}; {verb} from its last checkpoint"
    if isinstance(event, PrecisionChanged):
        return (
            f"resumes in {event.now} on this device, after {event.before} before; its figures are "
            "of both. Set optim.precision to keep one"
        )
    if isinstance(event, WaitingForRoom):
        if event.occupied:
            return "waits for room that others use"
        return f"waits for the room that {event.workers} worker(s) need"
    if isinstance(event, HangEnded):
        return f"continues after {event.seconds:.0f} s"
    return f"HANGS: {_hang_text(event)}"


def _hang_text(hang: HangStarted) -> str:
    """Name the workers that have not arrived, and where the others wait for them."""
    position = _position_text(hang.front)
    if not hang.waiting:
        states = [
            f"{_name(worker.rank, worker.beat)} {_state_text(worker)}" for worker in hang.late
        ]
        return f"no worker has arrived at {position}: " + "; ".join(states)
    late = [
        f"{_name(worker.rank, worker.beat)} has not arrived at {position}: it {_state_text(worker)}"
        for worker in hang.late
    ]
    waiting = [f"{_name(beat.rank, beat)} waits at {beat.location}" for beat in hang.waiting]
    return "; ".join(late + waiting)


def _name(rank: int, beat: WorkerBeat | None) -> str:
    return f"rank {rank}" if beat is None else f"rank {rank} on {beat.host} (process {beat.pid})"


def _state_text(worker: LateWorker) -> str:
    if worker.beat is None:
        return "has stopped, or has not started yet"
    if worker.silent_seconds is not None:
        return f"has given no sign of life for {worker.silent_seconds:.0f} s"
    if worker.beat.compiling:
        return f"is still compiling, at {worker.beat.location}"
    return f"has been at {worker.beat.location} for {worker.still_seconds:.0f} s"


def _position_text(beat: WorkerBeat) -> str:
    """Name the step that a worker is about to take."""
    if not beat.stage:
        return "its first step"
    if beat.step == beat.steps:
        return f"the end of stage {beat.stage} epoch {beat.epoch}"
    return f"step {beat.step + 1}/{beat.steps} of stage {beat.stage} epoch {beat.epoch}"
