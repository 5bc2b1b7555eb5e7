"""What the tables have of a study, and how its rows are read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from sadcl.errors import UserError, did_you_mean
from sadcl.reports import ablation
from sadcl.reports.ablation import AblationReport
from sadcl.reports.statistics import compare_arms
from sadcl.results import store
from sadcl.search.ranking import chosen_trial, is_finite, ranked_trials

Row = Mapping[str, Any]
CONTROL, TUNED, BEST = (
    "stage 2 without contrasts",
    "the best setting",
    "best of the search, optimistic",
)


@dataclass(frozen=True)
class StudyData:
    """What the tables have of a study.

    Attributes:
        about: what ``studies/NAME.json`` says; empty where there is none.
        rows: of the trials table by start, with each stage 1 that they start from whoever trained it.
        epochs, labels: of those tables, by key.
    """

    root: str
    name: str
    about: Mapping[str, Any]
    rows: Sequence[Row]
    epochs: Mapping[str, Sequence[Row]]
    labels: Mapping[str, Sequence[Row]]

    @property
    def kind(self) -> str:
        """``search``, ``ablation``, or ``runs`` that nothing holds together."""
        kind: str | None = self.about.get("kind")
        return kind or ("search" if "space" in self.about or self.phase("search") else "runs")

    @property
    def full(self) -> bool:
        """Whether its figures may stand beside the paper's."""
        return (
            self.about.get("scale") or next((row["scale"] for row in self.rows), "full")
        ) == "full"

    @property
    def own(self) -> list[Row]:
        """The runs that the question is about: trials, arms, or all."""
        return {"search": self.phase("search"), "ablation": self.phase("arm")}.get(
            self.kind, list(self.rows)
        )

    @property
    def total(self) -> int | None:
        """How many of them there are to be, where that is known."""
        if self.kind == "ablation":
            return (
                math.prod(
                    len(self.about.get(part) or ()) for part in ("order", "seeds", "datasets")
                )
                or None
            )
        return self.about.get("trials")

    def phase(self, phase: str, arm: str | None = None) -> list[Row]:
        return [row for row in self.rows if row["phase"] == phase and arm in (None, row["arm"])]

    def chosen(self) -> Row | None:
        """The trial whose setting the search ended with: of those it confirmed that with the best mean, else the best."""
        return chosen_trial(self.rows, self.about)

    def best(self) -> Row | None:
        """A run of the setting that is the best by held-out mAP: the search's choice, else of the best arm on average."""
        runs = ranked_trials(self.own)
        by_arm: dict[tuple[str, str], list[float]] = {}
        for row in runs:
            by_arm.setdefault((row["arm"], row["dataset"]), []).append(row["val_mAP"])
        return self.chosen() or max(
            runs, key=lambda row: mean(by_arm[row["arm"], row["dataset"]]), default=None
        )

    def arms(self, dataset: str | None = None) -> dict[str, list[Row]]:
        """The runs that are compared, by what sets them apart, the baseline first; whatever became of them."""
        chosen = self.chosen()
        if self.kind == "ablation":
            first = self.about["baseline"]
            found = {
                arm: self.phase("arm", arm)
                for arm in (first, *(a for a in self.about["order"] if a != first))
            }
        elif self.kind == "search":
            tuned = [
                row
                for row in self.phase("confirm", "tuned")
                if chosen and row["params"] == chosen["params"]
            ]
            found = {CONTROL: self.phase("confirm", "stage2"), TUNED: tuned}
            if not count_ended(tuned):
                found = {
                    CONTROL: self.phase("baseline", "stage2"),
                    BEST: [chosen] if chosen else [],
                }
        else:
            found = {
                arm: [row for row in self.rows if row["arm"] == arm]
                for arm in sorted({r["arm"] for r in self.rows})
            }
        return {
            arm: [row for row in rows if dataset in (None, row["dataset"])]
            for arm, rows in found.items()
        }

    def looks(self, dataset: str | None = None) -> dict[str, list[Row]]:
        """What learning curves show: the arms, and what they start from or stand beside."""
        found = self.arms(dataset)
        if CONTROL in found:
            found[CONTROL] = list(
                {r["key"]: r for r in (*found[CONTROL], *self.phase("baseline", "stage2"))}.values()
            )
        beside = {
            "stage 1, which others start from": self.phase("stage1"),
            "pooled baseline": self.phase("baseline", "baseline"),
        }
        return found | (
            {
                name: [r for r in rows if dataset in (None, r["dataset"])]
                for name, rows in beside.items()
                if rows
            }
        )

    def comparison(self) -> AblationReport | None:
        """An ablation's arms, or a search's setting against the control over the seeds of the confirmation."""
        arms = self.arms()
        tested = any(is_finite(row["test_mAP"]) for rows in arms.values() for row in rows)
        metric = "test_mAP" if tested else "val_mAP"
        if self.kind == "ablation":
            return ablation.ablation_report(self.root, self.name, metric=metric)
        if TUNED not in arms:
            return None
        rows = [{**row, "arm": arm} for arm, runs in arms.items() for row in runs]
        effects = compare_arms(rows, CONTROL, metric, (CONTROL, TUNED))
        scale = "full" if self.full else "demo"
        return AblationReport(
            self.name, "", scale, CONTROL, metric, (CONTROL, TUNED), {}, {}, tuple(effects)
        )

    def curve(self, row: Row, stage: int) -> list[tuple[int, float]]:
        """Held-out mAP by epoch."""
        epochs = sorted(
            (e for e in self.epochs.get(row["key"], ()) if e["stage"] == stage),
            key=lambda e: e["epoch"],
        )
        return [(e["epoch"], e["val_mAP"]) for e in epochs if is_finite(e["val_mAP"])]

    def value(self, row: Row) -> float:
        """A trial's held-out mAP, or the last that it reached; nan for one that failed."""
        if is_finite(row["val_mAP"]):
            return float(row["val_mAP"])
        reached = [*self.curve(row, 1), *self.curve(row, 2)]
        return reached[-1][1] if reached and row["status"] != "failed" else math.nan


def study_data(root: str, name: str) -> StudyData:
    """Read what the tables have of a study.

    Raises:
        UserError: for a study that has neither rows nor a description, with the nearest name.
    """
    trials = store.read(root, "trials")
    known = sorted({*store.recorded_studies(root), *filter(None, trials["study"].to_pylist())})
    if name not in known:
        raise UserError(f"There is no study {name!r} here{did_you_mean(name, known)}")
    about = store.study_record(root, name)
    mine = trials.filter(pc.equal(trials["study"], name))
    starts = pc.is_in(trials["key"], mine["stage1_key"].combine_chunks().drop_null())
    rows = (
        trials.filter(pc.or_(pc.equal(trials["study"], name).fill_null(False), starts))
        .sort_by("started")
        .to_pylist()
    )
    keys = [row["key"] for row in rows]
    found: list[dict[str, list[Row]]] = []
    for table in ("epochs", "labels"):
        by_key: dict[str, list[Row]] = {}
        for row in store.read(root, table, keys=keys).to_pylist():
            by_key.setdefault(row["key"], []).append(row)
        found.append(by_key)
    return StudyData(root, name, about, rows, *found)


def count_ended(rows: Iterable[Row]) -> list[Row]:
    """Those that are complete and have a figure."""
    return [
        r
        for r in rows
        if r["status"] == "complete" and (is_finite(r["val_mAP"]) or is_finite(r["test_mAP"]))
    ]


def flat(row: Row) -> dict[str, Any]:
    """A run's configuration by dotted field."""

    def walk(tree: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
        for name, value in tree.items():
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value

    return dict(walk(json.loads(row["config"] or "{}"), ""))


def settings(row: Row) -> dict[str, Any]:
    """What the search set."""
    found: dict[str, Any] = json.loads(row["params"] or "{}")
    return found


def title(row: Row) -> str:
    """A run in a few words: an arm by its name, a trial of a search by the end of its key."""
    if row["phase"] == "search":
        return f"trial {row['key'][-6:]}"
    return f"{row['arm'] if row['phase'] in ('arm', row['arm']) else row['phase'] + ' ' + row['arm']}, seed {row['seed']}"


def mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values) if values else math.nan


def plain(text: str) -> str:
    """Without the characters that HTML and SVG cannot hold."""
    return re.sub(
        r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]",
        "\N{REPLACEMENT CHARACTER}",
        text,
    )
