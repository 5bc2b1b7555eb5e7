"""An ablation as one value: arms x seeds x data sets, and the runs that it comes to. No Ray here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sadcl.config import Config
from sadcl.errors import UserError
from sadcl.search.trial import DataContext, Trial, arm_config, check_arguments, check_name

OF_THE_STUDY = {"seed": "seeds", "data.name": "base", "model.start": "base"}
"""Fields that no arm may change, and where they belong."""


@dataclass(frozen=True)
class Ablation:
    """A comparison: every arm over the same seeds on the same data.

    Arms share one stage 1 for each seed wherever it does not depend on what they change; an arm whose ``stage2.epochs`` is
    0 *is* that stage 1. The held-out images choose each run's epoch; its test images are looked at once and choose nothing.

    Args:
        name: of the study; at demo scale ``-demo`` is added.
        base: the full-scale configuration, or one for each data set, by ``data.name``.
        arms: name -> what it changes in the base, by field; at least two, the first line of the table first.
        baseline: the arm that the others are compared with.
        seeds: of the runs, each of which is one pair in a comparison.
        demo: the demo-scale configuration, or one for each demo data set, by any name.
        question: what it is to answer, in a sentence.
        marks: arm -> the components that it has, for the ticks of the table.
        published: arm -> data set -> the paper's figure.

    Raises:
        UserError: for an arm that changes an unknown field, two arms that are the same setting, no seed, or a baseline that
            is no arm.
    """

    name: str
    base: Config | Mapping[str, Config]
    arms: Mapping[str, Mapping[str, Any]]
    baseline: str
    seeds: tuple[int, ...] = (0, 1, 2)
    demo: Config | Mapping[str, Config] | None = None
    question: str = ""
    marks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __new__(cls, *args: Any, **given: Any) -> Ablation:
        """A mistyped argument is a user's mistake like a mistyped field."""
        check_arguments(cls, given, cls.__dataclass_fields__)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.arms) < 2 or self.baseline not in self.arms:
            raise UserError(
                f"An ablation compares arms with its baseline {self.baseline!r}, but has {', '.join(self.arms) or 'none'}."
            )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds must be at least one, and differ, but got {self.seeds}.")
        for what in ("marks", "published"):
            if unknown := [arm for arm in getattr(self, what) if arm not in self.arms]:
                raise UserError(
                    f"{what} names the arm {unknown[0]!r}, but there are {', '.join(self.arms)}."
                )
        for scale in ("full", "demo"):
            for name, base in self.bases(scale).items():
                self._check(name, base)

    def _check(self, name: str, base: Config) -> None:
        known: dict[str, str] = {}
        for arm, changes in self.arms.items():
            if misplaced := [f for f in changes if f in OF_THE_STUDY]:
                raise UserError(
                    f"The arm {arm!r} sets {misplaced[0]}, which belongs to the {OF_THE_STUDY[misplaced[0]]}."
                )
            digest = arm_config(base, changes).digest()
            if digest in known:
                raise UserError(
                    f"The arms {known[digest]!r} and {arm!r} are the same setting on {name}: {dict(changes)}."
                )
            known[digest] = arm
        for seed in self.seeds:
            base.override({"seed": seed})

    def bases(self, scale: str) -> dict[str, Config]:
        """The configurations by data set; at demo scale none where there is no demo."""
        of = self.base if scale == "full" else self.demo
        if of is None:
            return {}
        return {of.data.name: of} if isinstance(of, Config) else dict(of)


@dataclass(frozen=True)
class AblationPlan:
    """The runs of an ablation at one scale, on the data sets that are there.

    Attributes:
        grounds: by concrete data set.
    """

    ablation: Ablation
    scale: str
    contexts: Mapping[str, DataContext]

    @property
    def study(self) -> str:
        return self.ablation.name if self.scale == "full" else f"{self.ablation.name}-demo"

    def identity(self) -> dict[str, Any]:
        """What makes two studies of one name the same; arms and data sets may be added, seeds are counted in pairs."""
        return {
            "name": self.study,
            "scale": self.scale,
            "datasets": {name: context.identity() for name, context in self.contexts.items()},
            "arms": {arm: dict(changes) for arm, changes in self.ablation.arms.items()},
        }

    def about(self) -> dict[str, Any]:
        """What a reader of the tables has to know besides."""
        value = self.ablation
        return {
            "kind": "ablation",
            "question": value.question,
            "baseline": value.baseline,
            "order": list(value.arms),
            "seeds": list(value.seeds),
            "marks": {arm: list(marks) for arm, marks in value.marks.items()},
            "published": {arm: dict(figures) for arm, figures in value.published.items()},
        }

    def trials(self, dataset: str) -> list[Trial]:
        """The runs on a data set, seed by seed, so that pairs are complete as early as they can be."""
        context = self.contexts[dataset]
        return [
            context.trial("arm", arm, arm_config(context.base, changes).override({"seed": seed}))
            for seed in self.ablation.seeds
            for arm, changes in self.ablation.arms.items()
        ]

    def decided(self, rows: Sequence[Mapping[str, Any]] = ()) -> list[Trial]:
        """All runs, each stage 1 before those that start from it."""
        trials = [trial for dataset in self.contexts for trial in self.trials(dataset)]
        stages = [trial.stage1 for trial in trials if trial.stage1 is not None]
        return list({trial.key: trial for trial in (*stages, *trials)}.values())

    def answered(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether nothing is left to run."""
        return {row["key"] for row in rows if row["status"] != "running"} >= {
            trial.key for trial in self.decided()
        }

    def left(self, rows: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
        """Runs and epochs that are still to come."""
        ended = {row["key"] for row in rows if row["status"] != "running"}
        epochs = [trial.epochs for trial in self.decided() if trial.key not in ended]
        return len(epochs), sum(epochs)

    def lines(self) -> Iterator[str]:
        """The plan in words."""
        for arm, changes in self.ablation.arms.items():
            beside = " (the others are compared with it)" if arm == self.ablation.baseline else ""
            yield f"  {arm}{beside}: {', '.join(f'{k} = {v}' for k, v in changes.items()) or 'the base as it is'}"
        seeds = ", ".join(map(str, self.ablation.seeds))
        runs = self.decided()
        shared = len({trial.stage1.key for trial in runs if trial.stage1 is not None})
        datasets = ", ".join(self.contexts)
        yield f"  {len(self.ablation.arms)} arms over seeds {seeds} on {datasets}: {len(runs)} runs, {shared} of them a stage 1"
