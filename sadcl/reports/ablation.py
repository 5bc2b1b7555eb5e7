"""An ablation as the tables have it: its arms, and how each differs from the baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from sadcl.errors import UserError, did_you_mean
from sadcl.reports.arm_costs import ArmCost, arm_costs
from sadcl.reports.statistics import Effect, compare_arms
from sadcl.results import store
from sadcl.results.gradients import mean_gradient_shares
from sadcl.results.status import Status
from sadcl.search.until import ArmSeeds, Until, arm_seeds, deciding_metric, until_from_json


class Software(NamedTuple):
    """The version of this package that made a run, as far as its row has it.

    Attributes:
        version: of the package.
        code: the hash of the package's sources.
        revision: the git revision, with + where files differ from it.
    """

    version: str
    code: str
    revision: str


@dataclass(frozen=True)
class AblationReport:
    """The arms of a study and their effects.

    Attributes:
        arms: in the order of the table.
        marks: the components of each arm.
        published: the paper's figures by arm and data set; empty where ours must not be compared
            with them.
        effects: by data set, and for each data set in the order of ``arms``.
        removed_arms: arms that have rows but are no longer part of the study.
        software: the versions of this package that made the runs.
        gradient_shares: by data set and arm, how strongly each contrast pulls at the label features
            compared with the classification loss (:mod:`sadcl.results.gradients`).
        references: the arm that an arm is compared with in the place of the baseline.
        costs: by data set and arm, what it costs; empty where the study does not ask for it.
        until: how seeds are added until the differences are settled; None where they are fixed.
        former_bounds: the bounds by which they were added before, where these were changed.
        arm_seeds: by data set and arm, whether it needs further seeds; empty where seeds are fixed,
            and where the arms are compared with another baseline than the study's.
        num_images: the number of images by data set and split, as far as it is known.
    """

    name: str
    question: str
    scale: str
    baseline: str
    metric: str
    arms: tuple[str, ...]
    marks: Mapping[str, Sequence[str]]
    published: Mapping[str, Mapping[str, float]]
    effects: tuple[Effect, ...]
    removed_arms: tuple[str, ...] = ()
    software: tuple[Software, ...] = ()
    gradient_shares: Mapping[tuple[str, str], Mapping[str, float]] = field(default_factory=dict)
    references: Mapping[str, str] = field(default_factory=dict)
    costs: Mapping[tuple[str, str], ArmCost] = field(default_factory=dict)
    until: Until | None = None
    former_bounds: tuple[Until, ...] = ()
    arm_seeds: Mapping[tuple[str, str], ArmSeeds] = field(default_factory=dict)
    num_images: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.name}: {self.question}" if self.question else self.name

    @property
    def compared_with(self) -> str:
        """What the arms are compared with, in words."""
        return "the arm that each is compared with" if self.references else self.baseline

    @property
    def split(self) -> str:
        """``test`` or ``val``."""
        return self.metric.partition("_")[0]

    @property
    def quantity(self) -> str:
        """The metric without its split, for example ``mAP``."""
        return self.metric.partition("_")[2]

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(effect.dataset for effect in self.effects))

    @property
    def components(self) -> tuple[str, ...]:
        """The components of all arms, in order of first appearance."""
        return tuple(dict.fromkeys(name for arm in self.arms for name in self.marks.get(arm, ())))

    def on(self, dataset: str) -> list[Effect]:
        """Return the effects on one data set."""
        return [effect for effect in self.effects if effect.dataset == dataset]


def ablation_report(
    root: str, study: str, baseline: str | None = None, metric: str = "test_mAP"
) -> AblationReport:
    """Read an ablation from a storage and compare its arms.

    Args:
        root: the storage.
        study: the name of the study.
        baseline: the arm to compare all others with; None takes the study's own baseline, and the
            references that take its place for some arms.
        metric: a column of the trials table in percent, ``test_...`` or ``val_...``.

    Raises:
        UserError: for an unknown study, arm or metric, and for a study that is not an ablation.
    """
    trials = store.read(root, "trials")
    description = _ablation_description(root, study)
    arms = tuple(description["order"])
    references = (description.get("references") or {}) if baseline is None else {}
    until = until_from_json(description.get("until"))
    is_own = baseline in (None, description["baseline"])
    baseline = description["baseline"] if baseline is None else baseline
    if baseline not in arms:
        raise UserError(
            f"The study {study!r} has no arm {baseline!r}{did_you_mean(baseline, arms)}"
        )
    metrics = [
        field.name
        for field in trials.schema
        if pa.types.is_floating(field.type) and _is_in_percent(field.name)
    ]
    if metric not in metrics:
        raise UserError(
            f"The trials have no metric {metric!r} in percent{did_you_mean(metric, metrics)}"
        )
    by_key = {row["key"]: row for row in trials.to_pylist()}
    rows = [row for row in by_key.values() if row["study"] == study and row["phase"] == "arm"]
    stages1 = {row["stage1_key"]: by_key.get(row["stage1_key"], row) for row in rows}
    is_comparable = description["scale"] == "full" and metric == "test_mAP"
    seeds, datasets = description.get("seeds") or (), description.get("datasets") or ()
    effects = compare_arms(rows, baseline, metric, arms, seeds, datasets, references, until)
    return AblationReport(
        name=study,
        question=description["question"],
        scale=description["scale"],
        baseline=baseline,
        metric=metric,
        arms=arms,
        marks=description.get("marks") or {},
        published=(description.get("published") or {}) if is_comparable else {},
        effects=tuple(effects),
        removed_arms=tuple(sorted({row["arm"] for row in rows} - set(arms))),
        software=software_of(row for row in rows if row["arm"] in arms),
        gradient_shares=_gradient_shares(root, [row for row in rows if row["arm"] in arms]),
        references=references,
        costs=arm_costs(description.get("costs") or {}, rows, stages1),
        until=until,
        former_bounds=tuple(Until(**bounds) for bounds in description.get("former_until", ())),
        arm_seeds=_arm_seeds(until, effects, rows) if until and is_own else {},
        num_images=description.get("images") or {},
    )


def _arm_seeds(
    until: Until, effects: Sequence[Effect], rows: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, str], ArmSeeds]:
    """Find out how far each arm is, as the study itself does."""
    ended = [row for row in rows if row["status"] != Status.RUNNING]
    states = {}
    for dataset in dict.fromkeys(effect.dataset for effect in effects):
        by_run = {(row["arm"], row["seed"]): row for row in ended if row["dataset"] == dataset}
        metric = deciding_metric(list(by_run.values()))
        compared = [e for e in effects if e.dataset == dataset and e.reference]
        for effect in compared:
            states[dataset, effect.arm] = arm_seeds(
                until,
                lambda arm, seed, runs=by_run: runs.get((arm, seed)),  # type: ignore[misc]
                effect.arm,
                effect.reference,
                len(compared),
                metric,
            )
    return states


def _gradient_shares(
    root: str, rows: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, str], dict[str, float]]:
    keys: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        keys.setdefault((row["dataset"], row["arm"]), []).append(row["key"])
    shares = {place: mean_gradient_shares(root, keys[place]) for place in keys}
    return {place: share for place, share in shares.items() if share}


def software_of(rows: Iterable[Mapping[str, Any]]) -> tuple[Software, ...]:
    """Return the distinct versions of this package that made these rows, in their order."""
    versions = dict.fromkeys(
        Software(*(row.get(column) or "" for column in ("sadcl", "code", "revision")))
        for row in rows
    )
    return tuple(version for version in versions if any(version))


def _ablation_description(root: str, study: str) -> Mapping[str, Any]:
    """Read the description of a study that must be an ablation."""
    names = store.recorded_studies(root)
    if study not in names:
        raise UserError(f"There is no study {study!r} here{did_you_mean(study, sorted(names))}")
    description = store.study_record(root, study)
    if description.get("kind") != "ablation":
        raise UserError(
            f"The study {study!r} is a search, not an ablation: use `sadcl results top {study}`."
        )
    return description


def _is_in_percent(column: str) -> bool:
    return column.startswith(("test_", "val_")) and not column.endswith("_undefined")
