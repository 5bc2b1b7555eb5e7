"""What is seen of trials while they run: metrics, the Train tab, errors by rank, and steps that hang."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from pathlib import Path

import pytest
import torch

from sadcl.errors import TrialFailed, UserError
from sadcl.ray_backend import prometheus, trainer
from sadcl.ray_backend.hangs import HangDetector
from sadcl.training.heartbeat import Heartbeat, where_thread_stands
from tests.conftest import ROOT

WATCHED = """
import functools, json, os, re, signal, sys, time, urllib.request
from sadcl import recipes
from sadcl.ray_backend import environment
environment.prepare(None)
import psutil, ray
from sadcl.ray_backend import board as boards, cluster, jobs
from sadcl.study.execute import Where
from sadcl.search.trial import Trial
from tests.conftest import TINY

def trial(arm, **changes):
    return Trial("seen", "train", arm, recipes.demo().override({**TINY, "stage1.epochs": 1, "stage2.epochs": 1, **changes}))

def get(url):
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"})
    return urllib.request.urlopen(request, timeout=20).read().decode()

def until(true, what, seconds=400):
    end = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > end:
            sys.exit(f"waited in vain for {what}: {sorted(wanted - shown())} {str(events()[-5:])[-1500:]}")
        time.sleep(0.3)
    return found

EVENTS, said, wanted = [], {}, {f"ray_sadcl_{name}" for name in WANTED}
def shown():
    return {key for key, values in said.items() if any(values)}
def events():
    EVENTS.extend(boards.drain(board))
    return EVENTS

ray.init = functools.partial(ray.init, num_cpus=4)  # whatever the machine has
with cluster.connected(None):
    board = boards.open_board()
    one, two = (trial(arm, **{"data.scene_train": 107, "optim.batch_size": 4, "stage2.epochs": 10}) for arm in ("one", "two"))
    runs, scratch = os.path.abspath("runs"), os.path.abspath("scratch")
    pools = [jobs.Jobs(Where(runs, None, "demo", workers), scratch, board) for workers in (1, 2)]
    os.makedirs(os.path.join(runs, "studies"))  # as a driver leaves it
    pools[0].start(one), pools[1].start(two)
    url = "http://{NodeManagerAddress}:{MetricsExportPort}/metrics".format(**ray.nodes()[0])

    def scraped(whose):
        return lambda: {name for name in wanted if whose in name} <= seen()

    def seen():
        for line in get(url).splitlines():
            if line.startswith("ray_sadcl_"):
                name, _, value = line.rpartition(" ")
                labels = dict(re.findall(r'(\\w+)="(.*?)"', name))
                arm, rank = labels["trial"].partition("-")[0], labels["rank"]
                said.setdefault(f"{name.partition('{')[0]} {arm} {rank} {labels.get('term', '')}".strip(), []).append(
                    float(value)
                )
        return shown()

    def first():  # rank 0's process, once all that it tells is of the second stage
        own = [e for e in events() if e["key"] == two.key and e.get("stage") == 2]
        return any("metrics" in e for e in own) and next((e["pid"] for e in own if "step_seconds" in e), None)

    def late():
        return [e["late"] for e in events() if "late" in e]

    until(scraped("one 0"), "the metrics of one worker")
    rank0, reports = until(first, "stage 2"), []
    everyone = [p for p in psutil.Process().children(recursive=True) if "RayTrainWorker" in " ".join(p.cmdline())]
    pids = [rank0, next(p.pid for p in everyone if p.pid != rank0)]
    for rank in (1, 0):  # the other one waits meanwhile, and its metrics with it
        before = len(late())
        os.kill(pids[rank], signal.SIGSTOP)
        until(lambda: len(late()) > before, "the report of what hangs")
        until(scraped(f"two {1 - rank}"), "the metrics")
        os.kill(pids[rank], signal.SIGCONT)
        until(lambda: len(late()) > before + 1, "the trial to go on")
        reports.append(late()[before : before + 2])
    status = [pool.result(t)["status"] for pool, t in zip(pools, (one, two))]
    runs = json.loads(get(f"http://{ray._private.worker.get_dashboard_url()}/api/train/v2/runs/v1"))["train_runs"]
    print("RESULT" + json.dumps({
        "said": said, "late": reports, "status": status,
        "workers": pids, "runs": [(run["name"], run["status"]) for run in runs],
        "key": two.key, "address": url,
    }))
"""
WANTED = [
    *(
        f"{name} {arm} 0"
        for name in ("epoch", "stage", "activated_rows", "bank_fill", "val_map")
        for arm in ("one", "two")
    ),
    "images_per_second two 0",
    *(
        f"{name} two {rank}"
        for name in ("step_seconds", "synchronisation_seconds")
        for rank in (0, 1)
    ),
    *(f"loss two 0 {term}" for term in ("total", "class", "sample", "prototype")),
]


@pytest.mark.soak
def test_what_a_real_cluster_shows_of_a_trial_whose_workers_stop_in_turn(command, tmp_path):
    """Metrics of both trials at the node's port, the ranks of a step that hangs, and the run in the dashboard's Train tab."""
    (tmp_path / "watched.py").write_text(WATCHED.replace("WANTED", repr(WANTED)))
    options = {
        "RAY_metrics_report_interval_ms": "1000",
        "SADCL_HANG_SECONDS": "12",
        "PYTHONPATH": str(ROOT),
    }
    done = command("python", "watched.py", timeout=580, **options)
    found = json.loads(done.stdout.rpartition("RESULT")[2])
    last = {name: max(values) for name, values in found["said"].items()}
    assert (
        0
        < last["ray_sadcl_synchronisation_seconds two 1"]
        < last["ray_sadcl_step_seconds two 1"]
        < 60
    )
    assert 0 < last["ray_sadcl_val_map two 0"] <= 100
    assert last["ray_sadcl_stage two 0"] == 2
    assert last["ray_sadcl_bank_fill two 0"] >= 1
    assert not any(name.startswith("ray_sadcl_images") and name.endswith(" 1") for name in last)
    assert found["status"] == ["complete", "complete"]
    host, processes = re.escape(socket.gethostname()), found["workers"]
    for late, other, hangs, goes_on in ((1, 0, *found["late"][0]), (0, 1, *found["late"][1])):
        stopped = rf"rank {late} on {host} \(process {processes[late]}\)"
        place = r"(step \d+/20|the end) of stage 2 epoch \d+"
        waits = rf"rank {other} on {host} \(process {processes[other]}\) waits at sadcl\.\S+ in \w+"
        assert re.fullmatch(
            rf"HANGS: {stopped} has not arrived at {place}: it was not heard of for \d+ s; {waits}",
            hangs,
        )
        assert re.fullmatch(r"goes on after \d+ s", goes_on)
    ((name, status),) = found["runs"]
    assert name.startswith(found["key"])
    assert status == "FINISHED"


class FolderOfOne:
    folder = "/nowhere"

    def path(self, index):
        return Path("/nowhere/x.jpg")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def beat(rank, moved, step=3, *, at="sadcl.training.engine:60 in train_step", meets=True, **more):
    who = {"key": "k", "rank": rank, "ranks": 2, "host": f"host{rank}", "pid": 10 + rank}
    return {
        **who,
        "moved": moved,
        "at": at,
        "meets": meets,
        "stage": 1,
        "epoch": 2,
        "step": step,
        "steps": 9,
        **more,
    }


def told(*beats, seconds=130, silent=()):
    """What is said of beats that come again and again, but for those of silent ranks."""
    clock = Clock()
    hangs = HangDetector(120, clock)
    for each in beats:
        hangs.note(each)
    for clock.now in range(10, seconds + 1, 10):
        for each in beats:
            if each["rank"] not in silent:
                hangs.note(each)
        if found := hangs.changes():
            return found[0]["late"], hangs, clock
    return None


def test_who_has_not_arrived():
    """By silence, by the step, by where it stands; else all are named."""
    loads = {"at": "sadcl.data.loader:120 in batches", "meets": False}
    assert told(beat(0, 5), beat(1, 5), seconds=120) is None
    words, *_ = told(beat(0, 5), beat(1, 5), silent=(1,))
    waits = "rank 0 on host0 (process 10) waits at sadcl.training.engine:60 in train_step"
    late = "HANGS: rank 1 on host1 (process 11) has not arrived at step 4/9 of stage 1 epoch 2: it"
    assert words == f"{late} was not heard of for 130 s; {waits}"
    words, *_ = told(beat(0, 5), beat(1, 4, 2))
    assert words == f"{late} has stood for 130 s at sadcl.training.engine:60 in train_step; {waits}"
    words, *_ = told(beat(0, 5), beat(1, 5, **loads))
    assert words == f"{late} has stood for 130 s at sadcl.data.loader:120 in batches; {waits}"
    words, *_ = told(beat(0, 5))
    assert (
        words
        == f"HANGS: rank 1 has not arrived at step 4/9 of stage 1 epoch 2: it has left, or has not begun; {waits}"
    )
    words, *_ = told(beat(0, 5, 9), beat(1, 5, 9))
    assert words.startswith(
        "HANGS: no worker has arrived at the end of stage 1 epoch 2: rank 0 on host0 (process 10) has stood"
    )
    words, *_ = told(beat(0, 0, ranks=1, stage=0) | loads)
    assert "rank 0 on host0 (process 10) has stood for 130 s at sadcl.data.loader" in words


def test_a_trial_hangs_once_until_it_goes_on_or_ends():
    _, hangs, clock = told(beat(0, 5), beat(1, 5), silent=(1,))
    clock.now += 10
    assert hangs.changes() == []
    hangs.note(beat(1, 6))
    assert hangs.changes() == [{"key": "k", "late": "goes on after 140 s"}]
    hangs.note(beat(0, 6))
    hangs.note(
        {"key": "k", "status": "running"}
    )  # a group that was started again has other workers
    clock.now += 500
    assert hangs.changes() == []
    hangs.note(beat(0, 7))
    hangs.note({**beat(1, 7), "left": True})
    hangs.note({**beat(0, 7), "left": True})
    clock.now += 500
    assert hangs.changes() == []


def test_a_pulse_beats_while_its_thread_stands_still(monkeypatch):
    """It says where, and counts the seconds of steps but not of what lies between epochs."""
    from sadcl.training import heartbeat as pulses

    monkeypatch.setattr(pulses, "SECONDS", 0.05)
    clock, beats, enough = Clock(), [], threading.Event()
    monkeypatch.setattr(pulses.time, "perf_counter", clock)

    def say(beat):
        beats.append(beat)
        if sum("part" in b for b in beats) and len(beats) > 3:
            enough.set()

    heartbeat = Heartbeat(say)
    for clock.now, epoch, step in ((1, 1, 1), (2, 1, 2), (4, 1, 3), (100, 2, 1), (106, 2, 2)):
        heartbeat.step(2, epoch, step, 3, 0.5)
    heartbeat.start()
    assert enough.wait(30)
    heartbeat.stop()
    first, second, *_, last = beats
    assert (first["stage"], first["epoch"], first["step"], first["part"]) == (2, 2, 2, 2 / 3)
    assert first["step_seconds"] == pytest.approx((1 + 2 + 6) / 3)
    assert first["synchronisation_seconds"] == 0.5
    assert not {"part", "step_seconds"} & second.keys()
    assert (first["rank"], first["ranks"], first["pid"]) == (0, 1, os.getpid())
    assert last["left"]


def test_where_a_thread_stands_and_whether_others_are_met_there():
    from sadcl.data import loader

    at, done = threading.Event(), threading.Event()

    def read(path, side):
        at.set()
        done.wait(30)
        return torch.zeros(3, side, side)

    images = FolderOfOne()
    thread = threading.Thread(
        target=lambda: loader._Reader(images, 8, None, 0, keep=False, augments=False)[0, (0,)]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "read_image", read)
        thread.start()
        assert at.wait(30)
        place, meets = where_thread_stands(thread.ident)
        done.set()
        thread.join()
    assert place.startswith("sadcl.data.loader:")
    assert place.endswith("in _image")
    assert not meets


def test_the_cause_is_that_of_the_worker_that_failed_first():
    from ray.train import WorkerGroupError

    lost = TrialFailed("RuntimeError: [gloo] Connection closed by peer (rank 0 of 2 on a)")
    broken = TrialFailed("RuntimeError: the disk is gone (rank 1 of 2 on b)")
    assert trainer._cause(WorkerGroupError("x", {0: lost, 1: broken})) == str(broken)
    assert trainer._cause(WorkerGroupError("x", {0: lost})) == str(lost)


def test_a_limit_that_is_no_number_is_said(monkeypatch):
    for text in ("soon", "-1", "inf", "nan"):
        monkeypatch.setenv(prometheus.HANG_SECONDS_VARIABLE, text)
        with pytest.raises(
            UserError, match=rf"SADCL_HANG_SECONDS = '{text}' is not a number of seconds"
        ):
            prometheus.hang_seconds()
