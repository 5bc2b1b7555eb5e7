"""Seeds until a difference is settled: bounds, reasons, error rates, and the runs asked for."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from sadcl.errors import UserError
from sadcl.search import Until
from sadcl.search.until import MIN_PAIRS, Stop, arm_seeds, until_from_json
from tests.search.test_ablation import ablation, comparison

UNTIL = Until(0.5, at_least=3, at_most=8)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"half_width": 0.0}, r"half_width must be above 0.* but got 0.0"),
        ({"half_width": -1.0}, r"but got -1.0"),
        ({"half_width": math.nan}, r"but got nan"),
        ({"half_width": math.inf}, r"but got inf"),
        ({"half_width": "0.5"}, r"but got '0.5'"),
        ({"at_least": 2}, r"at_least >= 3 must hold.* but got at_least=2"),
        ({"at_least": 6, "at_most": 5}, r"at_least <= at_most.* but got at_least=6 and at_most=5"),
        ({"at_most": 10**6}, r"at_most <= 200 must hold"),
        ({"at_most": 7.5}, r"at_most must be a whole number, but got 7.5"),
        ({"at_least": True}, r"at_least must be a whole number, but got True"),
    ],
)
def test_bounds_that_can_never_be_met_are_refused_when_they_are_written(bounds, message):
    with pytest.raises(UserError, match=message):
        Until(**{"half_width": 0.5} | bounds)


def test_why_an_arm_has_enough():
    assert UNTIL.stop([0.1, 0.2], 1) is None
    assert UNTIL.stop([5.0, 5.01, 5.02, 5.01], 1) is Stop.SIGN
    assert UNTIL.stop([-5.0, -5.01, -5.02, -5.01], 1) is Stop.SIGN
    assert UNTIL.stop([0.01, -0.02, 0.0, 0.01, 0.02], 1) is Stop.NARROW
    assert UNTIL.stop([3.0, -4.0, 1.0, 2.0, 0.0], 1) is None
    assert UNTIL.stop([1.0] * 5, 1) is None  # without a spread nothing is known
    # More arms are more chances for an error.
    figures = [0.8, 1.0, 1.2, 0.9]
    assert (UNTIL.stop(figures, 1), UNTIL.stop(figures, 50)) == (Stop.SIGN, None)


def simulate(until, num_paths, seed):
    """How often a study without any difference finds one, and a plain t test at every look."""
    rng, wrong, naive = np.random.default_rng(seed), 0, 0
    for _ in range(num_paths):
        x = rng.standard_normal(until.at_most) * 3
        looks = range(until.at_least, until.at_most + 1)
        stop = next(filter(None, (until.stop(x[:n].tolist(), 1) for n in looks)), None)
        wrong += stop is Stop.SIGN
        naive += any(stats.ttest_1samp(x[:n], 0.0).pvalue < 0.05 for n in looks)
    return wrong / num_paths, naive / num_paths


def test_a_study_without_a_difference_finds_one_no_more_often_than_it_says():
    """By the rule itself. A plain 95 % interval, looked at as often, finds three times more."""
    wrong, naive = simulate(Until(0.01, 3, 8), 400, seed=1)
    assert wrong < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
    assert naive > 0.1


@pytest.mark.soak
@pytest.mark.parametrize("difference", [0.0, 0.4, 2.0])
def test_the_interval_at_the_stop_holds_the_difference_whatever_stopped_it(difference):
    """Five arms: the intervals of all of them hold the true difference in 95 % of the studies."""
    until, rng, family = Until(0.5), np.random.default_rng(5), 5
    held, stops, num_studies = 0, Counter(), 2000
    for _ in range(num_studies):
        inside = []
        for _ in range(family):
            x = rng.standard_normal(until.at_most) + difference
            n = until.at_least
            while until.stop(x[:n].tolist(), family) is None and n < until.at_most:
                n += 1
            stops[until.stop(x[:n].tolist(), family)] += 1
            error = x[:n].std(ddof=1) / math.sqrt(n)
            half_width = stats.t.isf(until.level(n, family) / 2, n - 1) * error
            inside.append(abs(x[:n].mean() - difference) <= half_width)
        held += all(inside)
    assert held / num_studies > 0.95 - 3 * math.sqrt(0.05 * 0.95 / num_studies)
    # a difference of two standard deviations is settled by its sign, each of the smaller ones not
    assert (set(stops) == {Stop.SIGN}) == (difference == 2.0)


def rows_of(figures):
    """Return the rows of runs by arm and seed."""
    rows = {key: {"status": "complete", "test_mAP": value} for key, value in figures.items()}
    return lambda arm, seed: rows.get((arm, seed))


def test_the_first_seeds_run_together_and_then_one_at_a_time():
    rng = random.Random(0)
    figures = {(arm, seed): 60 + 3 * rng.random() for arm in "ab" for seed in range(1, 9)}

    def after(last, **changes):
        known = {key: value for key, value in figures.items() if key[1] <= last} | changes
        return arm_seeds(UNTIL, rows_of(known), "a", "b", 1, "test_mAP")

    assert after(0).pending == (1, 2, 3)
    assert after(2).pending == (3,)
    assert after(3).pending == (4,)
    assert after(3).open == (4, 5, 6, 7, 8)
    assert after(8) == ((), Stop.LIMIT, ())
    # One of a pair has ended: the pair is not there yet, so nothing is decided.
    half = {key: value for key, value in figures.items() if key[1] <= 4 and key != ("b", 4)}
    assert arm_seeds(UNTIL, rows_of(half), "a", "b", 1, "test_mAP").pending == (4,)


def test_a_failed_run_is_no_pair_and_another_seed_takes_its_place():
    def row_of(arm, seed):
        if seed > 3:
            return None
        failed = (arm, seed) == ("a", 2)
        return {
            "status": "failed" if failed else "complete",
            "test_mAP": 60.0 + seed * (arm == "a"),
        }

    state = arm_seeds(UNTIL, row_of, "a", "b", 1, "test_mAP")
    assert (state.pending, state.stop) == ((4,), None)


FIGURE = {"baseline": -9.0, "sarl": 0.0, "both": 2.5, "stage2": 0.0}


def figure_of(trial):
    """Settled at once, soon, or never."""
    noise = random.Random(f"{trial.arm}{trial.config.seed}").gauss(0, 1.0)
    return 60 + FIGURE.get(trial.arm, 0.0) + noise


def ended_row(trial):
    row = {"key": trial.key, "phase": "arm", "status": "complete", "test_mAP": figure_of(trial)}
    return {**row, "arm": trial.arm, "seed": trial.config.seed}


def run_all(plan, choose):
    """Run a plan to its end; ``choose`` says which of the wanted runs ends next."""
    rows = []
    while wanted := [t for t in plan.trials("coco", rows) if t.key not in {r["key"] for r in rows}]:
        rows.append(ended_row(choose(wanted)))
    return rows


def test_the_runs_follow_from_finished_rows_alone_whatever_ends_first_or_is_killed():
    plan = comparison(seeds=UNTIL)
    in_order = run_all(plan, lambda wanted: wanted[0])
    rng = random.Random(1)
    at_random = run_all(comparison(seeds=UNTIL), rng.choice)
    assert {row["key"] for row in in_order} == {row["key"] for row in at_random}
    counts = Counter(row["arm"] for row in in_order)
    assert counts["sarl"] == counts["stage2"] == UNTIL.at_most
    assert 3 <= counts["baseline"] < counts["sarl"]
    seeds = sorted(row["seed"] for row in in_order if row["arm"] == "baseline")
    assert seeds == list(range(1, counts["baseline"] + 1))
    # A study that is asked again when it is over wants nothing, and one that was killed resumes.
    assert plan.planned_trials(in_order) == plan.planned_trials(at_random)
    states = plan.arm_seeds("coco", in_order)
    assert states["baseline"].stop is Stop.SIGN
    assert states["sarl"].stop is Stop.LIMIT


def test_what_is_left_is_said_as_a_range():
    plan = comparison(seeds=UNTIL)
    assert plan.least_runs([]) == 3 + 4 * 3  # a stage 1 for each seed
    runs, epochs = plan.remaining_work([])
    assert runs == 8 + 4 * 8
    assert epochs == 8 * (80 + 160 + 0 + 80 + 80)
    rows = run_all(plan, lambda wanted: wanted[0])
    stage1 = [
        {"key": t.stage1.key, "status": "complete"} for t in plan.trials("coco", rows) if t.stage1
    ]
    assert plan.remaining_work([*rows, *stage1]) == (0, 0)
    assert plan.is_complete([*rows, *stage1])
    assert plan.trained_epochs([*rows, *stage1], set()) > 0
    assert plan.description()["until"] == UNTIL.to_json()
    assert until_from_json(UNTIL.to_json()) == UNTIL


def test_the_seeds_of_an_ablation_may_be_until_but_not_those_of_a_confirmation():
    assert ablation(seeds=UNTIL).seed_numbers == range(1, 9)
    assert ablation(seeds=UNTIL).until == UNTIL
    assert ablation().until is None
    assert MIN_PAIRS == 3
