"""How strict each look is: the levels compared with simulated studies, and their inversion."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from sadcl.search.sequential import look_levels, sequential_p


def p_values(num_paths, last, seed=0):
    """Two-sided p of plain t tests over the first n = 2 ... last of normal differences, by path."""
    x = np.random.default_rng(seed).standard_normal((num_paths, last)) * 0.7
    n = np.arange(1, last + 1)
    total, squares = x.cumsum(axis=1), (x * x).cumsum(axis=1)
    n, total, squares = n[1:], total[:, 1:], squares[:, 1:]
    t = total / np.sqrt(n * (squares - total**2 / n) / (n - 1))
    return 2 * special.stdtr(n - 1.0, -np.abs(t))


def test_the_p_values_of_the_simulation_are_scipys():
    x = np.random.default_rng(3).standard_normal((2, 5)) * 0.7
    expected = [stats.ttest_1samp(row[:n], 0.0).pvalue for row in x for n in (2, 3, 4, 5)]
    assert p_values(2, 5, seed=3).ravel() == pytest.approx(expected)


@pytest.mark.parametrize(("alpha", "first", "last"), [(0.05, 3, 8), (0.2, 2, 4), (0.01, 5, 12)])
def test_all_looks_together_have_the_level_that_was_asked_for(alpha, first, last):
    levels, num_paths = look_levels(alpha, first, last), 60_000
    p = p_values(num_paths, last)[:, first - 2 :]
    rate = (p <= levels).any(axis=1).mean()
    assert rate == pytest.approx(alpha, abs=4 * np.sqrt(alpha / num_paths))
    assert (p <= alpha).any(axis=1).mean() > 1.4 * alpha  # looking at plain tests every time
    # What each look spends is what the spending function says.
    for k, n in enumerate(range(first, last + 1), 1):
        spent = (p[:, :k] <= levels[:k]).any(axis=1).mean()
        expected = alpha * (n / last) ** 2
        assert spent == pytest.approx(expected, abs=4 * np.sqrt(expected / num_paths))


def test_a_single_look_is_the_plain_test():
    assert look_levels(0.05, 5, 5) == pytest.approx([0.05], rel=1e-3)
    assert sequential_p(0.03, 5, 5, 5) == 0.03


def test_p_is_the_alpha_at_which_the_look_would_just_suffice():
    for alpha in (0.3, 0.05, 0.002):
        levels = look_levels(alpha, 3, 8)
        assert all(level <= alpha for level in levels)
        for n in (3, 5, 8):
            assert sequential_p(levels[n - 3], n, 3, 8) == pytest.approx(alpha, rel=1e-3)
    assert sequential_p(1.0, 4, 3, 8) == 1.0
    assert sequential_p(0.0, 4, 3, 8) == 0.0
    assert sequential_p(1e-9, 8, 3, 8) < 1e-7


def test_a_larger_alpha_is_less_strict_at_every_look():
    """So p-values of different looks can be compared."""
    ordered = np.array([look_levels(alpha, 3, 10) for alpha in (1e-5, 1e-3, 0.01, 0.05, 0.3, 0.9)])
    assert (np.diff(ordered, axis=0) > 0).all()


@pytest.mark.soak
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 14])
def test_the_error_rate_from_5_to_30_seeds(alpha):
    levels, crossed, naive, rounds = look_levels(alpha, 5, 30), 0, 0, 20
    for seed in range(rounds):
        p = p_values(100_000, 30, seed)[:, 3:]
        crossed += (p <= levels).any(axis=1).sum()
        naive += (p <= alpha).any(axis=1).sum()
    assert crossed / (rounds * 100_000) == pytest.approx(alpha, rel=0.02)
    assert naive / (rounds * 100_000) > 4 * alpha
