"""The best epoch, the last one, and their difference."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from sadcl.reports.best_epoch import best_epoch


def run(key, arm="both", seed=0, status="complete", phase="arm"):
    return {
        "key": key,
        "study": "ab",
        "dataset": "coco14",
        "phase": phase,
        "arm": arm,
        "seed": seed,
        "status": status,
    }


def curve(key, *values, stage=2):
    return [
        {"key": key, "stage": stage, "epoch": i, "val_mAP": value}
        for i, value in enumerate(values, 1)
    ]


def test_by_hand():
    trials = [
        run("a"),
        run("b", seed=1),
        run("c", arm="stage2"),
        run("d", arm="stage2", seed=1, status="pruned"),
    ]
    epochs = (
        curve("a", 50.0, 62.0, 60.0)
        + curve("b", 58.0, 57.0, 59.0, None)
        + curve("c", 40.0, math.nan, 41.0)
    )
    epochs += curve("d", 99.0) + curve("a", 90.0, 91.0, stage=1)  # only the last stage counts
    both, control = best_epoch(trials, list(reversed(epochs)))
    assert (both.arm, both.seeds, both.phase) == ("both", (0, 1), "arm")
    assert (both.best, both.last, both.optimism) == pytest.approx((60.5, 59.5, 1.0))
    for half, values in (
        (both.best_half_width, [62.0, 59.0]),
        (both.last_half_width, [60.0, 59.0]),
        (both.optimism_half_width, [2.0, 0.0]),  # paired by run
    ):
        assert half == pytest.approx(stats.t.ppf(0.975, 1) * stats.sem(values))
    assert (control.best, control.last, control.optimism) == (41.0, 41.0, 0.0)
    assert math.isnan(control.optimism_half_width)


def test_runs_without_held_out_figures_are_left_out():
    assert best_epoch([run("a"), run("b")], curve("b", None, None)) == []
    assert best_epoch([], curve("b", 1.0)) == []


def test_the_best_is_never_below_the_last_and_phases_stay_apart():
    trials = [
        run(f"{phase}{i}", phase=phase, seed=i) for phase in ("search", "confirm") for i in range(3)
    ]
    epochs = [
        row
        for i, trial in enumerate(trials)
        for row in curve(trial["key"], *((7 * i * e) % 11 for e in range(5)))
    ]
    results = best_epoch(trials, epochs)
    assert [(one.phase, len(one.seeds)) for one in results] == [("search", 3), ("confirm", 3)]
    assert all(one.optimism >= 0 for one in results)
    assert all(one.optimism == pytest.approx(one.best - one.last) for one in results)
