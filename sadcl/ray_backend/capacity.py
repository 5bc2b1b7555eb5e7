"""Room for workers: how many fit now, and whether nodes come or go while a run trains."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray._private.state import state as cluster_state
from ray.exceptions import RayError
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from sadcl.errors import TrialFailed
from sadcl.ray_backend import membership
from sadcl.study.placement import Placement, workers_on

WAIT_SECONDS = 1800.0
"""Time that a run waits for nodes with the room that it needs at least, whoever uses that room."""
SETTLE_SECONDS = 5.0
"""A run of a varying number of workers starts after so long without room for another worker."""
GROW_SECONDS = 60.0
"""A run trains at least so long before it restarts because there is more room."""
POLL_SECONDS = 2.0


def resources(placement: Placement) -> dict[str, float]:
    """Return what each worker reserves."""
    return {
        "CPU": float(placement.cpus),
        **({"GPU": float(placement.gpus)} if placement.gpus else {}),
    }


class Reservations:
    """Groups of slots for workers; each is reserved as soon as all of it fits, and freed on exit.

    An autoscaler sees the groups that still wait.

    Args:
        placement: What a worker takes.
        count: The number of groups.
        size: The number of workers in each.
    """

    def __init__(self, placement: Placement, count: int, size: int = 1) -> None:
        self.groups: list[PlacementGroup] = [
            placement_group([resources(placement)] * size) for _ in range(count)
        ]

    def __enter__(self) -> Reservations:
        return self

    def __exit__(self, *_: Any) -> None:
        for group in self.groups:
            remove_placement_group(group)

    def ready(self) -> int:
        """Count the groups that are reserved."""
        states = [placement_group_table(group).get("state") for group in self.groups]
        return states.count("CREATED")


def wait_for_workers(placement: Placement, on_wait: Callable[[], object]) -> int:
    """Wait until the smallest number of workers fits, and give the number to start with.

    Args:
        on_wait: Called once where the wait is not over at once.

    Raises:
        TrialFailed: Where no nodes for them come within :data:`WAIT_SECONDS`.
    """
    if not placement.up_to:
        if _room(placement) < placement.workers:
            with Reservations(placement, 1, placement.workers):
                _wait_until(lambda: _room(placement) >= placement.workers, placement, on_wait)
        return placement.workers
    with Reservations(placement, 1, placement.workers) as smallest:
        _wait_until(lambda: smallest.ready() == 1, placement, on_wait)
        # not reserved before, or two runs might wait for each other
        with Reservations(placement, placement.up_to - placement.workers) as more:
            since, ready = time.monotonic(), 0
            while ready < len(more.groups) and time.monotonic() - since < SETTLE_SECONDS:
                if (now := more.ready()) != ready:
                    since, ready = time.monotonic(), now
                time.sleep(0.2)
            return placement.workers + ready


def _room(placement: Placement) -> int:
    """Count the workers that fit on empty nodes; Ray waits for what others use of them."""
    return sum(
        workers_on(placement, node["Resources"], placement.cpus)
        for node in ray.nodes()
        if node["Alive"]
    )


def _wait_until(
    enough: Callable[[], bool], placement: Placement, on_wait: Callable[[], object]
) -> None:
    began, reported = time.monotonic(), False
    room_last_seen = began
    while not enough():
        now = time.monotonic()
        if _room(placement) >= placement.workers:
            room_last_seen = now
        elif now - room_last_seen > WAIT_SECONDS:
            raise TrialFailed(
                f"The cluster has had no room for {placement.workers} worker(s) for "
                f"{WAIT_SECONDS / 60:.0f} minutes. Start nodes, or lower --workers, and give the "
                "same command again; it resumes from the last checkpoint."
            )
        if not reported and now - began > 2 * SETTLE_SECONDS:
            on_wait()
            reported = True
        time.sleep(0.2)


def drain_reason() -> str | None:
    """Return why this run must leave its node, or None if it may stay."""
    with contextlib.suppress(RayError):
        node = ray.get_runtime_context().get_node_id()
        if node in cluster_state.get_draining_nodes():
            return f"{node_names([node])} is to be taken away"
    return None


class NodeWatch(threading.Thread):
    """Asks the workers of a run to leave when a node of theirs is taken away, or when more fit.

    Args:
        placement: With the number of workers that the run has now.
        actor: From :func:`sadcl.ray_backend.membership.open_membership`.
    """

    def __init__(self, placement: Placement, actor: Any) -> None:
        super().__init__(daemon=True)
        self.placement, self.actor, self.over = placement, actor, threading.Event()

    def __enter__(self) -> NodeWatch:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.over.set()
        self.join(timeout=30)

    def run(self) -> None:
        try:
            while len(membership.members(self.actor).nodes) < self.placement.workers:
                if self.over.wait(POLL_SECONDS):
                    return
            with Reservations(
                self.placement, max(self.placement.up_to - self.placement.workers, 0)
            ) as more:
                if (reason := self._wait_for_reason(more)) is not None:
                    ray.get(self.actor.request_leave.remote(reason))
        except RayError:  # the cluster is lost, and the run with it
            return

    def _wait_for_reason(self, more: Reservations) -> str | None:
        began, before = time.monotonic(), 0
        while not self.over.wait(POLL_SECONDS):
            nodes = set(membership.members(self.actor).nodes.values())
            if draining := sorted(nodes & set(cluster_state.get_draining_nodes())):
                return f"{node_names(draining)} is to be taken away"
            ready = more.ready()
            if ready and ready == before and time.monotonic() - began > GROW_SECONDS:
                return f"there is room for {ready} more worker(s)"
            before = ready
        return None


def node_names(nodes: list[str]) -> str:
    """Name nodes by their addresses and the first digits of their ids."""
    addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
    return ", ".join(f"node {addresses.get(node, 'unknown')} ({node[:6]})" for node in nodes)
