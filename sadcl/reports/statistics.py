"""What an ablation shows: means with intervals, and differences over the seeds that an arm and the baseline share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sadcl.errors import UserError

ALPHA = 0.05
"""A difference is shown where its corrected p is below."""


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Mean, and half the width of its interval (Student's t over seeds); nan for one value."""
    from scipy import special  # stats, which has the same, takes half a second to import

    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, float(special.stdtrit(len(values) - 1, (1 + level) / 2)) * error


def holm(values: Sequence[float]) -> list[float]:
    """The p of a family of tests corrected by Holm: the k-th smallest of m times m - k + 1, never below the one before."""
    order = np.argsort(values)
    steps = np.asarray(values)[order] * np.arange(len(values), 0, -1)
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return [float(p) for p in corrected]


@dataclass(frozen=True)
class Gap:
    """A seed that an arm has no figure of.

    Attributes:
        why: ``failed``, ``pruned``, ``unfinished``, ``no figure`` (complete without the metric) or ``missing``.
        key, cause: of the run, where there is one.
    """

    seed: int
    why: str
    key: str = ""
    cause: str = ""


@dataclass(frozen=True)
class Effect:
    """An arm on one data set: by itself, and against the baseline over the seeds that both have a figure of.

    Attributes:
        seeds: that the arm has a figure of; ``mean``, ``sd`` and ``half`` (of the interval) are over them.
        gaps: the seeds that other arms have a run of, or the study lists, and this one has no figure of.
        pairs: the seeds with a partner; ``differences`` to the baseline are in their order.
        difference: their mean, and ``difference_half`` half of its interval.
        p: of the paired t test, two-sided; ``corrected`` by Holm for the arms tested on the data set.
        verdict: ``gain``, ``loss`` or ``not shown`` by the corrected p; ``one seed``, ``no pair`` or ``no spread`` (the
            same difference in every seed, which independent runs do not give) where no test is possible; ``baseline``.
    """

    dataset: str
    arm: str
    seeds: tuple[int, ...] = ()
    mean: float = math.nan
    sd: float = math.nan
    half: float = math.nan
    gaps: tuple[Gap, ...] = ()
    pairs: tuple[int, ...] = ()
    differences: tuple[float, ...] = ()
    difference: float = math.nan
    difference_half: float = math.nan
    p: float = math.nan
    corrected: float = math.nan
    verdict: str = "no pair"

    @property
    def unpaired(self) -> tuple[int, ...]:
        """Seeds that are in the mean but not in the difference."""
        return (
            ()
            if self.verdict == "baseline"
            else tuple(seed for seed in self.seeds if seed not in self.pairs)
        )


def compare_arms(
    rows: Iterable[Mapping[str, Any]],
    baseline: str,
    metric: str = "test_mAP",
    arms: Sequence[str] | None = None,
    seeds: Iterable[int] = (),
    datasets: Iterable[str] = (),
) -> list[Effect]:
    """Each arm on each data set, both in order.

    Args:
        rows: of the trials table, of the arms of one study.
        baseline: the arm that the others are compared with.
        metric: a column in percent.
        arms: their order, and which of them count; None takes all as they come.
        seeds: that every arm should have, besides those that any arm has a run of on the data set.
        datasets: that come first, in that order, also where they have no run.

    Raises:
        UserError: where two complete runs have the same arm, seed and data set.
    """
    rows = list(rows)
    arms = list(dict.fromkeys(row["arm"] for row in rows) if arms is None else arms)
    effects = []
    for dataset in dict.fromkeys([*datasets, *(row["dataset"] for row in rows)]):
        here = [row for row in rows if row["dataset"] == dataset and row["arm"] in arms]
        expected = sorted({*seeds, *(row["seed"] for row in here)})
        figures: dict[str, dict[int, float]] = {arm: {} for arm in [baseline, *arms]}
        gaps: dict[str, list[Gap]] = {arm: [] for arm in arms}
        for arm in arms:
            for seed in expected:
                found = _figure(
                    [r for r in here if r["arm"] == arm and r["seed"] == seed], metric, seed
                )
                if isinstance(found, Gap):
                    gaps[arm].append(found)
                else:
                    figures[arm][seed] = found
        against = [
            _effect(dataset, arm, figures[arm], figures[baseline], arm == baseline) for arm in arms
        ]
        effects += [replace(effect, gaps=tuple(gaps[effect.arm])) for effect in _with_holm(against)]
    return effects


def _figure(runs: Sequence[Mapping[str, Any]], metric: str, seed: int) -> float | Gap:
    """What the runs of one arm, seed and data set come to; a failed one counts for nothing beside a complete one."""
    complete = [run for run in runs if run["status"] == "complete"]
    if len(complete) > 1:
        keys = " and ".join(str(run["key"]) for run in complete)
        raise UserError(
            f"The arm {complete[0]['arm']!r} has {len(complete)} complete runs of seed {seed} on {complete[0]['dataset']}: "
            f"{keys}. They are of different settings (`sadcl results show KEY`): run the study again with --fresh, or "
            "give one of the settings another arm's name."
        )
    run = next(iter(complete or runs), None)
    if run is None:
        return Gap(seed, "missing")
    if not complete:
        why = "unfinished" if run["status"] == "running" else run["status"]
        return Gap(seed, why, run["key"], run.get("cause") or "")
    value = run.get(metric)
    return (
        float(value)
        if value is not None and math.isfinite(value)
        else Gap(seed, "no figure", run["key"])
    )


def _effect(
    dataset: str, arm: str, own: Mapping[int, float], other: Mapping[int, float], is_baseline: bool
) -> Effect:
    effect = Effect(dataset, arm, verdict="baseline" if is_baseline else "no pair")
    if own:
        values = list(own.values())
        mean, half = interval(values)
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
        effect = replace(effect, seeds=tuple(own), mean=mean, sd=sd, half=half)
    pairs = [seed for seed in own if seed in other and not is_baseline]
    if not pairs:
        return effect
    differences = [
        round(own[seed] - other[seed], 9) for seed in pairs
    ]  # what is below is rounding of floats
    mean, half = interval(differences)
    effect = replace(
        effect,
        pairs=tuple(pairs),
        differences=tuple(differences),
        difference=mean,
        difference_half=half,
    )
    if len(pairs) == 1:
        return replace(effect, verdict="one seed")
    if len(set(differences)) == 1 and differences[0]:
        return replace(effect, verdict="no spread")
    from scipy import stats

    p = float(stats.ttest_1samp(differences, 0.0).pvalue) if any(differences) else 1.0
    return replace(effect, p=p)


def _with_holm(effects: Sequence[Effect]) -> list[Effect]:
    """The effects on one data set with the corrected p and the verdict of those that could be tested."""
    tested = [i for i, effect in enumerate(effects) if not math.isnan(effect.p)]
    judged = list(effects)
    for i, corrected in zip(tested, holm([effects[i].p for i in tested]), strict=True):
        verdict = "not shown"
        if corrected < ALPHA:
            verdict = "gain" if effects[i].difference > 0 else "loss"
        judged[i] = replace(effects[i], corrected=corrected, verdict=verdict)
    return judged
