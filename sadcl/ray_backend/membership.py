"""An actor that knows a run's workers, which of them failed, and whether they are to leave."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sadcl.errors import TrialFailed


class Members(NamedTuple):
    """What is known of the workers of one attempt.

    Attributes:
        nodes: The id of each worker's node, by rank.
        failed: The error of each worker that has reported one, by rank and in that order.
        leave_reason: Why they are to leave; empty where they are not.
    """

    nodes: dict[int, str]
    failed: dict[int, TrialFailed]
    leave_reason: str


class _Membership:
    def __init__(self) -> None:
        self._nodes: dict[int, str] = {}
        self._failed: dict[int, TrialFailed] = {}
        self._leave_reason = ""

    def join(self, rank: int, node: str) -> None:
        self._nodes[rank] = node

    def fail(self, rank: int, error: TrialFailed) -> None:
        self._failed.setdefault(rank, error)

    def request_leave(self, reason: str) -> None:
        self._leave_reason = reason

    def leave_reason(self) -> str:
        return self._leave_reason

    def members(self) -> Members:
        return Members(self._nodes, self._failed, self._leave_reason)


def on_this_node(actor: type) -> Any:
    """Pin an actor class to this node, which the run needs in any case; it reserves no resources.

    An actor on another node could be lost while the run is not.
    """
    pinned = NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(),
        soft=False,  # Ray hardly heeds a soft one
    )
    remote: Any = ray.remote(num_cpus=0)(actor)
    return remote.options(scheduling_strategy=pinned)


def kill_actor(actor: Any) -> None:
    """End an actor's process."""
    with contextlib.suppress(RayError):
        ray.kill(actor)


@contextlib.contextmanager
def open_membership() -> Iterator[Any]:
    """Start the actor for one attempt of a run."""
    actor = on_this_node(_Membership).remote()
    try:
        yield actor
    finally:
        kill_actor(actor)


def leave_reason(membership: Any) -> str | None:
    """Return why the run is to leave, or None; also None where the actor is lost."""
    with contextlib.suppress(RayError):
        reason: str = ray.get(membership.leave_reason.remote())
        return reason or None
    return None


def members(membership: Any) -> Members:
    """Fetch what the actor knows.

    Raises:
        RayError: Where the actor is lost.
    """
    current: Members = ray.get(membership.members.remote())
    return current
