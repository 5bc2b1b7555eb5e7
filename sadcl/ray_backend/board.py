"""Where trials anywhere on the cluster tell the driver how they are doing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ray

if TYPE_CHECKING:  # the board's process needs no torch
    from sadcl.runner import Emit


class _Board:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def add(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def drain(self) -> list[dict[str, Any]]:
        events, self.events = self.events, []
        return events


def open_board() -> Any:
    """An actor that keeps events until the driver fetches them."""
    actor: Any = ray.remote(num_cpus=0)(_Board)
    return actor.remote()


def drain(board: Any) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = ray.get(board.drain.remote())
    return events


def emitter(board: Any) -> Emit | None:
    """What a trial calls with its events; it never waits for the driver."""
    if board is None:
        return None

    def emit(event: dict[str, Any]) -> None:
        board.add.remote(event)

    return emit
