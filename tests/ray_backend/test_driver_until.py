"""An ablation that adds seeds until it is settled: what the driver starts, and one on a cluster."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from sadcl import results
from sadcl.ray_backend import driver
from sadcl.search import Until
from sadcl.search.until import Stop
from tests.conftest import TINY
from tests.search.test_ablation import comparison
from tests.search.test_until import ended_row

STUDY = """
from sadcl import Ablation, main, recipes
from sadcl.search import Until

main(Ablation(
    name="parts", question="What brings what?", base=recipes.coco14(),
    demo=recipes.demo().override({changes!r}), baseline="stage 2", seeds=Until(0.001, 3, 4),
    arms={{"stage 2": {{"loss.sample_weight": 0.0, "loss.prototype_weight": 0.0}}, "both": {{}}}},
))
"""


class Pool:
    """Ends a run as soon as it is waited for; ``rows`` is what the storage has then."""

    def __init__(self, rows):
        self.rows, self.started = rows, []

    def start_all(self, trials, limit, running):
        self.started += [trial.key for trial in trials]

    def result(self, trial):
        row = ended_row(trial)
        if trial.key not in {row["key"] for row in self.rows}:
            self.rows.append(row)
        return row


def run_arms(monkeypatch, rows, choose):
    plan = comparison(seeds=Until(0.5, at_least=3, at_most=6))
    pool, live = Pool(rows), SimpleNamespace(epochs=plan.remaining_work(rows).epochs)
    study = SimpleNamespace(plan=plan, rows=list(rows), refresh=lambda: list(rows))
    monkeypatch.setattr(driver.tasks, "first_ended", lambda waiting: [choose(sorted(waiting))])
    driver._run_arms(study, {"coco": pool}, {"coco": None}, live)
    return plan, pool, live


def test_runs_that_end_ask_for_others_until_all_are_settled(monkeypatch):
    rows, rng = [], random.Random(0)
    plan, pool, live = run_arms(monkeypatch, rows, rng.choice)
    assert plan.is_complete(rows)
    assert len(set(pool.started)) == len(pool.started)
    states = plan.arm_seeds("coco", rows)
    assert all(state.stop for state in states.values())
    assert states["baseline"].stop is Stop.SIGN
    # The bar begins with the runs at most, and ends with those that were trained.
    assert live.epochs == sum(trial.epochs for trial in plan.planned_trials(rows))
    # Killed after any of its runs, it ends with the same ones.
    cut = rows[: len(rows) // 2]
    run_arms(monkeypatch, cut, rng.choice)
    assert {row["key"] for row in cut} == {row["key"] for row in rows}


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_study_on_a_cluster_adds_a_seed_and_resumes(command, tmp_path):
    file, root = tmp_path / "parts.py", str(tmp_path / "runs")
    file.write_text(STUDY.format(changes=TINY))
    plan = command("python", file, "--dry-run", timeout=1200).stdout.replace("\n", " ")
    assert "at least 9 runs and at most 12 in all" in plan
    assert "to run: 9 to 12 runs, at most" in plan
    assert "how many seeds a difference of 0.3 points needs is not known yet" in plan
    first = command("python", file, timeout=1200)
    rows = results.read(root, "trials").sort_by("key").to_pylist()
    arms = {(row["arm"], row["seed"]) for row in rows if row["phase"] == "arm"}
    assert {seed for _, seed in arms} in ({1, 2, 3}, {1, 2, 3, 4})
    assert len(arms) in (6, 8)
    assert "Stopped after " in first.stdout
    assert "at most " in first.stdout
    again = command("python", file, timeout=1200)
    assert f"Resuming: {len(rows)} runs are complete." in again.stdout
    assert "a difference of 0.3 points needs " in again.stdout
    assert results.read(root, "trials").sort_by("key").to_pylist() == rows
