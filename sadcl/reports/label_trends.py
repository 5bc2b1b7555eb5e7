"""How the gains of labels vary with the frequency of a label or the size of its objects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from sadcl.reports.statistics import ALPHA, Effect, interval, least_pairs
from sadcl.search.until import Until


@dataclass(frozen=True)
class Trend:
    """The regression of the labels' gains on the logarithm of a variable.

    Attributes:
        variable: ``frequency`` or ``size``.
        slope: percentage points of AP for each doubling of the variable, mean over seeds.
        half_width: of the slope's 95 % interval (Student's t over seeds), corrected by Bonferroni
            where there are two trends; nan with too few seeds for a test.
        p: of the two-sided t test that the slope is 0; corrected by Holm where there are two
            trends.
        r: Pearson's correlation of the labels' mean gains with the logarithm of the variable.
        r_low, r_high: the 95 % interval of ``r`` by Fisher's transformation, which takes the labels
            for a sample of labels.
    """

    variable: str
    slope: float
    half_width: float
    p: float
    r: float
    r_low: float
    r_high: float

    @property
    def is_significant(self) -> bool:
        """Whether both p and the interval of r exclude chance.

        The slope alone is not enough: two odd labels that gain in every seed make one too.
        """
        return self.p < ALPHA and (self.r_low > 0 or self.r_high < 0)


def trend(
    variable: str,
    values: Mapping[str, float],
    effects: Mapping[str, Effect],
    family: int = 1,
    until: Until | None = None,
) -> Trend:
    """Fit a line to the gains over the base-2 logarithm of a variable, in each seed.

    Args:
        variable: its name.
        values: the variable of each label; labels whose value is not a positive number are left
            out.
        effects: of each label; labels without a paired seed are left out.
        family: the number of trends that are tested.
        until: how seeds were added until the differences were settled; None if they were fixed.

    Returns:
        The trend over the seeds that all labels have; nan where there is nothing to fit.
    """
    labels = [
        label
        for label, effect in effects.items()
        if math.isfinite(values[label]) and values[label] > 0 and effect.pairs
    ]
    no_trend = Trend(variable, *[math.nan] * 6)
    pairs = [set(effects[label].pairs) for label in labels]
    seeds = sorted(set.intersection(*pairs)) if pairs else []
    x_L = np.log2([values[label] for label in labels])
    if not seeds or not np.ptp(x_L):
        return no_trend
    gain_LS = np.array([_differences(effects[label], seeds) for label in labels])
    centred_L = x_L - x_L.mean()
    slope_S = centred_L @ gain_LS / (centred_L**2).sum()
    slope, half_width = interval([float(s) for s in slope_S], until=until, family=family)
    p = math.nan
    if len(seeds) < least_pairs(until):
        half_width = math.nan
    elif np.ptp(slope_S) > 0:
        p = float(stats.ttest_1samp(slope_S, 0.0).pvalue)
        p = p if until is None else until.corrected_p(p, len(seeds))
    mean_L = gain_LS.mean(axis=1)
    if np.ptp(mean_L) == 0:
        return replace(no_trend, slope=slope, half_width=half_width, p=p)
    correlation = stats.pearsonr(x_L, mean_L)
    r_low, r_high = correlation.confidence_interval()
    r = float(correlation.statistic)
    return Trend(variable, slope, half_width, p, r, float(r_low), float(r_high))


def _differences(effect: Effect, seeds: list[int]) -> list[float]:
    return [effect.differences[effect.pairs.index(seed)] for seed in seeds]
