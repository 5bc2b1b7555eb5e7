"""The trends of label gains: lines over the logarithm of frequency and size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.reports.labels import SUPPORT, compared


def test_trends_are_straight_lines_over_the_logarithm(arrays):
    base_SL, arm_SL = arrays
    size = [1.0, 8.0, 2.0, 9.0, 3.0, 7.0, 5.0, 4.0]
    gains = compared(base_SL, arm_SL, size=size)
    raw = []
    for trend, x_L in zip(gains.trends, (np.log2(SUPPORT), np.log2(size)), strict=True):
        slopes = [
            np.polyfit(x_L, arm - base, 1)[0] for arm, base in zip(arm_SL, base_SL, strict=True)
        ]
        # Two trends: by Bonferroni, as p is by Holm.
        low, high = stats.t.interval(0.975, 3, loc=np.mean(slopes), scale=stats.sem(slopes))
        assert (trend.slope - trend.half_width, trend.slope + trend.half_width) == pytest.approx(
            (low, high)
        )
        raw.append(stats.ttest_1samp(slopes, 0).pvalue)
        r = stats.pearsonr(x_L, (arm_SL - base_SL).mean(axis=0))
        assert trend.r == pytest.approx(r.statistic)
        assert (trend.r_low, trend.r_high) == pytest.approx(tuple(r.confidence_interval()))
    assert [trend.variable for trend in gains.trends] == ["frequency", "size"]
    assert min(trend.p for trend in gains.trends) == pytest.approx(min(2 * min(raw), 1))


def test_a_trend_is_significant_where_both_seeds_and_labels_agree():
    base_SL, noise_SL = np.full((4, 8), 50.0), np.random.default_rng(0).normal(0, 0.2, (4, 8))
    (steady,) = compared(base_SL, base_SL + noise_SL + np.arange(8)).trends
    (two_odd,) = compared(base_SL, base_SL + noise_SL + [0, 0, 0, 0, 0, 0, 5, -5]).trends
    (nothing,) = compared(base_SL, base_SL + noise_SL).trends
    assert (steady.is_significant, two_odd.is_significant, nothing.is_significant) == (
        True,
        False,
        False,
    )
    assert two_odd.p < 0.05  # in every seed alike
    assert steady.slope == pytest.approx(-1, abs=0.1)


@settings(max_examples=8, deadline=None, derandomize=True, database=None)
@given(st.lists(st.floats(-20, 20), min_size=4, max_size=4))
def test_what_a_seed_gives_to_all_labels_alike_is_no_trend(shifts):
    base_SL = np.random.default_rng(1).uniform(40, 60, (4, 8))
    arm_SL = base_SL + np.random.default_rng(2).normal(1, 0.5, (4, 8))
    (plain,), (moved,) = (
        compared(base_SL, a).trends for a in (arm_SL, arm_SL + np.array(shifts)[:, None])
    )
    assert moved.slope == pytest.approx(plain.slope, abs=1e-7)
    assert moved.half_width == pytest.approx(plain.half_width, abs=1e-7)
    assert moved.r == pytest.approx(plain.r, abs=1e-6)
