"""Statistics of paired comparisons: means with intervals, paired tests and corrected p-values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from sadcl.errors import UserError
from sadcl.search.until import ALPHA, Until, figure, least_pairs

__all__ = ["ALPHA", "least_pairs"]


class Verdict(StrEnum):
    """What a comparison with the baseline shows.

    A difference is significant where its corrected p-value is below ``ALPHA``. Fewer than
    ``least_pairs`` pairs decide nothing.
    """

    GAIN = "gain"
    LOSS = "loss"
    NOT_SIGNIFICANT = "not significant"
    TOO_FEW = "too few pairs"
    NO_PAIR = "no pair"
    NO_SPREAD = "no spread"
    BASELINE = "baseline"


SIGNIFICANT = frozenset({Verdict.GAIN, Verdict.LOSS})


def interval(
    values: Sequence[float], level: float = 1 - ALPHA, until: Until | None = None, family: int = 1
) -> tuple[float, float]:
    """Compute a mean and the half-width of its confidence interval (Student's t).

    Args:
        values: at least one value, for example one for each seed.
        level: the confidence level, between 0 and 1.
        until: how seeds were added until the differences were settled, with its own level; None
            where their number was fixed.
        family: the number of intervals that together have the level, by Bonferroni.

    Returns:
        The mean and the half-width, in the unit of ``values``; the half-width of one value is nan,
        and of fewer values than ``until`` looks at.
    """
    from scipy import special  # scipy.stats has it too, but takes half a second to import

    mean = float(np.mean(values))
    error_rate = (1 - level) / family
    if until is not None:
        error_rate = until.level(len(values), family) or math.nan
    if len(values) < 2 or math.isnan(error_rate):
        return mean, math.nan
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, -float(special.stdtrit(len(values) - 1, error_rate / 2)) * error


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct the p-values of a family of tests by Holm's step-down method.

    With the m values in ascending order, p_(k) becomes max over j <= k of (m - j + 1) p_(j), at
    most 1.

    Source: Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
    Statistics, 1979.
    """
    order = np.argsort(p_values)
    steps = np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return [float(p) for p in corrected]


def holm_of_tested(p_values: Iterable[float]) -> list[float]:
    """Correct by Holm those p-values that are numbers; nan (not tested) stays nan."""
    corrected = np.array(list(p_values), dtype=float)
    is_tested = ~np.isnan(corrected)
    corrected[is_tested] = holm(corrected[is_tested].tolist())
    return [float(p) for p in corrected]


def benjamini_hochberg_of_tested(p_values: Iterable[float]) -> list[float]:
    """Correct by Benjamini and Hochberg those p-values that are numbers; nan stays nan.

    Of the tests that are significant at level alpha, a share of at most alpha is expected to be a
    false positive. With hundreds of labels, Holm's correction would leave hardly any significant.

    Source: Benjamini and Hochberg, Controlling the false discovery rate, Journal of the Royal
    Statistical Society B, 1995.
    """
    from scipy import stats

    corrected = np.array(list(p_values), dtype=float)
    is_tested = ~np.isnan(corrected)
    if is_tested.any():
        corrected[is_tested] = stats.false_discovery_control(corrected[is_tested])
    return [float(p) for p in corrected]


@dataclass(frozen=True)
class MissingFigure:
    """A seed for which an arm has no figure.

    Attributes:
        reason: ``failed``, ``pruned``, ``unfinished``, ``no figure`` (the run is complete, but has
            no value of the metric) or ``missing`` (there is no run).
        key: of the run; empty where there is none.
        cause: the recorded cause of a failure; empty where there is none.
    """

    seed: int
    reason: str
    key: str = ""
    cause: str = ""


@dataclass(frozen=True)
class Effect:
    """An arm on one data set: its own figures, and their paired differences from the baseline.

    Attributes:
        seeds: the seeds for which the arm has a figure; ``mean``, ``sd`` and ``half_width`` (of the
            95 % interval of this mean alone) are over these.
        missing: the seeds without a figure, of those that the study lists or another arm has run.
        pairs: the seeds for which the baseline has a figure too.
        differences: arm minus baseline, in the order of ``pairs``.
        difference: the mean of the differences; ``difference_half_width`` is of its 95 % interval,
            by which the intervals of all ``family`` arms hold together (Bonferroni); nan with fewer
            pairs than a test needs. ``difference_sd`` is their standard deviation.
        p: of the two-sided paired t test, corrected for looking where seeds were added until the
            differences were settled.
        p_corrected: ``p``, corrected by Holm over the arms that are tested on the data set.
        reference: the arm that it is compared with; empty for the baseline itself.
        verdict: ``gain``, ``loss`` or ``not significant`` by ``p_corrected``; ``too few pairs``,
            ``no pair`` or ``no spread`` (the same difference in every seed, which independent runs
            do not produce) where no test is possible; ``baseline`` of the baseline itself.
        family: the number of arms that the interval and the p-value are corrected for.
        until: how seeds were added until the differences were settled; None if they were fixed.
    """

    dataset: str
    arm: str
    seeds: tuple[int, ...] = ()
    mean: float = math.nan
    sd: float = math.nan
    half_width: float = math.nan
    missing: tuple[MissingFigure, ...] = ()
    pairs: tuple[int, ...] = ()
    differences: tuple[float, ...] = ()
    difference: float = math.nan
    difference_half_width: float = math.nan
    difference_sd: float = math.nan
    p: float = math.nan
    p_corrected: float = math.nan
    verdict: Verdict = Verdict.NO_PAIR
    reference: str = ""
    family: int = 1
    until: Until | None = None

    @property
    def difference_interval(self) -> tuple[float, float]:
        """The bounds of the 95 % interval of the difference; nan with too few pairs for a test."""
        half_width = self.difference_half_width
        return self.difference - half_width, self.difference + half_width

    @property
    def is_significant(self) -> bool:
        return self.verdict in SIGNIFICANT

    @property
    def unpaired(self) -> tuple[int, ...]:
        """The seeds that count for the mean but not for the difference."""
        if self.verdict == Verdict.BASELINE:
            return ()
        return tuple(seed for seed in self.seeds if seed not in self.pairs)


def compare_arms(
    rows: Iterable[Mapping[str, Any]],
    baseline: str,
    metric: str = "test_mAP",
    arms: Sequence[str] | None = None,
    seeds: Iterable[int] = (),
    datasets: Iterable[str] = (),
    references: Mapping[str, str] | None = None,
    until: Until | None = None,
) -> list[Effect]:
    """Compare each arm with the baseline on each data set, paired by seed.

    Args:
        rows: rows of the trials table, of the arms of one study.
        baseline: the arm that the others are compared with.
        metric: a column in percent.
        arms: the arms to compare, in order; None takes all arms of ``rows``.
        seeds: seeds that every arm should have, besides those that any arm has a run of.
        datasets: data sets that come first, in this order, even where they have no run.
        references: the arm that an arm is compared with in the place of the baseline.
        until: how seeds were added until the differences were settled. Rows of other seeds than
            its own are left out, and an arm that needs no further seed misses none.

    Returns:
        One effect for each data set and arm, in the order of both.

    Raises:
        UserError: if two complete runs have the same arm, seed and data set.
    """
    rows = [row for row in rows if until is None or row["seed"] in until.seeds]
    arms = list(dict.fromkeys(row["arm"] for row in rows) if arms is None else arms)
    compared = {arm: (references or {}).get(arm, baseline) for arm in arms}
    compared |= {baseline: ""} if baseline in arms else {}
    effects = []
    for dataset in dict.fromkeys([*datasets, *(row["dataset"] for row in rows)]):
        runs = [row for row in rows if row["dataset"] == dataset and row["arm"] in arms]
        expected_seeds = sorted({*seeds, *(row["seed"] for row in runs)})
        figures: dict[str, dict[int, float]] = {arm: {} for arm in [baseline, *arms]}
        missing: dict[str, list[MissingFigure]] = {arm: [] for arm in arms}
        for arm in arms:
            for seed in expected_seeds:
                same = [run for run in runs if run["arm"] == arm and run["seed"] == seed]
                found = _figure(same, metric, seed)
                if not isinstance(found, MissingFigure):
                    figures[arm][seed] = found
                elif until is None or found.reason != "missing":
                    missing[arm].append(found)
        of_dataset = [
            replace(
                paired_effect(dataset, arm, figures[arm], figures.get(reference), until),
                reference=reference,
            )
            for arm, reference in compared.items()
        ]
        effects += [
            replace(effect, missing=tuple(missing[effect.arm])) for effect in with_holm(of_dataset)
        ]
    return effects


def _figure(runs: Sequence[Mapping[str, Any]], metric: str, seed: int) -> float | MissingFigure:
    """Return the metric of the runs of one arm, seed and data set.

    A failed run is ignored where there is a complete one.
    """
    complete = [run for run in runs if run["status"] == "complete"]
    if len(complete) > 1:
        keys = " and ".join(str(run["key"]) for run in complete)
        raise UserError(
            f"The arm {complete[0]['arm']!r} has {len(complete)} complete runs of seed {seed} on "
            f"{complete[0]['dataset']}: {keys}. Their settings differ (`sadcl results show KEY`): "
            "run the study again with --fresh, or give one of the settings another arm name."
        )
    run = next(iter(complete or runs), None)
    if run is None:
        return MissingFigure(seed, "missing")
    if not complete:
        reason = "unfinished" if run["status"] == "running" else run["status"]
        return MissingFigure(seed, reason, run["key"], run.get("cause") or "")
    value = figure(run, metric)
    return value if math.isfinite(value) else MissingFigure(seed, "no figure", run["key"])


def paired_effect(
    dataset: str,
    arm: str,
    figures: Mapping[int, float],
    reference: Mapping[int, float] | None,
    until: Until | None = None,
) -> Effect:
    """Compare an arm's figures by seed with the baseline's, with what is to be corrected for arms.

    Args:
        dataset, arm: their names.
        figures: of the arm.
        reference: of the baseline; None for the baseline itself.
        until: as for :func:`compare_arms`.

    Returns:
        The effect of this arm alone; :func:`with_holm` corrects it and adds the verdict.
    """
    verdict = Verdict.BASELINE if reference is None else Verdict.NO_PAIR
    effect = Effect(dataset, arm, verdict=verdict, until=until)
    if figures:
        values = list(figures.values())
        mean, half_width = interval(values, until=until)
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
        effect = replace(effect, seeds=tuple(figures), mean=mean, sd=sd, half_width=half_width)
    pairs = [seed for seed in figures if seed in (reference or {})]
    if reference is None or not pairs:
        return effect
    # Smaller differences are rounding errors of floating-point numbers.
    differences = [round(figures[seed] - reference[seed], 9) for seed in pairs]
    effect = replace(
        effect,
        pairs=tuple(pairs),
        differences=tuple(differences),
        difference=float(np.mean(differences)),
        difference_sd=float(np.std(differences, ddof=1)) if len(pairs) > 1 else math.nan,
    )
    if len(pairs) < least_pairs(until):
        return replace(effect, verdict=Verdict.TOO_FEW)
    if len(set(differences)) == 1 and differences[0]:
        return replace(effect, verdict=Verdict.NO_SPREAD)
    from scipy import stats

    p = float(stats.ttest_1samp(differences, 0.0).pvalue) if any(differences) else 1.0
    p = p if until is None else until.corrected_p(p, len(pairs))
    return replace(effect, p=p, difference_half_width=interval(differences, until=until)[1])


def with_verdict(effect: Effect, p_corrected: float) -> Effect:
    """Add the corrected p-value to an effect that was tested, and the verdict that it gives.

    Every table, sentence, plot and document has its verdict from here.
    """
    if p_corrected < ALPHA:
        verdict = Verdict.GAIN if effect.difference > 0 else Verdict.LOSS
    else:
        verdict = Verdict.NOT_SIGNIFICANT
    return replace(effect, p_corrected=p_corrected, verdict=verdict)


def with_holm(effects: Sequence[Effect]) -> list[Effect]:
    """Correct the effects on one data set for their number; the untested stay as they are.

    The p-values are corrected by Holm, the intervals by Bonferroni. The family are the tested
    effects; where seeds are added until the differences are settled, it is all that are compared,
    because it must not depend on how far they are.
    """
    p_corrected = holm_of_tested(
        1.0 if effect.until is not None and _is_untested(effect) else effect.p for effect in effects
    )
    num_tested = sum(not math.isnan(effect.p) for effect in effects)
    num_compared = sum(effect.verdict != Verdict.BASELINE for effect in effects)
    return [
        effect
        if math.isnan(effect.p)
        else with_verdict(
            _with_family(effect, num_tested if effect.until is None else num_compared), p
        )
        for effect, p in zip(effects, p_corrected, strict=True)
    ]


def _is_untested(effect: Effect) -> bool:
    return math.isnan(effect.p) and effect.verdict != Verdict.BASELINE


def _with_family(effect: Effect, family: int) -> Effect:
    half_width = interval(effect.differences, until=effect.until, family=family)[1]
    return replace(effect, difference_half_width=half_width, family=family)
