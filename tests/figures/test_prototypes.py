"""The numbers of Fig. 4, against enumeration and arithmetic."""

import itertools

import numpy as np
import pytest
from scipy.stats import spearmanr

from sadcl.figures.prototypes import co_occurrence, log_odds, mantel


def symmetric(rng, labels):
    matrix = rng.normal(size=(labels, labels))
    return matrix + matrix.T


def test_mantel_is_spearman_and_its_p_that_of_all_orders():
    rng = np.random.default_rng(1)
    one = symmetric(rng, 5)
    other = one + symmetric(rng, 5)
    upper = np.triu_indices(5, 1)
    found = mantel(one, other, permutations=20_000)
    assert found.rho == pytest.approx(spearmanr(one[upper], other[upper]).statistic)
    orders = itertools.permutations(range(5))
    each = [spearmanr(one[np.ix_(o, o)][upper], other[upper]).statistic for o in orders]
    assert found.p == pytest.approx(np.mean(np.array(each) >= found.rho - 1e-12), abs=0.01)
    assert mantel(one, other) == mantel(one, other)
    assert np.isnan(mantel(np.ones((5, 5)), other).rho)


def test_what_occurs_together():
    targets = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, -1]], dtype=np.int8)
    shares = co_occurrence(targets)
    assert shares[0, 1] == shares[1, 0] == 0.5  # P(1 | 0) = 2 / 4, P(0 | 1) = 1
    assert shares[0, 2] == 0
    odds = log_odds(targets)
    assert odds[0, 1] == pytest.approx(
        np.log((2.5 * 1.5) / (2.5 * 0.5))
    )  # 2 both, 1 neither, 2 only the first
    assert (
        odds[0, 2] == odds[2, 0] == pytest.approx(np.log((0.5 * 0.5) / (3.5 * 1.5)))
    )  # the ignored image is out
