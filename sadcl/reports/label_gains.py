"""Which labels an arm helps: AP a label against the baseline, paired over seeds, by frequency and by size of the objects."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import stats

from sadcl.errors import UserError, did_you_mean
from sadcl.reports.statistics import ALPHA, Effect, compare_arms, holm, interval
from sadcl.results import store
from sadcl.search.ranking import chosen_trial

THIRDS = {"frequency": ("rare", "middle", "frequent"), "size": ("small", "medium", "large")}
FEWEST = 6
"""Labels below which there are no groups: one label is none."""


@dataclass(frozen=True)
class Gain:
    """One label.

    Attributes:
        support: images of the split with it.
        size: share of an image that its boxes cover, mean over the images, in percent; nan where boxes are not known.
        frequency, of_size: the third of the labels that it belongs to; empty where there are no groups.
        baseline: its mean AP in the baseline, over the seeds that both have.
        effect: of the arm, in percentage points of AP; ``corrected`` by Benjamini and Hochberg for all labels.
    """

    label: str
    support: float
    size: float
    frequency: str
    of_size: str
    baseline: float
    effect: Effect


@dataclass(frozen=True)
class Group:
    """A third of the labels: the mean of its labels' AP in each seed, compared like an mAP; ``corrected`` by Holm.

    Attributes:
        by: ``frequency`` or ``size``.
        low, high: images of its rarest and its most frequent label; or percent of the image.
    """

    by: str
    name: str
    labels: tuple[str, ...]
    low: float
    high: float
    effect: Effect


@dataclass(frozen=True)
class Trend:
    """How gains go with frequency or size.

    Attributes:
        slope, half: percentage points for each doubling, mean over seeds and half of its 95 % interval (Student's t); ``p``
            of it, corrected by Holm where there are both trends.
        r, low, high: Pearson's correlation of the labels' mean gain with the logarithm and its 95 % interval by Fisher, which
            takes the labels for a sample of labels.
        shown: by both, because two odd labels that gain in every seed make a slope too.
    """

    by: str
    slope: float
    half: float
    p: float
    r: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        return self.p < ALPHA and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Gains:
    """An arm against the baseline on one data set.

    Attributes:
        labels: most frequent first, those that the split does not have left out.
        seeds: the pairs.
    """

    study: str
    scale: str
    dataset: str
    split: str
    arm: str
    baseline: str
    seeds: tuple[int, ...]
    labels: tuple[Gain, ...]
    groups: tuple[Group, ...]
    trends: tuple[Trend, ...]


def label_gains(
    root: str,
    study: str,
    arm: str | None = None,
    baseline: str | None = None,
    split: str = "test",
    dataset: str | None = None,
) -> list[Gains]:
    """What an arm gives each label: an arm of an ablation, or what a search has tuned and confirmed, on each data set.

    Args:
        arm: None takes the only one besides the baseline; ``tuned`` of a search.
        baseline: None takes the study's own; the control ``stage2`` of a search.
        split: ``test`` or ``val``, the held-out training images.
        dataset: only this one.

    Raises:
        UserError: for an unknown study, arm, split or data set, and where no seed has both.
    """
    if split not in ("test", "val"):
        raise UserError(f"There is no split {split!r}{did_you_mean(split, ('test', 'val'))}")
    trials = store.read(root, "trials")
    known = sorted(set(trials["study"].drop_null().to_pylist()))
    if study not in known:
        raise UserError(f"There is no study {study!r} here{did_you_mean(study, known)}")
    about = store.study_record(root, study)
    there = trials.filter(pc.field("study") == study).to_pylist()
    best = chosen_trial(there, about)
    mine = [
        row
        for row in there
        if row["phase"] == "arm" or (row["phase"] == "confirm" and _check_request(row, best))
    ]
    arms = about.get("order") or list(dict.fromkeys(row["arm"] for row in mine))
    baseline = baseline or about.get("baseline") or "stage2"
    others = [name for name in arms if name != baseline]
    if arm is None and len(others) > 1:
        raise UserError(
            f"The study {study!r} has several arms: give --arm as one of {', '.join(others)}."
        )
    arm = arm or (others[0] if others else "tuned")
    for name in (arm, baseline):
        if name not in arms:
            raise UserError(
                f"The study {study!r} has no runs of an arm {name!r}{did_you_mean(name, arms)}"
            )
    if arm == baseline:
        raise UserError(f"The arm {arm!r} is the baseline: give another as --arm or as --baseline.")
    datasets = list(dict.fromkeys(row["dataset"] for row in mine))
    if dataset is not None and dataset not in datasets:
        raise UserError(
            f"The study {study!r} has no runs on {dataset!r}{did_you_mean(dataset, datasets)}"
        )
    of = (pc.field("study") == study) & (pc.field("split") == split)
    rows = store.read(root, "labels").filter(of).to_pylist()
    found = [
        gains_of([row for row in mine if row["dataset"] == name], rows, arm, baseline, split)
        for name in ([dataset] if dataset is not None else datasets)
    ]
    if not any(one.seeds for one in found):
        where = "the test images" if split == "test" else "the held-out images"
        raise UserError(
            f"No seed of {study!r} has figures of {arm!r} and {baseline!r} for each label on {where}."
        )
    return [one for one in found if one.seeds]


def gains_of(
    trials: Iterable[Mapping[str, Any]],
    labels: Iterable[Mapping[str, Any]],
    arm: str,
    baseline: str,
    split: str = "test",
) -> Gains:
    """The same from rows of the tables.

    Args:
        trials: of one study and data set; at most one complete run an arm and seed.
        labels: of the split.
    """
    trials = [row for row in trials if row["arm"] in (arm, baseline)]
    of: dict[str, dict[str, Mapping[str, Any]]] = {row["key"]: {} for row in trials}
    for row in labels:
        if row["key"] in of:
            of[row["key"]][row["label"]] = row
    first = trials[0] if trials else {"study": "", "scale": "", "dataset": ""}
    names = dict.fromkeys(label for rows in of.values() for label in rows)
    support = {label: _shared_labels(of, label, "support") for label in names}
    size = {label: _shared_labels(of, label, "box_area") for label in names}
    ordered = sorted(
        (label for label in names if support[label] > 0), key=lambda label: (-support[label], label)
    )

    def against(some: Sequence[str]) -> list[Effect]:
        """Baseline and arm by the mean AP of some labels."""
        rows = [
            {**row, "AP": _mean([of[row["key"]].get(label, {}).get("AP") for label in some])}
            for row in trials
        ]
        return compare_arms(rows, baseline, "AP", [baseline, arm], datasets=[first["dataset"]])

    pairs = {label: against([label]) for label in ordered}
    corrected = _benjamini_hochberg({label: effect.p for label, (_, effect) in pairs.items()})
    values = {"frequency": support, "size": size}
    parts = {by: _thirds(by, value, ordered) for by, value in values.items()}
    third = {
        by: {label: name for name, some in named.items() for label in some}
        for by, named in parts.items()
    }
    found = tuple(
        Gain(
            label=label,
            support=support[label],
            size=size[label],
            frequency=third["frequency"].get(label, ""),
            of_size=third["size"].get(label, ""),
            baseline=_mean(
                [
                    of[row["key"]][label]["AP"]
                    for row in trials
                    if _is_same(row, baseline, effect.pairs)
                ]
            ),
            effect=_with_verdicts(effect, corrected.get(label, math.nan)),
        )
        for label, (_, effect) in pairs.items()
    )
    seeds = tuple(sorted({seed for gain in found for seed in gain.effect.pairs}))
    groups = [
        Group(
            by,
            name,
            tuple(some),
            min(values[by][i] for i in some),
            max(values[by][i] for i in some),
            against(some)[1],
        )
        for by, named in parts.items()
        for name, some in named.items()
    ]
    trends = [_trend(by, found, values[by]) for by, named in parts.items() if named]
    return Gains(
        study=first["study"],
        scale=first["scale"],
        dataset=first["dataset"],
        split=split,
        arm=arm,
        baseline=baseline,
        seeds=seeds,
        labels=found,
        groups=tuple(
            replace(group, effect=_with_verdicts(group.effect, p))
            for group, p in zip(groups, _holm(g.effect.p for g in groups), strict=True)
        ),
        trends=tuple(
            replace(trend, p=p) for trend, p in zip(trends, _holm(t.p for t in trends), strict=True)
        ),
    )


def _check_request(row: Mapping[str, Any], best: Mapping[str, Any] | None) -> bool:
    """Whether a confirmed run is the control's, or of the setting that the search ended with."""
    return row["arm"] != "tuned" or (best is not None and row["params"] == best["params"])


def _shared_labels(
    of: Mapping[str, Mapping[str, Mapping[str, Any]]], label: str, column: str
) -> float:
    """What all runs have alike, because it is of the images; nan where none has it."""
    values = [rows[label].get(column) for rows in of.values() if label in rows]
    return max((v for v in values if v is not None and math.isfinite(v)), default=math.nan)


def _mean(values: Sequence[float | None]) -> float:
    """nan where one is missing, so that a mean is always over the same labels, and of nothing."""
    return (
        float(np.mean([math.nan if value is None else value for value in values]))
        if values
        else math.nan
    )


def _is_same(row: Mapping[str, Any], arm: str, seeds: Sequence[int]) -> bool:
    return row["arm"] == arm and row["seed"] in seeds and row["status"] == "complete"


def _thirds(by: str, value: Mapping[str, float], ordered: Sequence[str]) -> dict[str, list[str]]:
    """Three groups of equally many labels, from low to high; none where too few have the value."""
    known = sorted(
        (label for label in ordered if math.isfinite(value[label])),
        key=lambda label: (value[label], label),
    )
    if len(known) < FEWEST:
        return {}
    return {
        name: [str(label) for label in part]
        for name, part in zip(THIRDS[by], np.array_split(known, 3), strict=True)
    }


def _trend(by: str, found: Sequence[Gain], value: Mapping[str, float]) -> Trend:
    known = [
        gain
        for gain in found
        if math.isfinite(value[gain.label]) and value[gain.label] > 0 and gain.effect.pairs
    ]
    nothing = Trend(by, *[math.nan] * 6)
    seeds = sorted(set.intersection(*(set(gain.effect.pairs) for gain in known))) if known else []
    x_L = np.log2([value[gain.label] for gain in known])
    if not seeds or not np.ptp(x_L):
        return nothing
    places = [[gain.effect.pairs.index(seed) for seed in seeds] for gain in known]
    gain_LS = np.array(
        [[gain.effect.differences[i] for i in at] for gain, at in zip(known, places, strict=True)]
    )
    slope_S = (x_L - x_L.mean()) @ gain_LS / ((x_L - x_L.mean()) ** 2).sum()
    slope, half = interval([float(s) for s in slope_S])
    p = (
        float(stats.ttest_1samp(slope_S, 0.0).pvalue)
        if len(seeds) > 1 and np.ptp(slope_S) > 0
        else math.nan
    )
    mean_L = gain_LS.mean(axis=1)
    if np.ptp(mean_L) == 0:
        return replace(nothing, slope=slope, half=half, p=p)
    correlation = stats.pearsonr(x_L, mean_L)
    low, high = correlation.confidence_interval()
    return Trend(by, slope, half, p, float(correlation.statistic), float(low), float(high))


def _benjamini_hochberg(p: Mapping[str, float]) -> dict[str, float]:
    """Among what is shown at most a twentieth is expected to be by chance; Holm over 500 labels would show nothing."""
    tested = [label for label, value in p.items() if not math.isnan(value)]
    return (
        dict(
            zip(
                tested,
                map(float, stats.false_discovery_control([p[label] for label in tested])),
                strict=True,
            )
        )
        if tested
        else {}
    )


def _holm(values: Iterable[float]) -> NDArray[np.float64]:
    """Of those that are numbers."""
    corrected = np.array(list(values), dtype=float)
    tested = ~np.isnan(corrected)
    corrected[tested] = holm(corrected[tested].tolist())
    return corrected


def _with_verdicts(effect: Effect, corrected: float) -> Effect:
    if math.isnan(corrected):
        return (
            effect
            if math.isnan(effect.p)
            else replace(effect, corrected=math.nan, verdict="not shown")
        )
    shown = "gain" if effect.difference > 0 else "loss"
    return replace(
        effect, corrected=float(corrected), verdict=shown if corrected < ALPHA else "not shown"
    )
