"""Room for workers: how many there are now, and whether nodes come or go while a run is under way."""

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
"""Seconds that a run waits for nodes that have the room that it needs at least, however much of it others use."""
SETTLE_SECONDS = 5.0
"""Seconds without a new place until a run of a varying number of workers starts."""
GROW_SECONDS = 60.0
"""Seconds at least that a run trains before it is started again because there is more room."""
POLL_SECONDS = 2.0


def resources(placement: Placement) -> dict[str, float]:
    """What each worker reserves."""
    return {
        "CPU": float(placement.cpus),
        **({"GPU": float(placement.gpus)} if placement.gpus else {}),
    }


class Reservations:
    """Groups of places for workers, each reserved as soon as there is all of it, and given back when the block ends.

    While they wait, an autoscaler sees that they are wanted.

    Args:
        where: what a worker takes.
        count: groups.
        size: workers of each.
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
        """Groups that are reserved."""
        states = [placement_group_table(group).get("state") for group in self.groups]
        return states.count("CREATED")


def wait_for_workers(placement: Placement, say: Callable[[str], None]) -> int:
    """The number of workers to start with; waits for the least.

    Raises:
        TrialFailed: where no nodes for them come within :data:`WAIT` seconds.
    """
    if not placement.up_to:
        if _room(placement) < placement.workers:
            with Reservations(placement, 1, placement.workers):
                _wait_until(lambda: _room(placement) >= placement.workers, placement, say)
        return placement.workers
    with Reservations(placement, 1, placement.workers) as least:
        _wait_until(lambda: least.ready() == 1, placement, say)
        with Reservations(
            placement, placement.up_to - placement.workers
        ) as more:  # not before, or two runs might wait for each other
            since, ready = time.monotonic(), 0
            while ready < len(more.groups) and time.monotonic() - since < SETTLE_SECONDS:
                if (now := more.ready()) != ready:
                    since, ready = time.monotonic(), now
                time.sleep(0.2)
            return placement.workers + ready


def _room(placement: Placement) -> int:
    """Workers that the nodes take, empty; what others use of them comes free, and Ray waits for that."""
    return sum(
        workers_on(placement, node["Resources"], placement.cpus)
        for node in ray.nodes()
        if node["Alive"]
    )


def _wait_until(
    enough: Callable[[], bool], placement: Placement, say: Callable[[str], None]
) -> None:
    began, said = time.monotonic(), False
    lacks = began
    while not enough():
        waited = time.monotonic() - began
        if _room(placement) >= placement.workers:
            lacks = time.monotonic()
        elif time.monotonic() - lacks > WAIT_SECONDS:
            raise TrialFailed(
                f"The cluster has had no room for {placement.workers} worker(s) for {WAIT_SECONDS / 60:.0f} minutes. Start nodes, or "
                "lower --workers, and give the same command again; it goes on from the last checkpoint."
            )
        if not said and waited > 2 * SETTLE_SECONDS:
            say(f"waits for the room that {placement.workers} worker(s) need")
            said = True
        time.sleep(0.2)


def drain_reason() -> str | None:
    """Why the run in this process is to leave: its node is to be taken away; None where it is not."""
    with contextlib.suppress(RayError):
        here = ray.get_runtime_context().get_node_id()
        if here in cluster_state.get_draining_nodes():
            return f"{node_names([here])} is to be taken away"
    return None


class NodeWatch(threading.Thread):
    """While a run is under way: asks its workers to leave when a node of theirs is to be taken away, or when more fit.

    Args:
        where: with the number of workers that it runs on now.
        actor: from :func:`sadcl.ray_backend.membership.open_membership`.
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
            while len(membership.members(self.actor)[0]) < self.placement.workers:
                if self.over.wait(POLL_SECONDS):
                    return
            with Reservations(
                self.placement, max(self.placement.up_to - self.placement.workers, 0)
            ) as more:
                if (reason := self._reason(more)) is not None:
                    ray.get(self.actor.leave.remote(reason))
        except RayError:  # the cluster is gone, and the run with it
            return

    def _reason(self, more: Reservations) -> str | None:
        began, before = time.monotonic(), 0
        while not self.over.wait(POLL_SECONDS):
            nodes = set(membership.members(self.actor)[0].values())
            if going := sorted(nodes & set(cluster_state.get_draining_nodes())):
                return f"{node_names(going)} is to be taken away"
            ready = more.ready()
            if ready and ready == before and time.monotonic() - began > GROW_SECONDS:
                return f"there is room for {ready} more worker(s)"
            before = ready
        return None


def node_names(nodes: list[str]) -> str:
    """Nodes by their addresses."""
    known = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
    return ", ".join(f"node {known.get(node, 'unknown')} ({node[:6]})" for node in nodes)
