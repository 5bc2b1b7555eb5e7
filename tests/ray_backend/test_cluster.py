"""Clusters that start nodes when trials wait for them, and a start that is interrupted."""

import signal
import socket
import sys
import time

import pytest
import ray

from sadcl.console import guarded, resumable
from sadcl.errors import UserError
from sadcl.ray_backend import cluster
from sadcl.study.placement import Placement, fit_to_cluster

HEAD, GPU = {"CPU": 0.0, "memory": 1e9}, {"CPU": 8.0, "GPU": 1.0, "node:10.0.0.2": 1.0}
JOINING = '[{"nodes": 3, "CPU": 8, "GPU": 1}]'


@pytest.mark.parametrize("joined", [0, 1, 3, 4])
def test_a_trial_has_room_before_its_node_has_joined(joined):
    nodes = cluster.with_joining([HEAD, *[GPU] * joined], JOINING)
    placed, at_once = fit_to_cluster(Placement("/r", None, gpus=1, cpus=4), nodes)
    assert (placed.cpus, at_once) == (4, max(joined, 3))


def test_what_can_never_come_is_refused_with_what_can():
    with pytest.raises(
        UserError,
        match=r"needs 4 workers .* has room for 3 "
        r"\(3 nodes of 8 CPUs and 1 GPUs; 0 CPUs and 0 GPUs\)",
    ):
        fit_to_cluster(
            Placement("/r", None, gpus=1, workers=4), cluster.with_joining([HEAD], JOINING)
        )


def test_a_cluster_that_does_not_grow_is_what_it_is():
    assert (
        cluster.with_joining([HEAD, GPU], None)
        == cluster.with_joining([HEAD, GPU], "")
        == [HEAD, GPU]
    )


@pytest.mark.parametrize(
    "text", ["8", "{}x", '[{"CPU": 8}]', '["GPU"]', '[{"nodes": "many", "CPU": 8}]']
)
def test_a_variable_that_cannot_be_read_is_refused_with_an_example(text):
    with pytest.raises(UserError) as refused:
        cluster.with_joining([HEAD], text)
    assert str(refused.value) == (
        f"SADCL_MAY_JOIN={text!r} cannot be read. Give the nodes that may join as in "
        '[{"nodes": 8, "CPU": 8, "GPU": 1}].'
    )


def test_a_start_of_ray_that_is_terminated_is_an_interruption(monkeypatch, capsys):
    def init(**options):
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as Ray does
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(SystemExit) as end, guarded(), resumable(lambda: "Stopping s."):
        with cluster.connected(None):
            raise AssertionError
    assert end.value.code == 130
    assert "Stopping s." in capsys.readouterr().err


def test_after_ray_has_started_sigterm_does_what_it_did(monkeypatch):
    def init(**options):
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as Ray does

    mine = lambda number, frame: None  # noqa: E731
    before = signal.signal(signal.SIGTERM, mine)
    try:
        monkeypatch.setattr(ray, "init", init)
        with cluster._terminated_as_before():
            ray.init()
            assert signal.getsignal(signal.SIGTERM) is not mine
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_port_where_something_else_listens_is_refused_in_seconds(monkeypatch):
    """Ray would try for minutes."""
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(UserError, match="no Ray cluster at .* can be joined: what listens"):
            with cluster.connected(address):
                pass
        assert time.monotonic() - start < 10


@pytest.mark.parametrize("kind", [Exception, RuntimeError, OSError])
def test_what_ray_raises_when_it_cannot_start_is_one_paragraph(monkeypatch, kind):
    def cannot_start(**_):
        raise kind("\nThe last lines of dashboard.log:\n  ...\nOSError: path too long\n")

    monkeypatch.setattr(cluster.ray, "init", cannot_start)
    message = r"machine: The last lines of dashboard.log: ... OSError: path too long Its logs are"
    with pytest.raises(UserError, match=message):
        with cluster.connected(None):
            pass
