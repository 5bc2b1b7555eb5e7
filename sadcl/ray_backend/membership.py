"""Who the workers of a run are, which of them failed, and whether they are to leave: an actor beside the driver."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


class _Membership:
    def __init__(self) -> None:
        self.came: dict[int, str] = {}
        self.failed: set[int] = set()
        self.reason = ""

    def come(self, worker: int, node: str) -> None:
        self.came[worker] = node

    def fail(self, worker: int) -> None:
        self.failed.add(worker)

    def leave(self, reason: str) -> None:
        self.reason = reason

    def asked(self) -> str:
        return self.reason

    def look(self) -> tuple[dict[int, str], set[int], str]:
        return self.came, self.failed, self.reason


def on_this_node(actor: type) -> Any:
    """An actor without resources on this node, which the run needs in any case; elsewhere it might be lost alone."""
    beside = NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )  # soft is hardly heeded
    remote: Any = ray.remote(num_cpus=0)(actor)
    return remote.options(scheduling_strategy=beside)


def kill_actor(actor: Any) -> None:
    """End an actor's process."""
    with contextlib.suppress(RayError):
        ray.kill(actor)


@contextlib.contextmanager
def open_membership() -> Iterator[Any]:
    """A roll for one attempt of a run."""
    actor = on_this_node(_Membership).remote()
    try:
        yield actor
    finally:
        kill_actor(actor)


def leave_reason(membership: Any) -> str | None:
    """Why the run is to leave, or None; a roll that is lost asks nobody to."""
    with contextlib.suppress(RayError):
        reason: str = ray.get(membership.asked.remote())
        return reason or None
    return None


def members(membership: Any) -> tuple[dict[int, str], set[int], str]:
    """The node's id of each worker that came, the workers that failed, and why they were to leave."""
    found: tuple[dict[int, str], set[int], str] = ray.get(membership.look.remote())
    return found
