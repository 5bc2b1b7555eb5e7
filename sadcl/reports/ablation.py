"""An ablation as the tables have it: its arms, and what sets each apart from the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from sadcl.errors import UserError, did_you_mean
from sadcl.reports.statistics import Effect, compare_arms
from sadcl.results import store


@dataclass(frozen=True)
class AblationReport:
    """What a study compared, and what came of it.

    Attributes:
        arms: in the order of the table.
        marks: the components of an arm.
        published: figures of the paper by arm and data set; empty where ours are not to stand beside them.
        effects: by data set, and in each in the order of the arms.
        others: arms that have rows but are no longer in the study.
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
    others: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.name}: {self.question}" if self.question else self.name

    @property
    def split(self) -> str:
        return self.metric.partition("_")[0]

    @property
    def quantity(self) -> str:
        return self.metric.partition("_")[2]

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(effect.dataset for effect in self.effects))

    @property
    def components(self) -> tuple[str, ...]:
        """All that any arm has, as they come."""
        return tuple(dict.fromkeys(name for arm in self.arms for name in self.marks.get(arm, ())))

    def on(self, dataset: str) -> list[Effect]:
        return [effect for effect in self.effects if effect.dataset == dataset]


def ablation_report(
    root: str, study: str, baseline: str | None = None, metric: str = "test_mAP"
) -> AblationReport:
    """Read a study and compare its arms.

    Args:
        baseline: another arm than the study's own to compare with.
        metric: a column in percent of the trials table, ``test_...`` or ``val_...``.

    Raises:
        UserError: for an unknown study, arm or metric, and for a study that is no ablation.
    """
    trials = store.read(root, "trials")
    described = store.recorded_studies(root)
    if study not in described:
        raise UserError(f"There is no study {study!r} here{did_you_mean(study, sorted(described))}")
    about = store.study_record(root, study)
    if about.get("kind") != "ablation":
        raise UserError(
            f"The study {study!r} is a search, not an ablation: `sadcl results top --study {study}` asks it."
        )
    arms = tuple(about["order"])
    baseline = about["baseline"] if baseline is None else baseline
    if baseline not in arms:
        raise UserError(
            f"The study {study!r} has no arm {baseline!r}{did_you_mean(baseline, arms)}"
        )
    metrics = [
        f.name for f in trials.schema if pa.types.is_floating(f.type) and _in_percent(f.name)
    ]
    if metric not in metrics:
        raise UserError(
            f"The trials have no metric {metric!r} in percent{did_you_mean(metric, metrics)}"
        )
    rows = [row for row in trials.to_pylist() if row["study"] == study and row["phase"] == "arm"]
    comparable = about["scale"] == "full" and metric == "test_mAP"
    return AblationReport(
        name=study,
        question=about["question"],
        scale=about["scale"],
        baseline=baseline,
        metric=metric,
        arms=arms,
        marks=about.get("marks") or {},
        published=(about.get("published") or {}) if comparable else {},
        effects=tuple(
            compare_arms(
                rows, baseline, metric, arms, about.get("seeds") or (), about.get("datasets") or ()
            )
        ),
        others=tuple(sorted({row["arm"] for row in rows} - set(arms))),
    )


def _in_percent(column: str) -> bool:
    return column.startswith(("test_", "val_")) and not column.endswith("_undefined")
