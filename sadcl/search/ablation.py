"""An ablation as one value: arms x seeds x data sets, and the plan of its runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from sadcl.config import Config
from sadcl.errors import UserError
from sadcl.search.plan import Rows, Work, ended_keys
from sadcl.search.trial import (
    DataContext,
    Phase,
    Trial,
    arm_config,
    check_arguments,
    check_name,
    study_name,
)
from sadcl.search.until import ArmSeeds, Until, arm_seeds, deciding_metric

STUDY_FIELDS = {"seed": "seeds", "data.name": "base", "model.start": "base"}
"""The fields that no arm may change, each with the argument of ``Ablation`` that it belongs to."""

Arms = Mapping[str, Mapping[str, Any]]
"""What each arm changes in the base, by the arm's name and by field."""


@dataclass(frozen=True)
class Ablation:
    """A comparison of arms, each over the same seeds on the same data.

    The arms share one stage 1 for each seed wherever it does not depend on what they change. An arm
    whose ``stage2.epochs`` is 0 *is* that stage 1. The held-out images choose the epoch of each
    run; its test images are looked at once and choose nothing.

    Args:
        name: the name of the study; at demo scale ``-demo`` is added.
        base: the full-scale configuration, or one for each data set, by ``data.name``.
        arms: what each arm changes in the base, by the arm's name and by field. There are at least
            two, in the order of the table.
        baseline: the arm that the others are compared with.
        seeds: the seeds of the runs. Two runs over one seed are a pair of the comparison. With
            :class:`~sadcl.search.until.Until`, seeds 1, 2, 3, ... until each difference is settled.
        demo: the demo-scale configuration, or one for each demo data set, by any name.
        question: the question that it answers, in a sentence.
        marks: the components that each arm has, for the ticks of the table.
        published: the paper's figure of each arm, by data set.
        references: the arm that an arm is compared with in the place of the baseline.
        costs: whether the table says what each arm costs too.
        demo_arms: what each arm changes at demo scale; None takes ``arms``.

    Raises:
        UserError: for an arm that changes an unknown field, two arms with the same setting, no
            seed, or a baseline or reference that is no arm.
    """

    name: str
    base: Config | Mapping[str, Config]
    arms: Arms
    baseline: str
    seeds: tuple[int, ...] | Until = (0, 1, 2)
    demo: Config | Mapping[str, Config] | None = None
    question: str = ""
    marks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    references: Mapping[str, str] = field(default_factory=dict)
    costs: bool = False
    demo_arms: Arms | None = None

    def __new__(cls, *args: Any, **options: Any) -> Ablation:
        """Refuse a mistyped argument before ``__init__`` raises its TypeError."""
        check_arguments(cls, options, cls.__dataclass_fields__)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        check_name(self.name)
        arms = ", ".join(self.arms)
        if len(self.arms) < 2 or self.baseline not in self.arms:
            raise UserError(
                f"An ablation compares arms with its baseline {self.baseline!r}, "
                f"but has {arms or 'none'}."
            )
        if not self.seed_numbers or len(set(self.seed_numbers)) < len(self.seed_numbers):
            raise UserError(
                f"seeds must hold at least one seed, and each once, but got {self.seeds}."
            )
        for arm, reference in self.references.items():
            if arm == self.baseline or reference not in self.arms or arm == reference:
                raise UserError(
                    f"references compares {arm!r} with {reference!r}: an arm other than the "
                    f"baseline {self.baseline!r} can be compared with another one of {arms}."
                )
        for argument in ("marks", "published", "references"):
            if unknown := [arm for arm in getattr(self, argument) if arm not in self.arms]:
                raise UserError(f"{argument} names the arm {unknown[0]!r}, but there are {arms}.")
        if odd := sorted({*self.arms} ^ {*self.arms_at("demo")}):
            raise UserError(f"arms and demo_arms must name the same arms, but not {odd[0]!r}.")
        for scale in ("full", "demo"):
            for name, base in self.bases(scale).items():
                self._check_arms(name, base, self.arms_at(scale))

    def _check_arms(self, dataset: str, base: Config, arms: Arms) -> None:
        """Check that every arm is a configuration of its own on a data set."""
        arm_by_digest: dict[str, str] = {}
        for arm, changes in arms.items():
            if misplaced := [f for f in changes if f in STUDY_FIELDS]:
                raise UserError(
                    f"The arm {arm!r} sets {misplaced[0]}, which belongs to the "
                    f"{STUDY_FIELDS[misplaced[0]]}."
                )
            digest = arm_config(base, changes).digest()
            if digest in arm_by_digest:
                raise UserError(
                    f"The arms {arm_by_digest[digest]!r} and {arm!r} are the same setting on "
                    f"{dataset}: {dict(changes)}."
                )
            arm_by_digest[digest] = arm
        for seed in self.seed_numbers:
            base.override({"seed": seed})

    @property
    def until(self) -> Until | None:
        """When an arm has enough seeds; None where the seeds are fixed."""
        return self.seeds if isinstance(self.seeds, Until) else None

    @property
    def seed_numbers(self) -> Sequence[int]:
        """All seeds that may run, in their order."""
        return self.seeds.seeds if isinstance(self.seeds, Until) else tuple(self.seeds)

    @property
    def compared(self) -> dict[str, str]:
        """The arm that each arm but the baseline is compared with."""
        return {
            arm: self.references.get(arm, self.baseline)
            for arm in self.arms
            if arm != self.baseline
        }

    def arms_at(self, scale: str) -> Arms:
        """Return what each arm changes at a scale."""
        return self.arms if scale == "full" or self.demo_arms is None else self.demo_arms

    def bases(self, scale: str) -> dict[str, Config]:
        """Return the configurations at a scale by data set; none if there is no demo."""
        base = self.base if scale == "full" else self.demo
        if base is None:
            return {}
        return {base.data.name: base} if isinstance(base, Config) else dict(base)


@dataclass(frozen=True)
class AblationPlan:
    """The runs of an ablation at one scale, on the data sets that are present.

    Attributes:
        ablation: the ablation.
        scale: ``demo`` or ``full``.
        contexts: what the runs share, by concrete data set.
        costs: parameters and operations of the network of each arm, by data set and arm.
    """

    ablation: Ablation
    scale: str
    contexts: Mapping[str, DataContext]
    costs: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)

    @property
    def study(self) -> str:
        """The name of the study."""
        datasets = [context.base.data.name for context in self.contexts.values()]
        return study_name(self.ablation.name, self.scale, datasets)

    @property
    def arms(self) -> Arms:
        """What each arm changes, in the order of the table."""
        arms = self.ablation.arms_at(self.scale)
        return {arm: arms[arm] for arm in self.ablation.arms}

    @property
    def fields(self) -> list[str]:
        """The fields of the configuration that any arm changes."""
        return list(dict.fromkeys(name for changes in self.arms.values() for name in changes))

    @property
    def image_counts(self) -> dict[str, dict[str, int]]:
        """The number of images by data set and split, as far as it is known."""
        return {n: dict(one.num_images) for n, one in self.contexts.items() if one.num_images}

    @property
    def sources(self) -> dict[str, str]:
        """Hash of each module of the user's that its runs import."""
        sources: dict[str, str] = {}
        for context in self.contexts.values():
            for changes in self.arms.values():
                sources |= arm_config(context.base, changes).sources
        return sources

    def identity(self) -> dict[str, Any]:
        """Return what makes two studies of one name the same study, as plain JSON.

        Arms and data sets may be added later, and seeds are compared in pairs.
        """
        return {
            "name": self.study,
            "scale": self.scale,
            "datasets": {name: context.identity() for name, context in self.contexts.items()},
            "arms": {arm: dict(changes) for arm, changes in self.arms.items()},
            **({"sources": self.sources} if self.sources else {}),
        }

    def description(self) -> dict[str, Any]:
        """Return what else a reader of the tables has to know, as plain JSON.

        It may change from one run of the study to the next.
        """
        ablation = self.ablation
        return {
            "kind": "ablation",
            "question": ablation.question,
            "baseline": ablation.baseline,
            "order": list(ablation.arms),
            "seeds": [] if ablation.until else list(ablation.seed_numbers),
            **({"until": ablation.until.to_json()} if ablation.until else {}),
            **({"images": self.image_counts} if self.image_counts else {}),
            "marks": {arm: list(marks) for arm, marks in ablation.marks.items()},
            "published": {arm: dict(figures) for arm, figures in ablation.published.items()},
            **({"references": dict(ablation.references)} if ablation.references else {}),
            **({"costs": self.costs} if self.costs else {}),
        }

    def trials(self, dataset: str, rows: Rows = ()) -> list[Trial]:
        """Return the runs on a data set, seed by seed: so pairs are complete early.

        Args:
            dataset: the data set.
            rows: what there is already. It decides where seeds are added until the differences are
                settled: then these are the runs that have ended and those that are needed now.
        """
        return self._trials_over(dataset, rows, "pending")

    def _trials_over(self, dataset: str, rows: Rows, which: str) -> list[Trial]:
        """Return the runs, with those that each arm needs now (``pending``) or may need."""
        until, ended = self.ablation.until, ended_keys(rows)
        wanted: dict[str, set[int]] = {arm: set() for arm in self.arms}
        if until is None:
            wanted = {arm: set(self.ablation.seed_numbers) for arm in self.arms}
        for arm, state in self.arm_seeds(dataset, rows).items() if until else ():
            wanted[arm] |= set(getattr(state, which))
            wanted[self.ablation.compared[arm]] |= set(getattr(state, which))
        trials = [
            trial
            for (arm, seed), trial in self._all_trials[dataset].items()
            if seed in wanted[arm] or trial.key in ended
        ]
        arms: dict[str, list[str]] = {}
        for trial in trials:
            if trial.stage1 is not None:
                arms.setdefault(trial.stage1.key, []).append(trial.arm)
        return [_with_served_arms(trial, arms) for trial in trials]

    def arm_seeds(self, dataset: str, rows: Rows) -> dict[str, ArmSeeds]:
        """Find out which seeds each arm still needs where they are added until it is settled."""
        ablation, trials = self.ablation, self._all_trials[dataset]
        assert ablation.until is not None
        by_key = {row["key"]: row for row in rows}
        ended = {key: by_key[key] for key in ended_keys(rows)}

        def row_of(arm: str, seed: int) -> Mapping[str, Any] | None:
            return ended.get(trials[arm, seed].key)

        keys = [trial.key for trial in trials.values()]
        metric = deciding_metric([ended[key] for key in keys if key in ended])
        family = len(ablation.compared)
        return {
            arm: arm_seeds(ablation.until, row_of, arm, reference, family, metric)
            for arm, reference in ablation.compared.items()
        }

    @cached_property
    def _all_trials(self) -> dict[str, dict[tuple[str, int], Trial]]:
        """Every run that there may be, by data set, arm and seed."""
        return {
            name: {
                (arm, seed): context.trial(
                    Phase.ARM, arm, arm_config(context.base, changes).override({"seed": seed})
                )
                for seed in self.ablation.seed_numbers
                for arm, changes in self.arms.items()
            }
            for name, context in self.contexts.items()
        }

    def planned_trials(self, rows: Rows = ()) -> list[Trial]:
        """Return all runs, each stage 1 before those that start from it.

        Where seeds are added until the differences are settled, these are the runs by now.
        """
        return _with_stage1(t for name in self.contexts for t in self.trials(name, rows))

    def is_complete(self, rows: Rows) -> bool:
        """Return whether nothing is left to run."""
        return ended_keys(rows) >= {trial.key for trial in self.planned_trials(rows)}

    def remaining_work(self, rows: Rows) -> Work:
        """Return the runs and epochs that are still to come, at most."""
        ended = ended_keys(rows)
        trials = _with_stage1(
            t for name in self.contexts for t in self._trials_over(name, rows, "open")
        )
        epochs = [trial.epochs for trial in trials if trial.key not in ended]
        return Work(len(epochs), sum(epochs))

    def trained_epochs(self, rows: Rows, before: set[str]) -> int:
        """Return the epochs of the runs that have ended, besides those that had ended before."""
        new = ended_keys(rows) - before
        return sum(trial.epochs for trial in self.planned_trials(rows) if trial.key in new)

    def least_runs(self, rows: Rows) -> int:
        """Return the number of runs that are still to come in any case."""
        ended = ended_keys(rows)
        return sum(trial.key not in ended for trial in self.planned_trials(rows))


def _with_stage1(trials: Iterable[Trial]) -> list[Trial]:
    """Return runs, and before them each stage 1 that they start from, every run once."""
    runs = list(trials)
    stages = [trial.stage1 for trial in runs if trial.stage1 is not None]
    return list({trial.key: trial for trial in (*stages, *runs)}.values())


def _with_served_arms(trial: Trial, arms: Mapping[str, Sequence[str]]) -> Trial:
    """Name, in a trial's stage 1, the arms that start from it; ``arms`` has them by its key."""
    if trial.stage1 is None:
        return trial
    first, *others = dict.fromkeys(arms[trial.stage1.key])
    serves = f"{first} + {len(others)} more" if others else first
    return replace(trial, stage1=replace(trial.stage1, serves=serves))
