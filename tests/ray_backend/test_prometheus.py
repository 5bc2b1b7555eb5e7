"""The metrics and log lines of trials, and what a real cluster shows of one whose steps hang."""

from __future__ import annotations

import json
import re
import socket

import pytest

from sadcl import recipes
from sadcl.errors import UserError
from sadcl.ray_backend import prometheus
from sadcl.search.trial import Trial
from sadcl.study.trial_event import EpochEnded, TrialEnded, WorkerBeat, WorkerFailed
from tests.conftest import ROOT

WATCHED = """
import functools, json, os, re, signal, sys, time, urllib.request
from sadcl import recipes
from sadcl.ray_backend import environment
environment.prepare(None)
import psutil, ray
from sadcl.ray_backend import cluster, event_channel, tasks
from sadcl.search.trial import Trial
from sadcl.study.event_text import notice_text
from sadcl.study.placement import Placement
from sadcl.study.trial_event import EpochEnded, HangEnded, HangStarted, WorkerBeat
from tests.conftest import TINY

def trial(arm, **changes):
    config = recipes.demo().override({**TINY, "stage1.epochs": 1, "stage2.epochs": 1, **changes})
    return Trial("seen", "train", arm, config)

def get(url):
    headers = {"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"}
    request = urllib.request.Request(url, headers=headers)
    return urllib.request.urlopen(request, timeout=20).read().decode()

def until(condition, what, seconds=400):
    end = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > end:
            state = f"{sorted(expected - shown())} {str(events()[-5:])[-1500:]}"
            sys.exit(f"waited in vain for {what}: {state}")
        time.sleep(0.3)
    return result

EVENTS, values, expected = [], {}, {f"ray_sadcl_{name}" for name in METRICS}
def shown():
    return {key for key, numbers in values.items() if any(numbers)}
def events():
    EVENTS.extend(event_channel.drain(channel))
    return EVENTS

ray.init = functools.partial(ray.init, num_cpus=4)  # whatever the machine has
with cluster.connected(None):
    channel = event_channel.open_channel()
    sizes = {"data.scene_train": 107, "optim.batch_size": 4, "stage2.epochs": 10}
    one, two = (trial(arm, **sizes) for arm in ("one", "two"))
    runs, scratch = os.path.abspath("runs"), os.path.abspath("scratch")
    placements = [Placement(runs, None, "demo", workers) for workers in (1, 2)]
    pools = [tasks.TaskPool(placement, scratch, channel) for placement in placements]
    os.makedirs(os.path.join(runs, "studies"))  # as a driver leaves it
    pools[0].start(one), pools[1].start(two)
    url = "http://{NodeManagerAddress}:{MetricsExportPort}/metrics".format(**ray.nodes()[0])

    def scraped(whose):
        return lambda: {name for name in expected if whose in name} <= scrape()

    def scrape():
        for line in get(url).splitlines():
            if line.startswith("ray_sadcl_"):
                name, _, value = line.rpartition(" ")
                labels = dict(re.findall(r'(\\w+)="(.*?)"', name))
                arm, rank = labels["trial"].partition("-")[0], labels["rank"]
                key = f"{name.partition('{')[0]} {arm} {rank} {labels.get('term', '')}".strip()
                values.setdefault(key, []).append(float(value))
        return shown()

    def first():  # rank 0's process, once all that it reports is of the second stage
        own = [e for e in events() if e.key == two.key and getattr(e, "stage", 0) == 2]
        beats = [e for e in own if isinstance(e, WorkerBeat) and e.step_seconds is not None]
        return any(isinstance(e, EpochEnded) for e in own) and next((e.pid for e in beats), None)

    def hangs():
        return [notice_text(e) for e in events() if isinstance(e, HangStarted | HangEnded)]

    until(scraped("one 0"), "the metrics of one worker")
    rank0, reports = until(first, "stage 2"), []
    children = psutil.Process().children(recursive=True)
    workers = [p for p in children if "RayTrainWorker" in " ".join(p.cmdline())]
    pids = [rank0, next(p.pid for p in workers if p.pid != rank0)]
    for rank in (1, 0):  # the other one waits meanwhile, and its metrics with it
        before = len(hangs())
        os.kill(pids[rank], signal.SIGSTOP)
        until(lambda: len(hangs()) > before, "the report of what hangs")
        until(scraped(f"two {1 - rank}"), "the metrics")
        os.kill(pids[rank], signal.SIGCONT)
        until(lambda: len(hangs()) > before + 1, "the trial to continue")
        reports.append(hangs()[before : before + 2])
    status = [pool.result(t)["status"] for pool, t in zip(pools, (one, two))]
    url = f"http://{ray._private.worker.get_dashboard_url()}/api/train/v2/runs/v1"
    print("RESULT" + json.dumps({
        "values": values, "hangs": reports, "status": status, "workers": pids, "key": two.key,
        "runs": [(run["name"], run["status"]) for run in json.loads(get(url))["train_runs"]],
    }))
"""
METRICS = [
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
    """Metrics at the node's port, the ranks of a step that hangs, and the dashboard's Train tab."""
    (tmp_path / "watched.py").write_text(WATCHED.replace("METRICS", repr(METRICS)))
    options = {
        "RAY_metrics_report_interval_ms": "1000",
        "SADCL_HANG_SECONDS": "12",
        "PYTHONPATH": str(ROOT),
    }
    done = command("python", "watched.py", timeout=580, **options)
    result = json.loads(done.stdout.rpartition("RESULT")[2])
    last = {name: max(values) for name, values in result["values"].items()}
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
    assert result["status"] == ["complete", "complete"]
    host, processes = re.escape(socket.gethostname()), result["workers"]
    for late, other, hangs, continues in ((1, 0, *result["hangs"][0]), (0, 1, *result["hangs"][1])):
        stopped = rf"rank {late} on {host} \(process {processes[late]}\)"
        position = r"(step \d+/20|the end) of stage 2 epoch \d+"
        silent = r"it has given no sign of life for \d+ s"
        waits = rf"rank {other} on {host} \(process {processes[other]}\) waits at sadcl\.\S+ in \w+"
        assert re.fullmatch(
            rf"HANGS: {stopped} has not arrived at {position}: {silent}; {waits}", hangs
        )
        assert re.fullmatch(r"continues after \d+ s", continues)
    ((name, status),) = result["runs"]
    assert name.startswith(result["key"])
    assert status == "FINISHED"


def values_of(monkeypatch, *events):
    """What the gauges are set to, by name, rank and term."""
    values = {}

    class FakeGauge:
        def __init__(self, name):
            self.name = name

        def set(self, value, tags):
            assert (tags["study"], tags["trial"]) == ("s", TRIAL.key.removeprefix("s-"))
            values[self.name.removeprefix("sadcl_"), tags["rank"], tags.get("term")] = value

    monkeypatch.setattr(prometheus, "_gauge", FakeGauge)
    monkeypatch.setattr(prometheus, "_values", {})
    for event in events:
        prometheus.record(TRIAL, event)
    return values


TRIAL = Trial("s", "train", "one", recipes.demo().override({"optim.batch_size": 12}))


def test_events_become_gauges_and_lines_in_the_worker_s_log(monkeypatch, capsys):
    key = TRIAL.key
    metrics = {"loss": 3.0, "loss_sample": 1.0, "admitted": 7.0, "bank_fill": 9.0, "val_mAP": 41.0}
    beat = WorkerBeat(key, 0, 1, "h", 1, stage=2, epoch=3, step_seconds=0.5)
    values = values_of(
        monkeypatch, beat, EpochEnded(key, 2, 3, 4, metrics), TrialEnded(key, "failed", "Diverged")
    )
    assert values == {
        ("step_seconds", "0", None): 0.5,
        ("images_per_second", "0", None): 24.0,
        ("stage", "0", None): 2,
        ("epoch", "0", None): 3,
        ("loss", "0", "total"): 3.0,
        ("loss", "0", "sample"): 1.0,
        ("activated_rows", "0", None): 7.0,
        ("bank_fill", "0", None): 9.0,
        ("val_map", "0", None): 41.0,
    }
    assert prometheus._values == {}
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"{key} rank 0 on ")
    assert first.endswith(": stage 2 epoch 3/4: loss 3, val_mAP 41")
    assert second.endswith(": ERROR: Diverged")


def test_a_later_worker_has_gauges_of_its_steps_alone(monkeypatch, capsys):
    beat = WorkerBeat(TRIAL.key, 1, 2, "h", 1, stage=2, epoch=3, step_seconds=0.5)
    again = WorkerBeat(TRIAL.key, 1, 2, "h", 1, synchronisation_seconds=0.1)
    failed = WorkerFailed(TRIAL.key, 1, "OSError: gone")
    assert values_of(monkeypatch, beat, again, failed) == {
        ("step_seconds", "1", None): 0.5,
        ("synchronisation_seconds", "1", None): 0.1,
    }
    assert list(prometheus._values) == [TRIAL.key]
    assert "rank 1 on " in (line := capsys.readouterr().err)
    assert line.endswith(": ERROR: OSError: gone\n")
    last = WorkerBeat(TRIAL.key, 1, 2, "h", 1, last=True)
    values_of(monkeypatch, beat, last)
    assert prometheus._values == {}


def test_a_limit_that_is_no_number_is_said(monkeypatch):
    for text in ("soon", "-1", "inf", "nan"):
        monkeypatch.setenv(prometheus.HANG_SECONDS_VARIABLE, text)
        with pytest.raises(
            UserError, match=rf"SADCL_HANG_SECONDS = '{text}' is not a number of seconds"
        ):
            prometheus.hang_seconds()
