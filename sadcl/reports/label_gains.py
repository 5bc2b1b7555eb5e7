"""Which labels an arm helps: its AP on each label compared with the baseline's, paired by seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow.compute as pc

from sadcl.errors import UserError, did_you_mean
from sadcl.reports.label_trends import Trend, trend
from sadcl.reports.statistics import (
    Effect,
    benjamini_hochberg_of_tested,
    compare_arms,
    holm_of_tested,
    with_holm,
    with_verdict,
)
from sadcl.results import store
from sadcl.search.ranking import chosen_trial
from sadcl.search.until import Until, until_from_json

Row = Mapping[str, Any]
GROUP_NAMES = {"frequency": ("rare", "middle", "frequent"), "size": ("small", "medium", "large")}
MIN_LABELS = 6
"""With fewer labels there are no groups: a group of one label is not a group."""


@dataclass(frozen=True)
class LabelGain:
    """The gain of one label.

    Attributes:
        support: the number of images of the split that have the label.
        size: the share of an image that the label's boxes cover, mean over its images, in percent;
            nan where boxes are not known.
        frequency_group, size_group: the third of the labels that it belongs to; empty where there
            are no groups.
        baseline_AP: the baseline's AP in percent, mean over the seeds that both arms have.
        effect: of the arm, in percentage points of AP; ``p_corrected`` is by Benjamini and Hochberg
            over all labels, the interval is for this label alone.
    """

    label: str
    support: float
    size: float
    frequency_group: str
    size_group: str
    baseline_AP: float
    effect: Effect


@dataclass(frozen=True)
class LabelGroup:
    """The gain of a third of the labels, by the mean of their APs in each seed.

    Attributes:
        variable: ``frequency`` or ``size``.
        low, high: the lowest and the highest value of the variable among the group's labels.
        effect: of the arm; ``p_corrected`` is by Holm and the interval by Bonferroni over all
            groups.
    """

    variable: str
    name: str
    labels: tuple[str, ...]
    low: float
    high: float
    effect: Effect


@dataclass(frozen=True)
class ArmGains:
    """The gains of an arm over the baseline on one data set.

    Attributes:
        seeds: the seeds that both arms have.
        labels: the most frequent first; labels that the split does not have are left out.
    """

    study: str
    scale: str
    dataset: str
    split: str
    arm: str
    baseline: str
    seeds: tuple[int, ...]
    labels: tuple[LabelGain, ...]
    groups: tuple[LabelGroup, ...]
    trends: tuple[Trend, ...]


def label_gains(
    root: str,
    study: str,
    arm: str | None = None,
    baseline: str | None = None,
    split: str = "test",
    dataset: str | None = None,
) -> list[ArmGains]:
    """Read from a storage what an arm gains on each label.

    Args:
        root: the storage.
        study: an ablation, or a search that has confirmed its setting.
        arm: None takes the only one besides the baseline; ``tuned`` of a search.
        baseline: None takes the study's own; the control ``stage2`` of a search.
        split: ``test`` or ``val``, the held-out training images.
        dataset: None takes all data sets.

    Returns:
        The gains on each data set on which both arms have a seed in common.

    Raises:
        UserError: for an unknown study, arm, split or data set, and where no seed has both arms.
    """
    if split not in ("test", "val"):
        raise UserError(f"There is no split {split!r}{did_you_mean(split, ('test', 'val'))}")
    description, runs = _compared_runs(root, study)
    arms = description.get("order") or list(dict.fromkeys(row["arm"] for row in runs))
    baseline = baseline or description.get("baseline") or "stage2"
    arm = _resolve_arm(study, arms, arm, baseline)
    datasets = list(dict.fromkeys(row["dataset"] for row in runs))
    if dataset is not None and dataset not in datasets:
        raise UserError(
            f"The study {study!r} has no runs on {dataset!r}{did_you_mean(dataset, datasets)}"
        )
    condition = (pc.field("study") == study) & (pc.field("split") == split)
    label_rows = store.read(root, "labels").filter(condition).to_pylist()
    gains = []
    for name in datasets if dataset is None else [dataset]:
        of_dataset = [row for row in runs if row["dataset"] == name]
        until = until_from_json(description.get("until"))
        gains.append(gains_of(of_dataset, label_rows, arm, baseline, split, until))
    gains = [one for one in gains if one.seeds]
    if not gains:
        images = "the test images" if split == "test" else "the held-out images"
        raise UserError(
            f"No seed of {study!r} has figures of {arm!r} and {baseline!r} for each label on "
            f"{images}."
        )
    return gains


def _compared_runs(root: str, study: str) -> tuple[Row, list[Row]]:
    """Read the description of a study and its runs that can be compared by arm and seed.

    Of a search, these are the confirmation runs of the control and of the chosen setting.
    """
    trials = store.read(root, "trials")
    names = sorted(set(trials["study"].drop_null().to_pylist()))
    if study not in names:
        raise UserError(f"There is no study {study!r} here{did_you_mean(study, names)}")
    description = store.study_record(root, study)
    rows = trials.filter(pc.field("study") == study).to_pylist()
    chosen = chosen_trial(rows, description)

    def is_compared(row: Row) -> bool:
        if row["phase"] != "confirm":
            return row["phase"] == "arm"
        return row["arm"] != "tuned" or (chosen is not None and row["params"] == chosen["params"])

    return description, [row for row in rows if is_compared(row)]


def _resolve_arm(study: str, arms: Sequence[str], arm: str | None, baseline: str) -> str:
    """Choose the arm where none is given, and check both."""
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
    return arm


def gains_of(
    trials: Iterable[Row],
    label_rows: Iterable[Row],
    arm: str,
    baseline: str,
    split: str = "test",
    until: Until | None = None,
) -> ArmGains:
    """Compute the gains from rows of the tables.

    Args:
        trials: rows of one study and data set; at most one complete run of each arm and seed.
        label_rows: rows of the labels table, of the split.
        arm, baseline: the arms that are compared.
        split: ``test`` or ``val``.
        until: how seeds were added until the differences were settled; None if they were fixed.
    """
    runs = [row for row in trials if row["arm"] in (arm, baseline)]
    table = _LabelTable(runs, label_rows, until)
    labels, values = table.labels, {"frequency": table.support, "size": table.size}
    thirds = {name: _thirds(name, values[name], labels) for name in values}
    effects = {label: table.effect([label], arm, baseline) for label in labels}
    groups = [
        LabelGroup(
            variable,
            name,
            tuple(members),
            min(values[variable][label] for label in members),
            max(values[variable][label] for label in members),
            table.effect(members, arm, baseline),
        )
        for variable, by_name in thirds.items()
        for name, members in by_name.items()
    ]
    variables = [variable for variable, by_name in thirds.items() if by_name]
    trends = [trend(one, values[one], effects, len(variables), until) for one in variables]
    trend_p = holm_of_tested(one.p for one in trends)
    return ArmGains(
        study=table.first["study"],
        scale=table.first["scale"],
        dataset=table.first["dataset"],
        split=split,
        arm=arm,
        baseline=baseline,
        seeds=tuple(sorted({seed for effect in effects.values() for seed in effect.pairs})),
        labels=_label_gains(table, effects, thirds, baseline),
        groups=_with_holm(groups),
        trends=tuple(replace(one, p=p) for one, p in zip(trends, trend_p, strict=True)),
    )


class _LabelTable:
    """The rows of the labels table of some runs, by run and label.

    Attributes:
        labels: that the split has, the most frequent first.
        support, size: of each label; the same in all runs, because they are of the images.
        first: the first run; empty texts where there is none.
    """

    def __init__(
        self, trials: Sequence[Row], label_rows: Iterable[Row], until: Until | None
    ) -> None:
        self.trials, self.until = trials, until
        self.first: Row = trials[0] if trials else {"study": "", "scale": "", "dataset": ""}
        self.rows: dict[str, dict[str, Row]] = {row["key"]: {} for row in trials}
        for row in label_rows:
            if row["key"] in self.rows:
                self.rows[row["key"]][row["label"]] = row
        names = dict.fromkeys(label for rows in self.rows.values() for label in rows)
        self.support = {label: self._value(label, "support") for label in names}
        self.size = {label: self._value(label, "box_area") for label in names}
        self.labels = sorted(
            (label for label in names if self.support[label] > 0),
            key=lambda label: (-self.support[label], label),
        )

    def effect(self, labels: Sequence[str], arm: str, baseline: str) -> Effect:
        """Compare the arms by the mean AP of some labels."""
        runs = [
            {**row, "AP": _mean([self._AP(row["key"], label) for label in labels])}
            for row in self.trials
        ]
        arms = [baseline, arm]
        datasets = [self.first["dataset"]]
        return compare_arms(runs, baseline, "AP", arms, datasets=datasets, until=self.until)[1]

    def mean_AP(self, label: str, arm: str, seeds: Sequence[int]) -> float:
        """Return a label's AP in percent, mean over the complete runs of an arm with these seeds.

        It is nan where there is no such run.
        """
        return _mean(
            [
                self.rows[row["key"]][label]["AP"]
                for row in self.trials
                if row["arm"] == arm and row["seed"] in seeds and row["status"] == "complete"
            ]
        )

    def _AP(self, key: str, label: str) -> float | None:
        return self.rows[key].get(label, {}).get("AP")

    def _value(self, label: str, column: str) -> float:
        values = [rows[label].get(column) for rows in self.rows.values() if label in rows]
        return max((v for v in values if v is not None and math.isfinite(v)), default=math.nan)


def _label_gains(
    table: _LabelTable,
    effects: Mapping[str, Effect],
    thirds: Mapping[str, Mapping[str, Sequence[str]]],
    baseline: str,
) -> tuple[LabelGain, ...]:
    """Correct the labels' effects by Benjamini and Hochberg, and add the labels' properties."""
    group_of = {
        variable: {label: name for name, members in by_name.items() for label in members}
        for variable, by_name in thirds.items()
    }
    p_corrected = benjamini_hochberg_of_tested(effect.p for effect in effects.values())
    return tuple(
        LabelGain(
            label=label,
            support=table.support[label],
            size=table.size[label],
            frequency_group=group_of["frequency"].get(label, ""),
            size_group=group_of["size"].get(label, ""),
            baseline_AP=table.mean_AP(label, baseline, effect.pairs),
            effect=effect if math.isnan(p) else with_verdict(effect, p),
        )
        for (label, effect), p in zip(effects.items(), p_corrected, strict=True)
    )


def _with_holm(groups: Sequence[LabelGroup]) -> tuple[LabelGroup, ...]:
    corrected = with_holm([group.effect for group in groups])
    return tuple(
        replace(group, effect=effect) for group, effect in zip(groups, corrected, strict=True)
    )


def _mean(values: Sequence[float | None]) -> float:
    """Average; nan where a value is missing, so that a mean is always over the same labels."""
    if not values:
        return math.nan
    return float(np.mean([math.nan if value is None else value for value in values]))


def _thirds(
    variable: str, values: Mapping[str, float], labels: Sequence[str]
) -> dict[str, list[str]]:
    """Split labels into three groups of equal size, from low to high.

    There are none where too few labels have a value.
    """
    ordered = sorted(
        (label for label in labels if math.isfinite(values[label])),
        key=lambda label: (values[label], label),
    )
    if len(ordered) < MIN_LABELS:
        return {}
    return {
        name: [str(label) for label in part]
        for name, part in zip(GROUP_NAMES[variable], np.array_split(ordered, 3), strict=True)
    }
