"""Four ways in which Tune with a trainer inside is known to hang, leak or forget; not here.

The stock recipe reports through ``TuneReportCallback`` (a queue of one: a busy driver and a
finished run block each other for ever), stops early by killing (the placement group stays, and an
elastic successor waits three minutes for a dead reservation), and keeps its history in Tune's
folders (which lose what was before a restore). Here a trial asks whether to stop and ends by
itself, groups are of fixed size, and the tables are the history.
"""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sadcl import ray_backend, results
from tests.conftest import TINY

SEARCH = """
import time
from sadcl import Search, main, recipes
from sadcl.ray_backend import environment
from sadcl.search import ASHA, Float

environment.prepare(None)
from ray.util import placement_group_table
from sadcl.ray_backend import tuner

on_trial_complete = tuner._AskAndTell.on_trial_complete

def slowly(self, *arguments, **more):
    time.sleep({busy})  # the driver's loop is busy while trials end
    on_trial_complete(self, *arguments, **more)

tuner._AskAndTell.on_trial_complete = slowly
run_trials = tuner.run_trials

def open_groups():
    return [g for g in placement_group_table().values() if g["state"] != "REMOVED"]

def run_and_count_groups(*arguments, **options):
    run_trials(*arguments, **options)
    deadline = time.monotonic() + 20
    while open_groups() and time.monotonic() < deadline:
        time.sleep(0.5)
    print("groups left:", len(open_groups()), flush=True)

tuner.run_trials = run_and_count_groups
main(Search(
    name="two", question="?", base=recipes.coco14(), demo=recipes.demo().override({changes!r}),
    space={{"loss.tau": Float(0.05, 0.5, log=True)}}, n_demo_trials=4, baselines={{}},
    confirm_seeds=(7,), pruner=ASHA(min_epochs=1, reduction=2),
), ["--workers", "2", "--max-concurrent", "1"])
"""


@pytest.fixture
def study(tmp_path, command):
    """Starts the search on two workers as a user would, in the background."""

    def start(epochs, busy=0):
        (tmp_path / "two.py").write_text(
            SEARCH.format(busy=busy, changes=TINY | {"stage2.epochs": epochs})
        )
        with open(tmp_path / "log", "a") as log:
            return subprocess.Popen(
                [sys.executable, "two.py"],
                cwd=tmp_path,
                env=command.environment,
                stdout=log,
                stderr=log,
            )

    return start


def trials(root, phase="search"):
    if not (root / "tables").exists():
        return []
    rows = [row for row in results.read(str(root), "trials").to_pylist() if row["phase"] == phase]
    return sorted(rows, key=lambda row: row["started"])


def test_nothing_of_the_stock_recipe_is_used():
    """The causes of the four; the tests below, which take minutes, show what happens instead."""
    causes = (
        "TuneReportCallback",
        "scheduler=",
        "stop=",
        "Tuner.restore",
        ".restore(",
        "min_workers",
        "max_workers",
        "elastic",
    )
    for path in Path(ray_backend.__path__[0]).glob("*.py"):
        source = path.read_text()
        assert not [cause for cause in causes if cause in source], path


@pytest.mark.soak
def test_a_busy_driver_and_trials_that_stop_early_neither_hang_nor_leak(study, tmp_path):
    process = study(epochs=4, busy=8)
    assert process.wait(500) == 0, (tmp_path / "log").read_text()[-3000:]
    rows = trials(tmp_path / "runs")
    assert len(rows) == 4
    assert {row["status"] for row in rows} == {"complete", "pruned"}  # both ways to end were taken
    assert all(row["workers"] == 2 for row in rows)
    assert "groups left: 0" in (tmp_path / "log").read_text()
    waits = [(b["started"] - a["ended"]).total_seconds() for a, b in itertools.pairwise(rows)]
    assert max(waits) < 60, waits  # a new group of workers, and no reservation of the one before


@pytest.mark.soak
def test_the_history_outlives_the_driver(study, tmp_path):
    process, root = study(epochs=40), tmp_path / "runs"
    deadline = time.monotonic() + 200
    while not [
        row for row in trials(root) if len(results.store.epochs_of(str(root), row["key"])) >= 4
    ]:
        assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    before = {
        (e["key"], e["stage"], e["epoch"]): e["loss"]
        for e in results.read(str(root), "epochs").to_pylist()
    }
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    assert study(epochs=40).wait(500) == 0, (tmp_path / "log").read_text()[-3000:]
    rows = results.read(str(root), "epochs").to_pylist()
    after = {(e["key"], e["stage"], e["epoch"]): e["loss"] for e in rows}
    assert len(after) == len(rows)
    assert {at: after[at] for at in before} == before
    for row in trials(root):
        assert row["status"] in ("complete", "pruned")
        assert [e["epoch"] for e in results.store.epochs_of(str(root), row["key"])] == list(
            range(1, row["epochs_done"] + 1)
        )
