"""AP by label on a study's page: the table of each data set, and its findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sadcl.reports.effect_text import SPLITS, arm_text
from sadcl.reports.label_gains import gains_of
from sadcl.reports.label_gains_text import gains_findings
from sadcl.reports.page.study import Row, StudyData, complete_runs, mean
from sadcl.search.ranking import is_finite
from sadcl.search.until import until_from_json

MAX_LABELS = 120
"""The largest number of labels of a table; of more labels, those that differ the most."""


@dataclass(frozen=True)
class LabelCell:
    """The AP of a label in an arm, in percent.

    Attributes:
        AP: mean over seeds.
        difference: from the first arm, mean over the seeds that both have.
        num_pairs: the number of these seeds; 0 for the first arm itself.
    """

    AP: float
    difference: float
    num_pairs: int


@dataclass(frozen=True)
class LabelLine:
    """A label with its number of images and its cell of each arm."""

    label: str
    support: float
    cells: tuple[LabelCell, ...]

    @property
    def largest_difference(self) -> float:
        return max((abs(cell.difference) for cell in self.cells if cell.num_pairs), default=0)


@dataclass(frozen=True)
class LabelTable:
    """The labels of a data set.

    Attributes:
        split: in words.
        arms: the first is the one that the others are compared with.
        lines: at most ``MAX_LABELS``, the most frequent first.
        num_labels: of the data set.
        largest_difference: of all labels, in points; never 0, because colours are scaled by it.
        findings: title and sentences for each arm but the first.
    """

    dataset: str
    split: str
    arms: tuple[str, ...]
    lines: tuple[LabelLine, ...]
    num_labels: int
    largest_difference: float
    findings: tuple[tuple[str, tuple[str, ...]], ...]


def label_tables(study: StudyData) -> list[LabelTable]:
    """Make the table of each data set that has APs by label."""
    tables = [_label_table(study, dataset) for dataset in study.datasets]
    return [table for table in tables if table is not None]


def _label_table(study: StudyData, dataset: str) -> LabelTable | None:
    keys = _keys_by_arm(study, dataset)
    rows = [
        row for by_seed in keys.values() for key in by_seed.values() for row in study.labels[key]
    ]
    split = "test" if any(row["split"] == "test" for row in rows) else "val"
    lines = _lines(study, keys, split)
    if not lines:
        return None
    selection = lines
    if len(lines) > MAX_LABELS:
        largest = sorted(lines, key=lambda line: -line.largest_difference)[:MAX_LABELS]
        selection = [line for line in lines if line in largest]
    return LabelTable(
        dataset=dataset,
        split=SPLITS[split],
        arms=tuple(keys),
        lines=tuple(selection),
        num_labels=len(lines),
        largest_difference=max(line.largest_difference for line in lines) or 1,
        findings=_findings(study, dataset, split, tuple(keys)),
    )


def _keys_by_arm(study: StudyData, dataset: str) -> dict[str, dict[int, str]]:
    """Return the complete runs that have APs by label, by arm and seed."""
    runs = {
        arm: [row for row in complete_runs(rows) if row["key"] in study.labels]
        for arm, rows in study.arms(dataset).items()
    }
    return {arm: {row["seed"]: row["key"] for row in rows} for arm, rows in runs.items() if rows}


def _lines(study: StudyData, keys: Mapping[str, Mapping[int, str]], split: str) -> list[LabelLine]:
    """Average over seeds, the most frequent label first."""
    APs: dict[str, dict[str, dict[int, float]]] = {arm: {} for arm in keys}
    support: dict[str, float] = {}
    for arm, by_seed in keys.items():
        for seed, key in by_seed.items():
            for row in study.labels[key]:
                if row["split"] == split and is_finite(row["AP"]):
                    APs[arm].setdefault(row["label"], {})[seed] = row["AP"]
                    support[row["label"]] = row["support"] or 0
    first = next(iter(keys), "")
    lines = []
    for label in sorted(support, key=lambda name: (-support[name], name)):
        reference = APs[first].get(label, {})
        cells = [_cell(APs[arm].get(label, {}), {} if arm == first else reference) for arm in keys]
        lines.append(LabelLine(label, support[label], tuple(cells)))
    return lines


def _cell(APs: Mapping[int, float], reference: Mapping[int, float]) -> LabelCell:
    """Average an arm's APs by seed, and their differences from the first arm's."""
    differences = [APs[seed] - reference[seed] for seed in APs if seed in reference]
    return LabelCell(mean(APs.values()), mean(differences), len(differences))


def _findings(
    study: StudyData, dataset: str, split: str, arms: Sequence[str]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """State what each arm gains compared with the first."""
    runs: dict[str, list[Row]] = {
        arm: [{**row, "arm": arm} for row in complete_runs(rows)]
        for arm, rows in study.arms(dataset).items()
    }
    first, *others = arms
    findings = []
    for arm in others:
        rows = [*runs[first], *runs[arm]]
        labels = [
            label
            for row in rows
            for label in study.labels.get(row["key"], ())
            if label["split"] == split
        ]
        until = until_from_json(study.description.get("until"))
        texts = gains_findings(gains_of(rows, labels, arm, first, split, until))
        sentences = tuple(text[0].upper() + text[1:] for text in texts)
        findings.append((f"{arm_text(arm)} compared with {arm_text(first)}", sentences))
    return tuple(findings)
