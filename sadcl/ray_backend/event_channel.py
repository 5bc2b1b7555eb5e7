"""Where trials anywhere on the cluster tell the driver how they are doing, and hear whether to stop early."""

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
from sadcl.search.stopping import Stopping

if TYPE_CHECKING:  # the board's process needs no torch
    from sadcl.search.trial import Trial
    from sadcl.study.execute import Emit


@dataclass(frozen=True)
class EventChannel:
    """A handle that travels with every trial.

    Attributes:
        actor: keeps events until the driver fetches them.
        judges: whether a trial of the search has to ask, after each epoch, whether to go on.
    """

    actor: Any
    prunes: bool


class _Channel:
    def __init__(
        self,
        stopping: Stopping | None,
        history: Sequence[tuple[str, str, dict[int, float]]],
        hang_seconds: float,
    ) -> None:
        self.events: list[dict[str, Any]] = []
        self.hangs = HangDetector(hang_seconds)
        self.pruner: Any = None
        if stopping is not None:
            from sadcl.ray_backend.pruner import Pruner

            self.pruner = Pruner(stopping, history)

    def add(self, event: dict[str, Any]) -> str | None:
        self.hangs.note(event)
        beat = "moved" in event or "left" in event
        if not beat or (
            "part" in event and not event["rank"]
        ):  # the driver shows how far the first worker is
            self.events.append(event)
        if self.pruner is None:
            return None
        if event.get("status") in ("complete", "pruned", "failed"):
            self.pruner.ended(event["key"], event["status"])
        if event.get("judged"):
            verdict: str | None = self.pruner.stops(
                event["key"], event["epoch"], event["metrics"]["val_mAP"]
            )
            return verdict
        return None

    def drain(self) -> list[dict[str, Any]]:
        events, self.events = self.events, []
        return events + self.hangs.changes()


def open_channel(
    stopping: Stopping | None = None, history: Sequence[tuple[str, str, dict[int, float]]] = ()
) -> EventChannel:
    """A board for one driver.

    Args:
        stopping: when trials of the search are stopped early.
        history: key, status and held-out mAP by epoch of the search's trials so far, oldest first.

    Raises:
        UserError: for a limit of seconds in the environment that is none.
    """
    return EventChannel(
        on_this_node(_Channel).remote(stopping, list(history), prometheus.hang_seconds()),
        stopping is not None,
    )


def close(channel: EventChannel) -> None:
    """End the board's process."""
    kill_actor(channel.actor)


def drain(channel: EventChannel) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = ray.get(channel.actor.drain.remote())
    return events


def emit(channel: EventChannel | None, event: dict[str, Any]) -> None:
    """An event of a trial that cannot tell of it any more."""
    if channel is not None:
        channel.actor.add.remote(event)


def emitter(channel: EventChannel | None, trial: Trial) -> Emit | None:
    """What a trial calls with its events; it waits for an answer only where it may have to stop."""
    if channel is None:
        return None

    def emit(event: dict[str, Any]) -> str | None:
        prometheus.record(trial, event)
        if not (channel.prunes and trial.phase == "search" and "metrics" in event):
            channel.actor.add.remote(event)
            return None
        with contextlib.suppress(RayError):  # a board that is lost stops nobody
            verdict: str | None = ray.get(channel.actor.add.remote({**event, "judged": True}))
            return verdict
        return None

    return emit
