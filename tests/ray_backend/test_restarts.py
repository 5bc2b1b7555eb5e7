"""Trials in real processes that fail: which of them start again, and in which process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

import pytest

from tests.conftest import TINY

pytestmark = pytest.mark.soak

SCRIPT = '''
import json, os, sys
from pathlib import Path

import ray

from sadcl import Search, recipes, results
from sadcl.ray_backend import event_channel, tasks, tuner
from sadcl.search import Float, Plan, Trial
from sadcl.study.checkpoint_quota import CheckpointQuota
from sadcl.study.placement import Placement

root, changes = Path(sys.argv[1]), json.loads(sys.argv[2])
(root / "runs" / "studies").mkdir(parents=True)
placement = Placement(str(root / "runs"), None, "demo", cpus=1)
tasks.MAX_RESTARTS = tuner.MAX_RESTARTS = 1


def install():
    """Let trials fail as their names say; each attempt leaves the number of its process."""
    import errno, torch
    from sadcl.study import execute
    from sadcl.training import Diverged

    xid = torch.AcceleratorError("CUDA error: an illegal memory access was encountered\\nmore")
    faults = {
        "-gpu-": (1, xid),
        "-xid-": (9, xid),
        "-disk-": (1, OSError(errno.EIO, "Input/output error")),
        "-nan-": (1, Diverged("The loss is not finite.")),
        "-tuned-": (1, xid),
    }
    fit = execute.fit

    def failing(config, images, folder, **options):
        name = next((name for name in faults if name in folder), "")
        times, error = faults.get(name, (0, None))
        with open(root / "attempts", "a") as log:
            log.write(f"{name} {os.getpid()} {Path(folder).name}\\n")
        text = (root / "attempts").read_text()
        if sum(line.startswith(f"{name} ") for line in text.splitlines()) <= times:
            raise error
        return fit(config, images, folder, **options)

    execute.fit = failing


ray.init(
    address="local", num_cpus=1, include_dashboard=False, log_to_driver=False,
    runtime_env={"worker_process_setup_hook": install},
)
base = recipes.demo().override(changes)
channel = event_channel.open_channel()
pool = tasks.TaskPool(placement, str(root / "scratch"), channel)
for name in ("gpu", "xid", "disk", "nan", "good"):
    row = pool.result(Trial("tasks", "arm", name, base))
search = Search(
    name="s", question="?", base=recipes.coco14(), demo=base, space={"loss.tau": Float(0.05, 0.5)}
)
plan = Plan(search, "demo", base, 3, "d1", "d2")
tuner.run_trials(
    plan, [], placement, journal=root / "optuna" / "s.journal", max_concurrent=1,
    scratch=str(root / "scratch"), channel=channel, quota=CheckpointQuota(placement.storage, None),
)
restarts = [
    [event.key, event.reason] for event in event_channel.drain(channel)
    if type(event).__name__ == "TrialRestarts"
]
rows = [
    {name: row[name] for name in ("key", "phase", "arm", "status", "cause")}
    for row in results.read(placement.storage, "trials").to_pylist()
]
ray.shutdown()
print(json.dumps({"rows": rows, "restarts": restarts}))
'''
GPU = "AcceleratorError: CUDA error: an illegal memory access was encountered"


@pytest.fixture(scope="module")
def outcome(tmp_path_factory, cache):
    """The rows, the restarts, and the processes of each attempt by what the trial is named."""
    root = tmp_path_factory.mktemp("restarts")
    changes = TINY | {"stage1.epochs": 1, "stage2.epochs": 1}
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_"))}
    with tempfile.TemporaryDirectory(prefix="r") as short:  # sockets below it have short names
        environment |= {
            "RAY_TMPDIR": short,
            "XDG_CACHE_HOME": str(cache),
            "RAY_AIR_NEW_OUTPUT": "0",
        }
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(root), json.dumps(changes)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    outcome = json.loads(done.stdout.splitlines()[-1])
    outcome["attempts"], outcome["log"] = {}, []
    for line in (root / "attempts").read_text().splitlines():
        name, process, _ = line.rsplit(" ", 2)
        outcome["attempts"].setdefault(name, []).append(int(process))
        outcome["log"].append((name, int(process)))
    return outcome


def row(outcome, arm):
    (found,) = [row for row in outcome["rows"] if row["arm"] == arm]
    return found


def test_a_trial_whose_gpu_fails_starts_again_in_another_process(outcome):
    first, second = outcome["attempts"]["-gpu-"]
    assert first != second
    assert (row(outcome, "gpu")["status"], row(outcome, "gpu")["cause"]) == ("complete", None)
    assert [row(outcome, "gpu")["key"], GPU] in outcome["restarts"]


def test_it_starts_again_so_often_and_no_process_is_used_twice(outcome):
    attempts = outcome["attempts"]["-xid-"]
    assert len(attempts) == len(set(attempts)) == 2
    assert row(outcome, "xid")["status"] == "failed"
    assert row(outcome, "xid")["cause"] == f"{GPU} (also after 1 restarts)"


def test_a_disk_that_fails_once_costs_an_attempt(outcome):
    assert len(outcome["attempts"]["-disk-"]) == 2
    assert row(outcome, "disk")["status"] == "complete"


def test_what_would_fail_again_is_not_tried_again(outcome):
    assert len(outcome["attempts"]["-nan-"]) == 1
    assert row(outcome, "nan")["status"] == "failed"
    assert row(outcome, "nan")["cause"] == "Diverged: The loss is not finite."


def test_no_process_whose_gpu_has_failed_trains_another_trial(outcome):
    log, attempts = outcome["log"], outcome["attempts"]
    for name, failures in (("-gpu-", 1), ("-xid-", 2), ("-tuned-", 1)):
        for process in attempts[name][:failures]:
            later = log[log.index((name, process)) + 1 :]
            assert process not in [number for _, number in later]


def test_tune_starts_the_trial_again_and_uses_the_other_process_for_the_rest(outcome):
    rows = [row for row in outcome["rows"] if row["phase"] == "search"]
    assert [row["status"] for row in rows] == ["complete"] * 3
    processes = outcome["attempts"]["-tuned-"]
    assert len(processes) == 4
    assert len(set(processes)) == 2
