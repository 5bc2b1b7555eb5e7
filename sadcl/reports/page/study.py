"""What the tables have about a study, and how its rows are read."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from sadcl.errors import UserError, did_you_mean
from sadcl.reports.ablation import AblationReport, ablation_report
from sadcl.reports.statistics import compare_arms
from sadcl.results import store
from sadcl.search.ranking import chosen_trial, is_finite, ranked_trials
from sadcl.search.trial import short_id

Row = Mapping[str, Any]
TUNED, BEST_TRIAL = "the best setting", "best trial of the search (optimistic)"


@dataclass(frozen=True)
class StudyData:
    """What the tables have about a study.

    Attributes:
        description: the content of ``studies/NAME.json``; empty where there is no such file.
        rows: of the trials table, by start, with the stage 1 that they start from, even where
            another study trained it.
        epochs, labels: the rows of those tables, by key.
    """

    root: str
    name: str
    description: Mapping[str, Any]
    rows: Sequence[Row]
    epochs: Mapping[str, Sequence[Row]]
    labels: Mapping[str, Sequence[Row]]

    @property
    def kind(self) -> str:
        """``search``, ``ablation``, or ``runs`` that belong to neither."""
        kind: str | None = self.description.get("kind")
        if kind:
            return kind
        return "search" if "space" in self.description or self.phase("search") else "runs"

    @property
    def is_full_scale(self) -> bool:
        """Whether its figures may be compared with the paper's."""
        scale = self.description.get("scale")
        return (scale or next((row["scale"] for row in self.rows), "full")) == "full"

    @property
    def main_runs(self) -> list[Row]:
        """The runs that the question is about: the trials, the arms, or all."""
        phases = {"search": "search", "ablation": "arm"}
        return self.phase(phases[self.kind]) if self.kind in phases else list(self.rows)

    @property
    def planned(self) -> int | None:
        """The planned number of main runs; None where it is not known."""
        if self.kind == "ablation":
            parts = ("order", "seeds", "datasets")
            if self.description.get("until"):
                return None  # it depends on what the runs show
            return math.prod(len(self.description.get(part) or ()) for part in parts) or None
        return self.description.get("trials")

    @property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(row["dataset"] for row in self.rows))

    def phase(self, phase: str, arm: str | None = None) -> list[Row]:
        """Return the runs of a phase, or of one arm of it."""
        return [row for row in self.rows if row["phase"] == phase and arm in (None, row["arm"])]

    def chosen_run(self) -> Row | None:
        """Return the trial whose setting the search ended with.

        Of the confirmed settings, this is the one with the best mean, else the best trial.
        """
        return chosen_trial(self.rows, self.description)

    def best_run(self) -> Row | None:
        """Return a run of the best setting by held-out mAP.

        This is the search's choice, else a run of the arm that is the best on average.
        """
        runs = ranked_trials(self.main_runs)
        by_arm: dict[tuple[str, str], list[float]] = {}
        for row in runs:
            by_arm.setdefault((row["arm"], row["dataset"]), []).append(row["val_mAP"])
        return self.chosen_run() or max(
            runs, key=lambda row: mean(by_arm[row["arm"], row["dataset"]]), default=None
        )

    def arms(self, dataset: str | None = None) -> dict[str, list[Row]]:
        """Return the runs to compare by arm, the baseline first, whatever their status.

        Of a search, these are the confirmation runs of the control and of the best setting; as long
        as there are none, the control of the search and its best trial.
        """
        if self.kind == "ablation":
            baseline = self.description["baseline"]
            others = [arm for arm in self.description["order"] if arm != baseline]
            arms = {arm: self.phase("arm", arm) for arm in (baseline, *others)}
        elif self.kind == "search":
            arms = self._search_arms()
        else:
            names = sorted({row["arm"] for row in self.rows})
            arms = {arm: [row for row in self.rows if row["arm"] == arm] for arm in names}
        return {arm: _on(dataset, rows) for arm, rows in arms.items()}

    @functools.cached_property
    def control(self) -> str:
        """What the control of a search is."""
        runs = (*self.phase("baseline", "stage2"), *self.phase("confirm", "stage2"))
        configs = [json.loads(row["config"]) for row in runs if row["config"]]
        is_stage1 = any(not config["stage2"]["epochs"] for config in configs)
        return "the setting of the base" if is_stage1 else "stage 2 without contrasts"

    def _search_arms(self) -> dict[str, list[Row]]:
        chosen = self.chosen_run()
        tuned = [
            row
            for row in self.phase("confirm", "tuned")
            if chosen and row["params"] == chosen["params"]
        ]
        if complete_runs(tuned):
            return {self.control: self.phase("confirm", "stage2"), TUNED: tuned}
        control = self.phase("baseline", "stage2")
        return {self.control: control, BEST_TRIAL: [chosen] if chosen else []}

    def curve_groups(self, dataset: str | None = None) -> dict[str, list[Row]]:
        """Return the runs of the learning curves: the arms, and the other runs of the study."""
        groups = self.arms(dataset)
        if self.control in groups:
            runs = (*groups[self.control], *self.phase("baseline", "stage2"))
            groups[self.control] = list({row["key"]: row for row in runs}.values())
        others = {
            "stage 1, from which others start": self.phase("stage1"),
            "pooled baseline": self.phase("baseline", "baseline"),
        }
        return groups | {name: _on(dataset, rows) for name, rows in others.items() if rows}

    def comparison(self) -> AblationReport | None:
        """Compare an ablation's arms, or a search's setting with the control.

        Of a search, the comparison is over the seeds of the confirmation; None without them.
        """
        arms = self.arms()
        is_tested = any(is_finite(row["test_mAP"]) for rows in arms.values() for row in rows)
        metric = "test_mAP" if is_tested else "val_mAP"
        if self.kind == "ablation":
            return ablation_report(self.root, self.name, metric=metric)
        if TUNED not in arms:
            return None
        rows = [{**row, "arm": arm} for arm, runs in arms.items() for row in runs]
        effects = compare_arms(rows, self.control, metric, (self.control, TUNED))
        return AblationReport(
            name=self.name,
            question="",
            scale="full" if self.is_full_scale else "demo",
            baseline=self.control,
            metric=metric,
            arms=(self.control, TUNED),
            marks={},
            published={},
            effects=tuple(effects),
            num_images=self.description.get("images") or {},
        )

    def curve(self, row: Row, stage: int) -> list[tuple[int, float]]:
        """Return epoch and held-out mAP of a run's epochs in one stage."""
        epochs = sorted(
            (epoch for epoch in self.epochs.get(row["key"], ()) if epoch["stage"] == stage),
            key=lambda epoch: epoch["epoch"],
        )
        return [(e["epoch"], e["val_mAP"]) for e in epochs if is_finite(e["val_mAP"])]

    def held_out_mAP(self, row: Row) -> float:
        """Return a trial's held-out mAP, or the last that it reached; nan for a failed trial."""
        if is_finite(row["val_mAP"]):
            return float(row["val_mAP"])
        curve = [*self.curve(row, 1), *self.curve(row, 2)]
        return curve[-1][1] if curve and row["status"] != "failed" else math.nan


def study_data(root: str, name: str) -> StudyData:
    """Read what the tables have about a study.

    Raises:
        UserError: for a study that has neither rows nor a description, with the nearest name.
    """
    trials = store.read(root, "trials")
    names = sorted({*store.recorded_studies(root), *filter(None, trials["study"].to_pylist())})
    if name not in names:
        raise UserError(f"There is no study {name!r} here{did_you_mean(name, names)}")
    description = store.study_record(root, name)
    of_study = pc.equal(trials["study"], name)
    stage1_keys = trials.filter(of_study)["stage1_key"].combine_chunks().drop_null()
    is_stage1 = pc.is_in(trials["key"], stage1_keys)
    selection = pc.or_(of_study.fill_null(False), is_stage1)
    rows = trials.filter(selection).sort_by("started").to_pylist()
    keys = [row["key"] for row in rows]
    return StudyData(
        root,
        name,
        description,
        rows,
        epochs=_rows_by_key(root, "epochs", keys),
        labels=_rows_by_key(root, "labels", keys),
    )


def _rows_by_key(root: str, table: str, keys: Sequence[str]) -> dict[str, list[Row]]:
    by_key: dict[str, list[Row]] = {}
    for row in store.read(root, table, keys=keys).to_pylist():
        by_key.setdefault(row["key"], []).append(row)
    return by_key


def _on(dataset: str | None, rows: Iterable[Row]) -> list[Row]:
    """Return the runs on a data set; None takes all."""
    return [row for row in rows if dataset in (None, row["dataset"])]


def complete_runs(rows: Iterable[Row]) -> list[Row]:
    """Return the runs that are complete and have a held-out or a test mAP."""
    return [
        row
        for row in rows
        if row["status"] == "complete" and (is_finite(row["val_mAP"]) or is_finite(row["test_mAP"]))
    ]


def flat_config(row: Row) -> dict[str, Any]:
    """Return a run's configuration by dotted field."""
    return _flat_json(row["config"] or "{}")


@functools.lru_cache(maxsize=8192)
def _flat_json(text: str) -> dict[str, Any]:
    def walk(tree: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
        for name, value in tree.items():
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value

    return dict(walk(json.loads(text), ""))


def searched_settings(row: Row) -> dict[str, Any]:
    """Return what the search set for a trial, by field."""
    settings: dict[str, Any] = json.loads(row["params"] or "{}")
    return settings


def run_title(row: Row) -> str:
    """Name a run in a few words: a trial of a search by the end of its key, others by their arm."""
    if row["phase"] == "search":
        return f"trial {short_id(row['key'])}"
    arm = row["arm"] if row["phase"] in ("arm", row["arm"]) else f"{row['phase']} {row['arm']}"
    return f"{arm}, seed {row['seed']}"


def mean(values: Iterable[float]) -> float:
    """Average values; nan where there are none."""
    values = list(values)
    return math.fsum(values) / len(values) if values else math.nan


def printable(text: str) -> str:
    """Replace the characters that HTML and SVG cannot contain."""
    return re.sub(
        r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]",
        "\N{REPLACEMENT CHARACTER}",
        text,
    )
