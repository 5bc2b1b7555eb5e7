"""How well the ranking of a cheap search predicts that of the confirmed runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

LEAST = 4
"""Settings that an interval needs at least."""
_Z = 1.959964
"""97.5 % quantile of the normal distribution."""


class RankAgreement(NamedTuple):
    """Spearman's rank correlation, -1 to 1, and its 95 % interval; nan where it is not defined."""

    settings: int
    correlation: float
    low: float
    high: float

    def sentence(self) -> str:
        """Return what it says about a search, for people."""
        count = self.settings
        if count < LEAST:
            return (
                "How well the search's ranking predicts the confirmed one is not known: "
                f"{count} {'setting was' if count == 1 else 'settings were'} confirmed, and it "
                f"takes {LEAST} (confirm_top)."
            )
        if math.isnan(self.correlation):
            return (
                "How well the search's ranking predicts the confirmed one is not known: all "
                f"{count} settings have the same held-out mAP."
            )
        if self.low > 0:
            meaning = "the cheap search orders them as the real runs do, better than chance"
        elif self.high < 0:
            meaning = "the cheap search orders them the wrong way round"
        else:
            meaning = "it is not shown that the cheap search orders them better than chance"
        return (
            f"Held-out mAP of the search and of the confirmation over the best {count} settings: "
            f"Spearman's correlation {self.correlation:.2f}, 95 % interval {self.low:.2f} to "
            f"{self.high:.2f}: {meaning}."
        )


def rank_agreement(cheap: Sequence[float], real: Sequence[float]) -> RankAgreement:
    """Compute Spearman's correlation of two figures of the same settings.

    The interval is tanh(atanh(r) +- 1.96 sqrt((1 + r^2 / 2) / (n - 3))). An order that agrees
    wholly has an infinite atanh, and is taken as one exchange of neighbours short of it.

    Source: Bonett and Wright, Sample size requirements for estimating Pearson, Kendall and Spearman
    correlations, Psychometrika, 2000.

    Args:
        cheap: a figure of each setting.
        real: the other figure of each, in the same order.
    """
    count = len(cheap)
    if count < LEAST:
        return RankAgreement(count, math.nan, math.nan, math.nan)
    ranks = stats.rankdata(cheap), stats.rankdata(real)
    if not all(np.ptp(rank) for rank in ranks):
        return RankAgreement(count, math.nan, math.nan, math.nan)
    correlation = float(np.corrcoef(*ranks)[0, 1])
    most = 1 - 12 / (count * (count**2 - 1))
    inner = min(max(correlation, -most), most)
    half = _Z * math.sqrt((1 + inner**2 / 2) / (count - 3))
    low, high = (math.tanh(math.atanh(inner) + sign * half) for sign in (-1, 1))
    return RankAgreement(count, correlation, min(low, correlation), max(high, correlation))
