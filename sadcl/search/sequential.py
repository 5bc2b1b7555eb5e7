"""Looking at paired differences after every seed: how strict each look must be.

Who looks after every seed and stops as soon as a fixed 95 % interval leaves 0 out, stops sooner or
later without any difference. Here each look spends a part of the error rate, so that all looks
together spend no more than it: the power family of Kim and DeMets, alpha(n) = alpha (n / N)^2
after n of at most N pairs. The intervals are the repeated confidence intervals of Jennison and
Turnbull: with a probability of 1 - alpha all of them, from the first look to the last, hold the
true difference, so the one at which the study stops does too, whatever made it stop.

The boundaries are exact for independent normal differences of unknown variance. With
S_n = sum of x_i and Q_n = sum of x_i^2, the statistic r_n = S_n / sqrt(Q_n), a function of
Student's t, is a Markov chain where the mean is 0:

    r_(n+1) = (r_n + T) / sqrt(1 + T^2),  T = x_(n+1) / sqrt(Q_n)

By Basu's theorem r_1 ... r_n, which have no scale, are independent of Q_n, so T is independent of
them, and sqrt(n) T has Student's t distribution with n degrees of freedom. So the probability of
crossing is computed look by look on a grid, as Armitage, McPherson and Rowe do for known variance.

Sources: Kim and DeMets, Design and analysis of group sequential tests based on the type I error
spending rate function, Biometrika, 1987. Jennison and Turnbull, Interim analyses: the repeated
confidence interval approach, Journal of the Royal Statistical Society B, 1989; Exact calculations
for sequential t, chi-squared and F tests, Biometrika, 1991. Armitage, McPherson and Rowe, Repeated
significance tests on accumulating data, Journal of the Royal Statistical Society A, 1969.

Axes: I grid cells before a pair is added, J edges of the cells after it.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

SPENDING_POWER = 2.0
"""Of the share n / N: 1 spends evenly over the pairs, 3 hardly anything on the early ones."""
LARGEST_SCORE = 8.0
"""The grid's end, in standard normal scores: a two-sided p of 1.2e-15."""
NUM_CELLS = 200
SMALLEST_P = 1e-14
"""A smaller p is beyond the grid, and stays as it is."""


def look_levels(alpha: float, first: int, last: int) -> tuple[float, ...]:
    """Compute the level at which each look tests, so that all together have the level ``alpha``.

    Args:
        alpha: the probability of any false positive, two-sided, above 0 and below 1.
        first: the number of pairs at the first look, at least 2; there is one after each further
            pair.
        last: the number of pairs at the last look.

    Returns:
        For each number of pairs from ``first`` to ``last`` the two-sided p-value of a plain t test
        that just suffices.
    """
    return _look_levels(float(alpha), first, last, last)


def sequential_p(p: float, num_pairs: int, first: int, last: int) -> float:
    """Correct the p-value of a plain t test for the looks before and after it.

    It is the smallest alpha at which this look would be significant, at most 1.

    Args:
        p: two-sided, of the paired t test over the pairs so far.
        num_pairs: their number, from ``first`` to ``last``.
        first, last: as for :func:`look_levels`.
    """
    from scipy import optimize

    def excess(log_alpha: float) -> float:
        return math.log(_look_levels(math.exp(log_alpha), first, last, num_pairs)[-1] / p)

    if first == last or p < SMALLEST_P:
        return p
    low, high = math.log(p), math.log(0.999)
    if low >= high or excess(high) <= 0:
        return 1.0
    # The grid is good to about 1e-4 of a level, so more digits would mean nothing.
    return float(math.exp(optimize.brentq(excess, low, high, xtol=1e-4)))


@functools.lru_cache(maxsize=1024)
def _look_levels(alpha: float, first: int, last: int, until: int) -> tuple[float, ...]:
    """Compute the levels of the looks up to that at ``until`` pairs."""
    from scipy import special

    edges_J = _edges()
    # P(|z| > edge, and no look so far has crossed)
    survival_J = 2 * special.ndtr(-edges_J)
    levels, spent = [], 0.0
    for num_pairs in range(first, until + 1):
        spend = alpha * (num_pairs / last) ** SPENDING_POWER
        score = _score_at(survival_J, spend - spent)
        spent = spend
        levels.append(float(2 * special.ndtr(-score)))
        if num_pairs < until:
            mass_I = -np.diff(np.interp(np.minimum(edges_J, score), edges_J, survival_J))
            survival_J = mass_I @ _transition(num_pairs)
    return tuple(levels)


@functools.cache
def _edges() -> Any:
    """Return the edges of the grid's cells, in absolute standard normal scores."""
    return np.linspace(0.0, LARGEST_SCORE, NUM_CELLS + 1)


def _score_at(survival_J: Any, probability: float) -> float:
    """Return the score that is exceeded with a probability, between edges by their logarithms."""
    edges_J = _edges()
    log_J = np.log(np.maximum(survival_J, 1e-300))
    return float(np.interp(-math.log(max(probability, 1e-300)), -log_J, edges_J))


@functools.lru_cache(maxsize=256)
def _transition(num_pairs: int) -> Any:
    """Compute P(|z| after one more pair > edge j, given |z| in the middle of cell i), I x J.

    |r_(n+1)| > b holds where (1 - b^2) T^2 + 2 r T + r^2 - b^2 > 0: for b > 1 between the roots
    (r -+ b sqrt(1 + r^2 - b^2)) / (b^2 - 1), if there are any, and for b < 1 outside of them.
    """
    edges_J = _edges()
    r = _statistic((edges_J[:-1] + edges_J[1:]) / 2, num_pairs)[:, None]
    b = _statistic(edges_J, num_pairs + 1)[None, :]
    b = np.where(np.abs(b - 1) < 1e-9, 1 + 1e-9, b)
    root = b * np.sqrt(np.maximum(1 + r**2 - b**2, 0.0))
    low, high = (r - root) / (b**2 - 1), (r + root) / (b**2 - 1)
    outside = 1 - _between(high, low, num_pairs)  # for b < 1 the denominator turns their order
    return np.where(b > 1, _between(low, high, num_pairs), outside)


def _between(low: Any, high: Any, num_pairs: int) -> Any:
    """Compute P(low < T < high), where sqrt(n) T has Student's t distribution."""
    from scipy import special

    scale = math.sqrt(num_pairs)
    # From the upper tail, which keeps its digits where both bounds are large.
    above_low = special.stdtr(num_pairs, -scale * low)
    return np.maximum(above_low - special.stdtr(num_pairs, -scale * high), 0.0)


def _statistic(scores: Any, num_pairs: int) -> Any:
    """Compute r_n of absolute normal scores, which stand for the p-value of t."""
    from scipy import special

    squares = special.stdtrit(num_pairs - 1, special.ndtr(-scores)) ** 2
    return np.sqrt(num_pairs * squares / (num_pairs - 1 + squares))
