"""The channel on which trials report to the driver, and learn whether to stop early."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError

from sadcl.ray_backend import prometheus
from sadcl.ray_backend.hangs import HangDetector
from sadcl.ray_backend.membership import kill_actor, on_this_node
from sadcl.search.pruning_rules import PruningRule
from sadcl.study.trial_event import Emit, EpochEnded, TrialEnded, TrialEvent, WorkerBeat

if TYPE_CHECKING:
    from sadcl.ray_backend.pruner import Pruner
    from sadcl.search.trial import Trial

History = Sequence[tuple[str, str, dict[int, float]]]
"""Key, status and held-out mAP by epoch of a search's trials so far, oldest first."""


@dataclass(frozen=True)
class EventChannel:
    """A handle that travels with every trial.

    Attributes:
        actor: Keeps events until the driver fetches them.
        prunes: Whether trials of the search ask after each epoch whether to stop.
    """

    actor: Any
    prunes: bool


class _Channel:
    def __init__(self, stopping: PruningRule | None, history: History, hang_seconds: float) -> None:
        self.events: list[TrialEvent] = []
        self.hangs = HangDetector(hang_seconds)
        self.pruner: Pruner | None = None
        if stopping is not None:
            from sadcl.ray_backend.pruner import (
                Pruner,
            )  # only a search that prunes needs Optuna here

            self.pruner = Pruner(stopping, history)

    def add(self, event: TrialEvent) -> None:
        self.hangs.add(event)
        # of beats the driver needs no more than how far the first worker is
        if not isinstance(event, WorkerBeat) or (event.progress is not None and not event.rank):
            self.events.append(event)
        if self.pruner is not None and isinstance(event, TrialEnded):
            self.pruner.end(event.key, event.status)

    def add_epoch(self, event: EpochEnded) -> str | None:
        """Take an epoch's end, and answer why its trial is to stop, or None."""
        self.add(event)
        if self.pruner is None:
            return None
        return self.pruner.stop_reason(event.key, event.epoch, event.metrics["val_mAP"])

    def behind(self, key: str, seconds: float) -> list[int]:
        return self.hangs.behind(key, seconds)

    def drain(self) -> list[TrialEvent]:
        events, self.events = self.events, []
        return [*events, *self.hangs.changes()]


def open_channel(stopping: PruningRule | None = None, history: History = ()) -> EventChannel:
    """Start the channel of one driver.

    Args:
        stopping: The rule by which trials of the search are stopped early; None stops none.
        history: The search's trials so far.

    Raises:
        UserError: For a limit in the environment that is no number of seconds.
    """
    return EventChannel(
        on_this_node(_Channel).remote(stopping, list(history), prometheus.hang_seconds()),
        stopping is not None,
    )


def close(channel: EventChannel) -> None:
    """End the channel's process."""
    kill_actor(channel.actor)


def drain(channel: EventChannel) -> list[TrialEvent]:
    """Fetch the events since the last call."""
    events: list[TrialEvent] = ray.get(channel.actor.drain.remote())
    return events


def ranks_behind(channel: EventChannel | None, key: str, seconds: float) -> list[int]:
    """Fetch which workers kept the others of a trial waiting when some were lost.

    Args:
        seconds: As for :meth:`sadcl.ray_backend.hangs.HangDetector.behind`.
    """
    if channel is None:
        return []
    with contextlib.suppress(RayError):  # a name in a message is not worth an error
        ranks: list[int] = ray.get(channel.actor.behind.remote(key, seconds))
        return ranks
    return []


def emit(channel: EventChannel | None, event: TrialEvent) -> None:
    """Report an event for a trial that cannot do so itself."""
    if channel is not None:
        channel.actor.add.remote(event)


def emitter(channel: EventChannel | None, trial: Trial) -> Emit | None:
    """Make what a trial calls with its events.

    It waits for an answer only where the trial may have to stop.
    """
    if channel is None:
        return None

    def emit(event: TrialEvent) -> str | None:
        prometheus.record(trial, event)
        if not (channel.prunes and trial.phase == "search" and isinstance(event, EpochEnded)):
            channel.actor.add.remote(event)
            return None
        with contextlib.suppress(RayError):  # without the channel no trial is stopped
            reason: str | None = ray.get(channel.actor.add_epoch.remote(event))
            return reason
        return None

    return emit
