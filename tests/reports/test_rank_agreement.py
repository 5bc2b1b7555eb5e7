"""Spearman's correlation of the cheap ranking with the confirmed one, and its interval."""

import math

import numpy as np
import pytest
from scipy import stats

from sadcl.reports.rank_agreement import rank_agreement


def test_it_is_spearmans_correlation_with_ties():
    rng = np.random.default_rng(0)
    for _ in range(20):
        cheap, real = rng.integers(0, 6, size=(2, 9)).astype(float)
        found = rank_agreement(cheap.tolist(), real.tolist())
        assert found.correlation == pytest.approx(stats.spearmanr(cheap, real).statistic)
        assert -1 <= found.low <= found.correlation <= found.high <= 1


def test_the_interval_holds_the_true_correlation_as_often_as_it_says():
    """Normal pairs of correlation 0.7 have Spearman's 6 / pi asin(0.35) = 0.683 in the limit."""
    rng, truth = np.random.default_rng(1), 6 / math.pi * math.asin(0.35)
    held = 0
    for _ in range(400):
        pairs = rng.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], size=20)
        found = rank_agreement(*pairs.T.tolist())
        held += found.low <= truth <= found.high
    assert 0.91 < held / 400 <= 0.99


def test_what_it_says():
    few = rank_agreement([1, 2, 3], [1, 2, 3])
    assert math.isnan(few.correlation)
    assert "3 settings were confirmed, and it takes 4" in few.sentence()
    assert "1 setting was" in rank_agreement([1], [1]).sentence()
    assert "have the same held-out mAP" in rank_agreement([1, 1, 1, 1], [1, 2, 3, 4]).sentence()
    perfect = rank_agreement(list(range(4)), list(range(4)))
    assert (perfect.correlation, perfect.high) == (pytest.approx(1), pytest.approx(1))
    assert perfect.low < 0
    assert "it is not shown" in perfect.sentence()
    many = [float(i) for i in range(12)]
    assert "better than chance" in rank_agreement(many, many).sentence()
    assert "the wrong way round" in rank_agreement(many, many[::-1]).sentence()
