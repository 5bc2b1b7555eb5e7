"""A training across two hosts with addresses of their own, whose cable is slow, or cut."""

import os
import shutil
import signal
import time

import pytest

from tests.cluster.nodes import Cluster, epochs, train_file, until
from tests.cluster.test_faults import LONG, Run, ended
from tests.cluster.wire import Wire

HEAD, OTHER = "10.77.0.2", "10.77.0.3"


@pytest.fixture
def wire():
    if os.getuid() or shutil.which("ip") is None or not os.path.exists("/dev/net/tun"):
        pytest.skip("needs root, ip and /dev/net/tun")
    found = Wire(HEAD, OTHER)
    yield found
    found.remove()


@pytest.fixture
def cluster(wire, tmp_path, cache):
    found = Cluster(tmp_path, cache, HEAD, namespaces=True)
    try:
        found.start(HEAD)
        found.start(OTHER)
        yield found
    finally:
        found.stop()


@pytest.mark.soak
def test_the_cable(wire):
    assert min(wire.ping() for _ in range(3)) < 80  # on a busy machine
    wire.be(0.05)
    assert min(wire.ping() for _ in range(3)) >= 100


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_cable_that_is_slow_or_cut_for_20_seconds_changes_nothing_and_one_that_stays_cut_is_said(
    wire, cluster, tmp_path
):
    file = train_file(tmp_path, **LONG | {"stage2.epochs": 12})
    quiet, root = tmp_path / "quiet", tmp_path / "runs"
    assert cluster.run(file, "--workers", 2, "--storage", quiet).wait(900) == 0, cluster.log[-3000:]
    process = cluster.run(file, "--workers", 2, "--storage", root)
    run = Run(cluster, process, root)
    run.further(2)
    assert list(run.trainers()) == [HEAD, OTHER]

    def cut():
        wire.be("cut")
        time.sleep(20)
        wire.be(0)

    run.disturbed("link cut for 20 s", cut)
    run.disturbed("50 ms each way", lambda: wire.be(0.05))
    wire.be(0)
    assert process.wait(900) == 0, cluster.log[-3000:]
    assert epochs(root) == epochs(quiet)
    assert ended(root) == ended(quiet)
    assert "restarts" not in cluster.log

    process = cluster.run(file, "--workers", 2, "--storage", tmp_path / "lost")
    until(lambda: len(epochs(tmp_path / "lost")) >= 2, 400, process)
    wire.be("cut")
    began = time.monotonic()
    until(
        lambda: f"node {OTHER} (" in cluster.log and ") was lost; restarts" in cluster.log,
        300,
        process,
    )
    print(f"link cut for good: said after {time.monotonic() - began:.1f} s", flush=True)
    process.send_signal(signal.SIGTERM)
    process.wait(60)
