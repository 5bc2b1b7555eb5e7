"""What counts as significant: paired over seeds, corrected, and nothing left out silently."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sadcl.errors import UserError
from sadcl.reports.statistics import (
    MissingFigure,
    benjamini_hochberg_of_tested,
    compare_arms,
    holm,
    holm_of_tested,
    interval,
)

PROPERTY = settings(max_examples=30, deadline=None, derandomize=True, database=None)


def runs(arm, *figures, dataset="coco14", first=0, **more):
    """Make complete runs of an arm, one for each seed."""
    return [
        {
            "key": f"{arm}-{dataset}-s{seed}",
            "arm": arm,
            "seed": seed,
            "dataset": dataset,
            "status": "complete",
            "test_mAP": figure,
            "cause": None,
            **more,
        }
        for seed, figure in enumerate(figures, first)
    ]


def effects(rows, baseline="stage2", **options):
    return {(e.dataset, e.arm): e for e in compare_arms(rows, baseline, **options)}


def of(arm, rows, **options):
    return effects(rows, **options)["coco14", arm]


def test_interval_of_any_level_is_students():
    values = [70.0, 71.5, 69.0, 72.0]
    for level in (0.95, 0.8):
        mean, half = interval(values, level)
        low, high = stats.t.interval(level, 3, loc=mean, scale=stats.sem(values))
        assert (mean - half, mean + half) == pytest.approx((low, high))
    assert math.isnan(interval([1.0])[1])


@pytest.mark.parametrize(
    ("p_values", "corrected"),
    [
        (
            [0.01, 0.04, 0.03, 0.005],
            [0.03, 0.06, 0.06, 0.02],
        ),  # 4 x .005, 3 x .01, 2 x .03, and .04 not below .06
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.02, 0.02, 0.02], [0.06, 0.06, 0.06]),
        ([0.03], [0.03]),
        ([], []),
    ],
)
def test_holm_by_hand(p_values, corrected):
    assert holm(p_values) == pytest.approx(corrected)


@PROPERTY
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_its_definition_rejects(values):
    """Step down: the smallest against a/m, the next against a/(m - 1), until one is not below."""
    for level in (0.01, 0.05, 0.3):
        rejected = set()
        for step, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
            if not values[i] * (len(values) - step) < level:
                break
            rejected.add(i)
        assert {i for i, p in enumerate(holm(values)) if p < level} == rejected


def test_a_difference_by_hand():
    """Of 1, 2, 3: t = 2 / (1 / sqrt 3); two degrees of freedom: p = 1 - t / sqrt(t^2 + 2)."""
    effect = of("a", runs("stage2", 50.0, 60.0, 55.0) + runs("a", 51.0, 62.0, 58.0))
    t = 2 * math.sqrt(3)
    assert effect.differences == (1.0, 2.0, 3.0)
    assert effect.p == pytest.approx(1 - t / math.sqrt(t**2 + 2))
    assert effect.difference == pytest.approx(2)
    assert effect.difference_half_width == pytest.approx(4.302653 / math.sqrt(3), abs=1e-6)
    assert (effect.mean, effect.sd) == pytest.approx((57.0, math.sqrt(31.0)))
    assert effect.half_width == pytest.approx(4.302653 * math.sqrt(31 / 3), abs=1e-5)
    assert effect.verdict == "not significant"


def test_the_test_is_scipys_paired_one_and_holm_is_over_the_arms_of_a_data_set():
    rng = random.Random(0)
    seeds = [rng.gauss(60, 3) for _ in range(6)]
    gains = {"a": 0.5, "b": 0.0, "c": -1.0, "d": 0.2}
    figures = {arm: [s + gain + rng.gauss(0, 0.3) for s in seeds] for arm, gain in gains.items()}
    rows = runs("stage2", *seeds) + [
        row for arm, values in figures.items() for row in runs(arm, *values)
    ]
    rows += runs("stage2", *seeds, dataset="voc2007") + runs("a", *figures["a"], dataset="voc2007")
    by_arm = effects(rows)
    for arm, values in figures.items():
        expected = stats.ttest_rel(values, seeds)
        effect = by_arm["coco14", arm]
        low, high = expected.confidence_interval(1 - 0.05 / 4)  # of four arms, by Bonferroni
        assert effect.family == 4
        assert effect.p == pytest.approx(expected.pvalue)
        assert effect.difference - effect.difference_half_width == pytest.approx(low)
        assert effect.difference + effect.difference_half_width == pytest.approx(high)
    ranked = sorted(figures, key=lambda arm: by_arm["coco14", arm].p)
    assert by_arm["coco14", ranked[0]].p_corrected == pytest.approx(
        4 * by_arm["coco14", ranked[0]].p
    )
    assert by_arm["voc2007", "a"].p_corrected == pytest.approx(by_arm["voc2007", "a"].p)
    assert by_arm["coco14", "c"].verdict == "loss"
    assert by_arm["voc2007", "a"].verdict == "gain"
    assert [arm for _, arm in by_arm][:5] == ["stage2", "a", "b", "c", "d"]
    assert list(effects(rows, arms=["d", "stage2"])) == [
        (d, a) for d in ("coco14", "voc2007") for a in ("d", "stage2")
    ]


def test_the_interval_is_corrected_for_the_arms_as_p_is():
    one = [0.3, 0.5, 0.4, 0.7, 0.1]
    rows = runs("stage2", *[50.0] * 5) + [
        row for arm in "abcdefgh" for row in runs(arm, *(50 + d for d in one))
    ]
    alone, among = of("a", rows[:10]), of("a", rows)
    assert alone.difference - alone.difference_half_width > 0
    assert among.difference - among.difference_half_width < 0
    assert among.difference == alone.difference
    assert (alone.verdict, among.verdict) == ("gain", "not significant")
    assert among.p_corrected == pytest.approx(8 * alone.p)


@PROPERTY
@given(st.lists(st.floats(-30, 30), min_size=4, max_size=4))
def test_what_a_seed_gives_to_all_arms_alike_does_not_count(shifts):
    base, arm = [50.0, 51.0, 49.0, 52.0], [50.6, 51.3, 49.9, 52.1]
    shifted = [[v + s for v, s in zip(values, shifts, strict=True)] for values in (base, arm)]
    plain, moved = (of("a", runs("stage2", *b) + runs("a", *a)) for b, a in ((base, arm), shifted))
    assert moved.differences == pytest.approx(plain.differences)
    assert moved.p == pytest.approx(plain.p, rel=1e-4)


@pytest.mark.parametrize(
    ("base", "arm", "verdict", "p"),
    [
        ([50.0], [51.0], "too few pairs", math.nan),
        ([50.0, 51.0], [51.0, 53.0], "too few pairs", math.nan),
        ([50.0, 51.0], [51.0, 52.0], "too few pairs", math.nan),  # without any spread too
        ([50.0, 51.0, 50.5], [50.0, 51.0, 50.5], "not significant", 1.0),  # the same runs
        (
            [62.1, 61.1, 60.3],
            [61.0, 60.0, 59.2],
            "no spread",
            math.nan,
        ),  # equal but for the rounding of floats
        ([math.nan, None], [51.0, 52.0], "no pair", math.nan),
        ([50.0] * 3, [50.0 + 1e-12, 50.0 - 1e-13, 50.0], "not significant", 1.0),
    ],
)
def test_where_no_test_is_possible_no_p_is_invented(base, arm, verdict, p):
    effect = of("a", runs("stage2", *base) + runs("a", *arm))
    assert effect.verdict == verdict
    assert effect.p_corrected == pytest.approx(p, nan_ok=True)
    assert math.isnan(effect.difference_half_width) == math.isnan(p)


def test_an_arm_that_cannot_be_tested_is_no_part_of_the_family():
    rows = runs("stage2", 50.0, 50.0, 50.0) + runs("a", 51.0, 52.0, 51.5) + runs("b", 51.0)
    assert of("a", rows).p_corrected == pytest.approx(of("a", rows).p)


def test_what_was_left_out_is_reported():
    rows = runs("stage2", 50.0, 51.0, 52.0, 53.0)
    rows += runs("a", 50.5, 51.9) + runs("a", None, first=2, status="failed", cause="NaN")
    rows += runs("b", 50.5, math.nan, None) + runs("b", None, first=3, status="running")
    rows += runs("c", 50.5, 51.1, 52.9, 53.2, 54.0)
    by_arm = effects(rows, seeds=(0, 9))
    assert by_arm["coco14", "a"].pairs == (0, 1)
    assert by_arm["coco14", "a"].missing == (
        MissingFigure(2, "failed", "a-coco14-s2", "NaN"),
        MissingFigure(3, "missing"),
        MissingFigure(4, "missing"),
        MissingFigure(9, "missing"),
    )
    assert [(g.seed, g.reason) for g in by_arm["coco14", "b"].missing] == [
        (1, "no figure"),
        (2, "no figure"),
        (3, "unfinished"),
        (4, "missing"),
        (9, "missing"),
    ]
    assert by_arm["coco14", "b"].verdict == "too few pairs"
    c = by_arm["coco14", "c"]
    assert (c.seeds, c.pairs, c.unpaired) == ((0, 1, 2, 3, 4), (0, 1, 2, 3), (4,))
    assert c.mean == pytest.approx(52.34)  # of all five
    assert c.difference == pytest.approx(0.425)  # of the four that have a partner
    assert by_arm["coco14", "stage2"].unpaired == ()


def test_a_failed_run_is_ignored_where_one_is_complete_and_two_complete_ones_are_refused():
    failed = runs("a", None, status="failed", cause="NaN")
    again = [{**row, "key": "again"} for row in runs("a", 51.0)]
    assert of("a", runs("stage2", 50.0) + failed + again).mean == 51.0
    with pytest.raises(
        UserError, match=r"arm 'a' has 2 complete runs of seed 0 on coco14: a-coco14-s0 and again"
    ):
        compare_arms(runs("stage2", 50.0) + runs("a", 52.0) + again, "stage2")


def test_a_baseline_without_rows_is_compared_with_nothing():
    by_arm = effects(runs("a", 50.0, 51.0), arms=["stage2", "a"])
    assert by_arm["coco14", "a"].verdict == "no pair"
    assert by_arm["coco14", "a"].mean == 50.5
    assert by_arm["coco14", "stage2"].verdict == "baseline"
    assert len(by_arm["coco14", "stage2"].missing) == 2
    assert compare_arms([], "stage2") == []


@PROPERTY
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_benjamini_and_hochberg_reject_what_their_definition_rejects(values):
    """Step up: all up to the last k whose p is not above k / m times the level."""
    *corrected, untested = benjamini_hochberg_of_tested([*values, math.nan])
    assert math.isnan(untested)
    ranked, m = sorted(values), len(values)
    for level in (0.01, 0.0501, 0.3):
        last = max((k for k in range(1, m + 1) if ranked[k - 1] * m / k < level), default=0)
        assert sum(p < level for p in corrected) == sum(
            p <= ranked[last - 1] for p in values if last
        )


def test_what_was_not_tested_does_not_count_as_a_test():
    assert holm_of_tested([0.01, math.nan, 0.04]) == pytest.approx(
        [0.02, math.nan, 0.04], nan_ok=True
    )
    assert benjamini_hochberg_of_tested([]) == []
    assert math.isnan(*benjamini_hochberg_of_tested([math.nan]))
