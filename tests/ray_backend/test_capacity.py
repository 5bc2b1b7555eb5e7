"""Room for workers: the number to start with, who waits for it, and how nodes are named."""

from __future__ import annotations

import pytest

from sadcl.errors import TrialFailed
from sadcl.ray_backend import capacity
from sadcl.study.placement import Placement

NODES = [
    {
        "NodeID": f"{n}" * 8,
        "NodeManagerAddress": f"10.0.0.{n}",
        "Alive": n != 3,
        "Resources": {"CPU": 2.0},
    }
    for n in (1, 2, 3)
]


@pytest.fixture
def nodes(monkeypatch):
    """A cluster of two nodes of two CPUs, and a third one that is lost; and a clock."""
    current = list(NODES)
    monkeypatch.setattr(capacity.ray, "nodes", lambda: current)
    monkeypatch.setattr(capacity, "Reservations", FakeReservations)
    clock = [0.0]
    monkeypatch.setattr(capacity.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(capacity.time, "sleep", lambda s: clock.__setitem__(0, clock[0] + s))
    return current


class FakeReservations:
    """As many groups are reserved as there is room."""

    def __init__(self, placement, count, size=1):
        self.groups, self.size = [object()] * count, size

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return

    def ready(self):
        room = sum(int(n["Resources"]["CPU"]) for n in capacity.ray.nodes() if n["Alive"])
        return min(len(self.groups), room // self.size)


def test_a_run_that_fits_starts_at_once(nodes):
    assert capacity.wait_for_workers(Placement("/r", None, workers=4), pytest.fail) == 4


def test_a_range_takes_as_many_as_fit(nodes):
    assert capacity.wait_for_workers(Placement("/r", None, workers=2, up_to=8), pytest.fail) == 6
    assert capacity.wait_for_workers(Placement("/r", None, workers=1, up_to=2), pytest.fail) == 2


def test_waiting_is_reported_once_and_has_an_end(nodes):
    reports = []
    with pytest.raises(TrialFailed, match=r"no room for 5 worker\(s\) for 30 minutes") as caught:
        capacity.wait_for_workers(Placement("/r", None, workers=5), lambda: reports.append(1))
    assert reports == [1]
    assert caught.value.final


def test_a_node_that_joins_ends_the_wait(nodes):
    def join():
        nodes.append({**NODES[0], "Resources": {"CPU": 1.0}})

    assert capacity.wait_for_workers(Placement("/r", None, workers=5), join) == 5


def test_nodes_are_named_by_address_and_id(nodes):
    assert (
        capacity.node_names(["1" * 8, "9" * 8]) == "node 10.0.0.1 (111111), node unknown (999999)"
    )


def test_a_worker_reserves_its_cpus_and_gpus():
    assert capacity.resources(Placement("/r", None, cpus=3)) == {"CPU": 3.0}
    assert capacity.resources(Placement("/r", None, gpus=0.5)) == {"CPU": 1.0, "GPU": 0.5}
