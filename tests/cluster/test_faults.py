"""Runs whose cluster fails in parts: real nodes, real training, real disks, kill -9, unmounting."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from sadcl import results
from tests.cluster.nodes import PLAIN, Cluster, epochs, train_file, until
from tests.ray_backend.test_driver_search import PHASES, count, rows
from tests.ray_backend.test_nothing_lost import optuna_has

LONG = {"optim.batch_size": 4, "stage1.epochs": 4, "stage2.epochs": 40}
"""Twelve steps an epoch, and long enough for all faults of a test."""


def call(*words):
    subprocess.run(list(map(str, words)), check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own, which can be filled, made read-only and taken away."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.getuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64m", "none", folder], check=False
        ).returncode
    ):
        pytest.skip("this machine lets nobody mount anything")
    yield folder
    while (
        subprocess.run(["umount", "-l", folder], check=False, capture_output=True).returncode == 0
    ):
        continue


@pytest.fixture
def cluster(tmp_path, cache):
    nodes = Cluster(tmp_path, cache)
    nodes.start(nodes.head, cpus=0)
    yield nodes
    nodes.stop()


def words_of(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def ended(root):
    (row,) = results.read(root, "trials").to_pylist()
    assert row["status"] == "complete", row["cause"]
    return {
        name: row[name]
        for name in ("val_mAP", "test_mAP", "test_mAP_step", "epoch", "weights", "epochs_done")
    }


@pytest.mark.soak
def test_a_worker_that_is_killed_is_replaced(tmp_path, command):
    """A private cluster of this machine gives the figures of one worker that nothing disturbs."""
    exact = {"model.freeze_batchnorm": True, "optim.precision": "fp64", "optim.batch_size": 4}
    file, root = train_file(tmp_path, **exact), tmp_path / "two"
    command("python", file, "--storage", "one")
    with open(tmp_path / "log", "w") as log:
        words = [sys.executable, file, "--workers", "2", "--storage", "two"]
        process = subprocess.Popen(
            words, cwd=tmp_path, env=command.environment, stdout=log, stderr=subprocess.STDOUT
        )
    until(lambda: len(epochs(root)) >= 2, process=process)
    children = psutil.Process(process.pid).children(recursive=True)
    trains = [child for child in children if "TrainWorker" in words_of(child)]
    assert len(trains) == 2
    trains[1].kill()
    assert process.wait(300) == 0, (tmp_path / "log").read_text()[-3000:]
    log = (tmp_path / "log").read_text()
    assert "restarts from its last checkpoint" in log
    one, two = epochs(tmp_path / "one"), epochs(root)
    assert one.keys() == two.keys()
    for at, row in one.items():
        assert two[at]["loss"] == pytest.approx(row["loss"], rel=1e-9)
    assert ended(root)["test_mAP"] == pytest.approx(ended(tmp_path / "one")["test_mAP"], rel=1e-9)


class Run:
    """A run that is disturbed, and the time that it takes until it is further than before."""

    def __init__(self, cluster, process, root):
        self.cluster, self.process, self.root, self.lost = cluster, process, root, {}

    def further(self, by=1, seconds=400):
        least = len(epochs(self.root)) + by
        until(lambda: len(epochs(self.root)) >= least, seconds, self.process)

    def trainers(self):
        return until(lambda: len(t := self.cluster.trainers()) == 2 and t, process=self.process)

    def disturbed(self, name, act, text=""):
        """Disturb it in mid-training: no row that was written changes, and the run continues."""
        before, start, began = epochs(self.root), len(self.cluster.log), time.monotonic()
        act()
        until(lambda: text in self.cluster.log[start:], 400, self.process)
        self.further()
        self.lost[name] = time.monotonic() - began
        print(f"{name}: {self.lost[name]:.1f} s until it was further", flush=True)
        now = epochs(self.root)
        assert {at: now[at] for at in before} == before
        self.further()


@pytest.fixture(scope="module")
def quiet(tmp_path_factory, cache):
    """The run of two workers that nothing disturbs."""
    folder = tmp_path_factory.mktemp("quiet")
    environment = PLAIN | {"XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"}
    words = [
        sys.executable,
        train_file(folder, **LONG),
        "--workers",
        "2",
        "--storage",
        folder / "runs",
    ]
    subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True)
    return folder / "runs"


def check_same(run, quiet, faults):
    """It ends with the bits of the run that nothing disturbed, and repeats little."""
    assert run.process.wait(900) == 0, run.cluster.log[-3000:]
    assert epochs(run.root) == epochs(quiet)
    assert ended(run.root) == ended(quiet)
    lines = [
        line
        for line in run.cluster.log.splitlines()
        if ": stage " in line and "held-out mAP" in line
    ]
    assert (
        len(lines) <= LONG["stage1.epochs"] + LONG["stage2.epochs"] + faults
    )  # the epoch that was under way, at most
    assert not list(run.root.rglob("state.pt"))


@pytest.mark.soak
@pytest.mark.timeout(2400)
def test_workers_and_nodes_that_are_killed_or_taken_away(tmp_path, cluster, quiet):
    for number in (3, 4, 5, 6):
        cluster.start(f"127.0.0.{number}")
    process = cluster.run(
        train_file(tmp_path, **LONG), "--workers", 2, "--storage", tmp_path / "runs"
    )
    run = Run(cluster, process, tmp_path / "runs")
    run.further(2)
    run.disturbed(
        "worker killed",
        lambda: list(run.trainers().values())[1].kill(),
        "was lost; restarts from its last",
    )
    run.disturbed(
        "node killed",
        lambda: cluster.kill(list(run.trainers())[1]),
        "was lost; restarts from its last",
    )
    going = next(iter(run.trainers()))
    node = cluster.ids()[going]
    run.disturbed(
        "node drained",
        lambda: drained(cluster, going),
        f"node {going} ({node[:6]}) is to be taken away; resumes from its last checkpoint",
    )
    assert going not in run.trainers()
    check_same(run, quiet, 3)


def drained(cluster, address):
    """Announce that a node is taken away in a minute, as a cloud's watcher does."""
    words = [
        "--reason",
        "DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message",
        "spot",
        "--deadline-remaining-seconds",
        "60",
    ]
    cluster.call(
        "ray",
        "drain-node",
        "--address",
        cluster.address,
        "--node-id",
        cluster.ids()[address],
        *words,
    )


def busy(cluster, address):
    """Whether a trial of one worker is trained on a node."""
    words = [words_of(process) for process in cluster.processes(address)]
    return any(name in text for text in words for name in ("ray::run", "ImplicitFunc"))


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_search_leaves_a_node_that_is_taken_away_and_outlives_storage_that_fails(
    tmp_path, cluster, disk, study_file
):
    file, root = study_file(**{"stage1.epochs": 4, "stage2.epochs": 40}), disk / "runs"
    for number in (3, 4):
        cluster.start(f"127.0.0.{number}")
    process = cluster.run(file, "--storage", root)
    until(lambda: any(row["phase"] == "search" for row in rows(root)), 600, process)
    until(lambda: busy(cluster, "127.0.0.4"), process=process)
    cluster.start("127.0.0.5")
    before, began = len(results.read(root, "epochs")), time.monotonic()
    drained(cluster, "127.0.0.4")
    until(lambda: not busy(cluster, "127.0.0.4"), 40, process)
    print(f"search, node drained: left after {time.monotonic() - began:.1f} s", flush=True)
    until(
        lambda: busy(cluster, "127.0.0.5") and len(results.read(root, "epochs")) > before,
        process=process,
    )
    call("mount", "--bind", disk, disk)
    call("mount", "-o", "remount,bind,ro", disk)
    time.sleep(30)
    call("umount", "-l", disk)
    assert process.wait(900) == 0, cluster.log[-3000:]
    assert count(rows(root)) == PHASES
    assert {row["status"] for row in rows(root)} == {"complete"}, cluster.log[-3000:]
    assert "Traceback" not in cluster.log
    (last,) = {
        e["epoch"]
        for e in results.read(root, "epochs").to_pylist()
        if e["stage"] == 2 and e["epoch"] == 40
    }
    assert last == 40


@pytest.mark.soak
@pytest.mark.parametrize("workers", ["1", "2", "1:2"])
def test_a_run_asks_for_nodes_that_are_not_there_yet(tmp_path, cluster, workers):
    """An autoscaler starts nodes for what waits, and for nothing else."""
    may_join = json.dumps([{"nodes": 2, "CPU": 1, "GPU": 0}])
    process = cluster.run(
        train_file(tmp_path),
        "--workers",
        workers,
        "--storage",
        tmp_path / "runs",
        SADCL_MAY_JOIN=may_join,
    )
    code = """
import sys, ray
from ray.util import placement_group_table
ray.init(sys.argv[1], log_to_driver=False)
print("waiting", sum(group["state"] == "PENDING" for group in placement_group_table().values()))
"""

    def waiting():
        output = cluster.call(sys.executable, "-c", code, cluster.address)
        return int(
            next(line for line in output.splitlines() if line.startswith("waiting ")).split()[1]
        )

    until(lambda: waiting() == 1, 200, process)
    for number in range(int(workers[0])):
        cluster.start(f"127.0.0.{3 + number}")
    assert process.wait(300) == 0, cluster.log[-3000:]
    assert ended(tmp_path / "runs")


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_run_waits_for_room_that_another_uses_and_reports_it(tmp_path, cluster):
    for number in (3, 4):
        cluster.start(f"127.0.0.{number}")
    short = "from sadcl.ray_backend import trainer; trainer.QUEUE_SECONDS = 5.0"
    first = cluster.run(
        train_file(tmp_path, **LONG | {"stage2.epochs": 20}),
        "--workers",
        2,
        "--storage",
        tmp_path / "one",
    )
    until(lambda: len(epochs(tmp_path / "one")) >= 1, process=first)
    second = cluster.run(
        train_file(tmp_path, before=short), "--workers", 2, "--storage", tmp_path / "two"
    )
    until(lambda: "waits for room that others use" in cluster.log, process=second)
    time.sleep(20)  # longer than it would take to give up
    assert first.wait(300) == second.wait(300) == 0, cluster.log[-3000:]
    assert cluster.log.count("waits for room that others use") == 1
    assert ended(tmp_path / "two")


@pytest.mark.soak
@pytest.mark.timeout(2400)
def test_storage_that_fails_a_worker_that_hangs_and_a_node_that_joins_late(
    tmp_path, cluster, disk, quiet
):
    for number in (3, 4):
        cluster.start(f"127.0.0.{number}")
    file, root = train_file(tmp_path, **LONG), disk / "runs"
    process = cluster.run(file, "--workers", 2, "--storage", root, SADCL_TIMEOUT_SECONDS="45")
    run = Run(cluster, process, root)
    run.further(2)

    def read_only():
        call("mount", "--bind", disk, disk)  # the disk itself is in use
        call("mount", "-o", "remount,bind,ro", disk)
        time.sleep(30)
        call("umount", "-l", disk)

    run.disturbed("storage read-only for 30 s", read_only)

    def unmounted():
        there = tmp_path / "there"
        there.mkdir()
        call("mount", "--bind", disk, there)
        call("umount", "-l", disk)
        time.sleep(30)
        strayed = list(disk.rglob("*.pt"))
        call("mount", "--bind", there, disk)
        call("umount", "-l", there)
        assert not strayed

    run.disturbed("storage unmounted for 30 s", unmounted)
    hang = signal.SIGSTOP
    run.disturbed(
        "worker hangs",
        lambda: list(run.trainers().values())[1].send_signal(hang),
        "has not arrived",
    )

    def late():
        cluster.kill(list(run.trainers())[1])
        time.sleep(20)
        cluster.start("127.0.0.5")

    run.disturbed("node killed, another joins 20 s later", late, "was lost; restarts")
    check_same(run, quiet, 2)


@pytest.mark.soak
def test_a_full_disk_ends_a_run_with_what_to_do_and_it_goes_on_when_there_is_room(
    tmp_path, disk, command
):
    file, root = train_file(tmp_path, **LONG | {"stage2.epochs": 6}), disk / "runs"
    command("python", file, "--storage", "quiet")
    words = [sys.executable, file, "--storage", root]
    process = subprocess.Popen(
        words, cwd=tmp_path, env=command.environment, stderr=subprocess.PIPE, text=True
    )
    until(lambda: len(epochs(root)) >= 2, process=process)
    with open(disk / "other", "wb", buffering=0) as other, contextlib.suppress(OSError):
        while other.write(bytes(1 << 20)):  # of somebody else, until nothing is left
            pass
    _, output = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "failed: The storage is full: [Errno 28] No space left on device: " in output
    assert "make room and give the same command again" in output
    assert "Traceback" not in output
    before = epochs(root)
    (disk / "other").unlink()
    command("python", file, "--storage", root)
    now = epochs(root)
    assert {at: now[at] for at in before} == before
    assert now == epochs(tmp_path / "quiet")
    assert ended(root) == ended(tmp_path / "quiet")


@pytest.mark.soak
@pytest.mark.timeout(1500)
def test_a_run_takes_the_nodes_that_come_and_does_without_those_that_go(tmp_path, cluster):
    """2 workers, then 3, then 2: the figures of one worker that nothing disturbs."""
    exact = {"model.freeze_batchnorm": True, "optim.precision": "fp64", **LONG}
    file = train_file(
        tmp_path,
        before="from sadcl.ray_backend import capacity; capacity.GROW_SECONDS = 5.0",
        **exact,
    )
    quiet, root = tmp_path / "quiet", tmp_path / "runs"
    environment = PLAIN | {
        "XDG_CACHE_HOME": cluster.environment["XDG_CACHE_HOME"],
        "OMP_NUM_THREADS": "1",
    }
    words = [sys.executable, file, "--storage", quiet]
    subprocess.run(words, env=environment, cwd=tmp_path, check=True, capture_output=True)
    for number in (3, 4):
        cluster.start(f"127.0.0.{number}")
    process = cluster.run(file, "--workers", "2:3", "--storage", root)
    run = Run(cluster, process, root)
    run.further(2)
    run.disturbed(
        "more room",
        lambda: cluster.start("127.0.0.5"),
        "there is room for 1 more worker(s); resumes",
    )
    assert len(cluster.trainers()) == 3
    run.disturbed(
        "node killed, none to spare", lambda: cluster.kill("127.0.0.4"), "was lost; restarts"
    )
    assert len(cluster.trainers()) == 2
    assert process.wait(900) == 0, cluster.log[-3000:]
    one, many = epochs(quiet), epochs(root)
    assert one.keys() == many.keys()
    for at, row in one.items():
        for name in ("loss", *(["anchors", "admitted"] if at[0] == 2 else [])):
            assert many[at][name] == pytest.approx(row[name], rel=1e-9)
    assert ended(root)["test_mAP"] == pytest.approx(ended(quiet)["test_mAP"], rel=1e-9)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_study_outlives_its_whole_cluster_and_optunas_journal(
    tmp_path, cluster, cache, study_file
):
    """Head, driver, all nodes and Optuna's journal are lost at once; another cluster resumes."""
    file, root = study_file(**{"stage1.epochs": 4, "stage2.epochs": 8}), tmp_path / "runs"
    cluster.start("127.0.0.3")
    process = cluster.run(file, "--storage", root)

    def tried():
        return [
            row for row in rows(root) if row["phase"] == "search" and row["status"] == "complete"
        ]

    until(tried, 600, process)
    process.kill()
    for address in list(cluster.nodes):
        cluster.kill(address)
    process.wait(30)
    before = {row["key"]: row for row in rows(root) if row["status"] == "complete"}
    shutil.rmtree(root / "optuna")
    another = Cluster(tmp_path, cache, "127.0.0.12")
    try:
        another.start(another.head, cpus=0)
        another.start("127.0.0.13")
        began = time.monotonic()
        process = another.run(file, "--storage", root)
        until(
            lambda: len([row for row in rows(root) if row["status"] == "complete"]) > len(before),
            600,
            process,
        )
        print(
            f"head lost: {time.monotonic() - began:.1f} s until another run was complete",
            flush=True,
        )
        assert process.wait(900) == 0, another.log[-3000:]
    finally:
        another.stop()
    after = rows(root)
    assert count(after) == PHASES
    assert {row["status"] for row in after} == {"complete"}
    assert {row["key"]: row for row in after if row["key"] in before} == before
    assert optuna_has(root) == {
        row["key"]: (json.loads(row["params"]), "complete", row["val_mAP"])
        for row in after
        if row["phase"] == "search"
    }
