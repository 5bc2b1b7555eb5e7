"""Differences, intervals, p-values and verdicts in words, the same in every table and sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sadcl.reports.statistics import ALPHA, Effect, Verdict, least_pairs

SPLITS = {"test": "test images", "val": "held-out training images"}


def arm_text(arm: str) -> str:
    """Name an arm; one that is called baseline is told apart from what the others compare with."""
    return f"the arm “{arm}”" if is_baseline_name(arm) else arm


def is_baseline_name(arm: str) -> bool:
    """Whether an arm has the name of what the others compare with, in whatever case."""
    return arm.strip().lower() == "baseline"


def plus_minus(mean: float, half_width: float | None) -> str:
    """Format a mean with half of its 95 % interval, the one meaning that ± has everywhere.

    A half-width of 0, of figures that are the same in all seeds, is not shown, because nothing is
    known of the spread.
    """
    has_interval = half_width is not None and half_width > 0
    return f"{mean:.2f} ± {half_width:.2f}" if has_interval else f"{mean:.2f}"


def seeds_text(counts: Sequence[int]) -> str:
    """Format numbers of seeds, for example ``5 seeds`` or ``2 to 5 seeds``."""
    low, high = min(counts, default=0), max(counts, default=0)
    return ("1 seed" if high == 1 else f"{high} seeds") if low == high else f"{low} to {high} seeds"


def pairs_text(effect: Effect) -> str:
    """Format the number of pairs, for example ``1 pair``."""
    count = len(effect.pairs)
    return f"{count} pair{'s' * (count != 1)}"


def verdict_text(effect: Effect) -> str:
    """State what a difference shows, as the end of a sentence."""
    if effect.is_significant:
        return f"a significant {effect.verdict}"
    if effect.verdict == Verdict.TOO_FEW:
        decide = "decides" if len(effect.pairs) == 1 else "decide"
        least = least_pairs(effect.until)
        return f"{pairs_text(effect)} {decide} nothing, at least {least} are needed"
    if effect.verdict == Verdict.NO_SPREAD:
        return (
            f"identical to the last digit in all {len(effect.pairs)} seeds, which independent runs "
            "do not produce, so it is not tested"
        )
    if effect.verdict == Verdict.NO_PAIR:
        return "no seed has a figure for both arms, so they cannot be compared"
    return "no significant difference"


def difference_text(effect: Effect) -> str:
    """Format a difference in percentage points with its interval, or why there is none."""
    if not effect.pairs:
        return effect.verdict.value
    inside = interval_text(effect)
    if effect.verdict == Verdict.TOO_FEW:
        inside = f"{pairs_text(effect)}: too few"
    elif math.isnan(effect.p):
        inside = effect.verdict.value
    if effect.unpaired and effect.verdict != Verdict.TOO_FEW:
        inside += f", {pairs_text(effect)}"
    return f"{effect.difference:+z.2f} ({inside})"


def interval_text(effect: Effect, name: str = "") -> str:
    """Format the bounds of the 95 % interval of a difference, after its name.

    Figures that are the same in all seeds have none, because nothing is known of the spread.
    """
    low, high = effect.difference_interval
    if low == high:
        return f"equal in all {len(effect.pairs)} seeds"
    return f"{name}{low:+z.2f} to {high:+z.2f}"


def p_text(effect: Effect) -> str:
    """Format the corrected p-value; empty where nothing was tested.

    A value below the significance level is never rounded up to it.
    """
    if math.isnan(effect.p_corrected):
        return ""
    if effect.p_corrected < 0.001:
        return "<0.001"
    if effect.p_corrected < ALPHA <= round(effect.p_corrected, 3):
        return f"<{ALPHA:g}"
    return f"{effect.p_corrected:.3f}"


def p_comparison(effect: Effect) -> str:
    """Format the corrected p-value after its sign, for example ``= 0.123`` or ``< 0.001``."""
    text = p_text(effect)
    return f"< {text[1:]}" if text.startswith("<") else f"= {text}"
