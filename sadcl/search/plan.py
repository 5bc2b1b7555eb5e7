"""A search as one value: its question, its base, its space, its budget; and the trials that it comes to. No Ray here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

from sadcl.config import Config
from sadcl.errors import UserError
from sadcl.search.ranking import best_trials, winning_trial
from sadcl.search.space import (
    Choice,
    Space,
    When,
    bounds,
    check,
    check_setting,
    describe,
    every,
    setting_of,
)
from sadcl.search.stopping import Stopping
from sadcl.search.trial import DataContext, Trial, arm_config, check_arguments, check_name

SAMPLERS = ("tpe", "random", "cmaes", "gp", "nsga2")
OBJECTIVES = {"val_mAP": "max", "seconds": "min", "memory_mb": "min"}
"""Columns of the trials table that a search can go by, and which way."""
MOST = 10_000
"""Settings up to which a space without a ``Float`` is counted."""
BASELINES: dict[str, dict[str, Any]] = {
    "baseline": {"model.arch": "pooled"},
    "stage2": {"loss.sample_weight": 0.0, "loss.prototype_weight": 0.0},
}
"""The pooled network trained as long as both stages, and the control: stage 2 without contrasts."""


@dataclass(frozen=True)
class Search:
    """A study: a shared stage 1, baselines, trials, a confirmation over fresh seeds, and one final run.

    Args:
        name: of the study; at demo scale ``-demo`` is added.
        question: what it is to answer, in a sentence.
        base: the full-scale configuration.
        demo: the demo-scale configuration.
        space: fields that the search sets, at full scale.
        demo_space: the same at demo scale; None takes ``space``.
        trials, demo_trials: settings to try, whatever becomes of them.
        max_epochs: once the search's trials have trained so many epochs, no further one starts.
        max_hours: the same for the hours that they have trained, summed over trials.
        sampler: ``tpe``, ``random``, ``cmaes`` (numbers only), ``gp`` or ``nsga2``.
        stopping: ``ASHA`` or ``Median``; None trains every trial to its end.
        objectives: ``val_mAP`` first; with ``seconds`` or ``memory_mb`` beside it the search looks for the front of both.
        recipe_first: the first trial is the base as it is, where the space holds it.
        start_with: settings that are tried next.
        baselines: arm -> overrides, to stand beside the tuned setting; the arm ``stage2`` is the control, which is
            trained over ``confirm_seeds`` too.
        confirm_top: settings that are trained again over ``confirm_seeds``, best first.
        confirm_seeds: seeds that the search does not use.
        published: the paper's figure on the test images, for the summary.

    Raises:
        UserError: for a field, value, bound, budget or seed that is not possible, naming it.
    """

    name: str
    question: str
    base: Config
    demo: Config
    space: Space
    demo_space: Space | None = None
    trials: int = 40
    demo_trials: int = 8
    max_epochs: int | None = None
    max_hours: float | None = None
    sampler: str = "tpe"
    stopping: Stopping | None = None
    objectives: tuple[str, ...] = ("val_mAP",)
    recipe_first: bool = True
    start_with: tuple[Mapping[str, Any], ...] = ()
    baselines: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: BASELINES)
    confirm_top: int = 1
    confirm_seeds: tuple[int, ...] = (1001, 1002)
    published: float | None = None

    def __new__(cls, *args: Any, **given: Any) -> Search:
        """A mistyped argument is a user's mistake like a mistyped field."""
        check_arguments(cls, given, cls.__dataclass_fields__)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        check_name(self.name)
        self._check_method()
        for scale in ("full", "demo"):
            base = self.config(scale)
            if any(
                "model.start" in fields
                for fields in (self.space_at(scale), *self.baselines.values())
            ):
                raise UserError(
                    "model.start belongs to the base of a study, whose runs all start from one checkpoint."
                )
            check(self.space_at(scale), base)
            for setting in self.start_at(scale):
                check_setting(self.space_at(scale), setting, base)
            for changes in self.baselines.values():
                arm_config(base, changes)
            if base.data.holdout == 0:
                raise UserError(
                    "A search needs held-out images to choose by: data.holdout must be above 0."
                )
            if base.seed in self.confirm_seeds:
                raise UserError(
                    f"confirm_seeds {self.confirm_seeds} must not hold the search's own seed {base.seed}."
                )
        if min(self.trials, self.demo_trials) < 1 or not 1 <= self.confirm_top <= self.demo_trials:
            raise UserError(
                f"trials >= 1 and 1 <= confirm_top <= trials must hold, but got trials={self.trials}, "
                f"demo_trials={self.demo_trials}, confirm_top={self.confirm_top}."
            )
        if len(set(self.confirm_seeds)) < len(self.confirm_seeds) or not self.confirm_seeds:
            raise UserError(
                f"confirm_seeds must be at least one, and differ, but got {self.confirm_seeds}."
            )

        if self.max_epochs is not None and self.max_epochs < 1:
            raise UserError(f"max_epochs >= 1 must hold, but got {self.max_epochs}.")
        if self.max_hours is not None and not self.max_hours > 0:
            raise UserError(f"max_hours > 0 must hold, but got {self.max_hours}.")

    def _check_method(self) -> None:
        if self.sampler not in SAMPLERS:
            raise UserError(
                f"sampler must be one of {', '.join(SAMPLERS)}, but got {self.sampler!r}."
            )
        kinds = {type(d) for space in (self.space, self.demo_space or {}) for d in space.values()}
        if self.sampler == "cmaes" and kinds & {Choice, When}:
            raise UserError(
                "sampler = 'cmaes' searches numbers only, but the space has a Choice or a When: take 'tpe'."
            )
        if self.sampler == "gp" and When in kinds:
            raise UserError(
                "sampler = 'gp' knows no conditional fields, but the space has a When: take 'tpe'."
            )
        unknown = [name for name in self.objectives if name not in OBJECTIVES]
        if (
            unknown
            or self.objectives[:1] != ("val_mAP",)
            or len(set(self.objectives)) < len(self.objectives)
        ):
            raise UserError(
                f"objectives must be val_mAP first, then any of {', '.join(OBJECTIVES)}, but got {self.objectives}."
            )
        if len(self.objectives) > 1 and (self.stopping is not None or self.sampler == "cmaes"):
            raise UserError(
                f"{self.stopping or 'cmaes'} goes by one objective, but there are {self.objectives}."
            )

    def config(self, scale: str) -> Config:
        return self.base if scale == "full" else self.demo

    def start_at(self, scale: str) -> tuple[Mapping[str, Any], ...]:
        """Settings to try first."""
        own = setting_of(self.config(scale), self.space_at(scale)) if self.recipe_first else {}
        given = self.start_with if scale == "full" or self.demo_space is None else ()
        return tuple(setting for setting in (own, *given) if setting)

    def space_at(self, scale: str) -> Space:
        return self.space if scale == "full" or self.demo_space is None else self.demo_space


@dataclass(frozen=True)
class Plan:
    """The trials of a search at one scale, on one data set.

    Attributes:
        search: what to find out.
        scale: ``demo`` or ``full``.
        base: the configuration at that scale, with the concrete data set.
        total: settings that the whole study tries.
        digest: of the data, part held out.
        whole_digest: of the data with nothing held out, which the final run trains on.
        start: digest of the checkpoint ``model.start``, where there is one.
        warm: settings that other studies have found, tried after those that the search starts with.
    """

    search: Search
    scale: str
    base: Config
    total: int
    digest: str
    whole_digest: str
    start: str = ""
    warm: tuple[Mapping[str, Any], ...] = ()

    @property
    def study(self) -> str:
        return self.search.name if self.scale == "full" else f"{self.search.name}-demo"

    @property
    def context(self) -> DataContext:
        return DataContext(self.study, self.base, self.digest, self.whole_digest, self.start)

    def identity(self) -> dict[str, Any]:
        """What makes two studies of one name the same study."""
        space = describe(self.search.space_at(self.scale))
        return {"name": self.study, "scale": self.scale, **self.context.identity(), "space": space}

    def about(self) -> dict[str, Any]:
        """What a reader of the tables has to know besides; it may change."""
        value = self.search
        return {
            "kind": "search",
            "question": value.question,
            "trials": min(self.total, self.settings or self.total),
            "sampler": value.sampler,
            "stopping": str(value.stopping) if value.stopping is not None else None,
            "objectives": list(value.objectives),
            "confirm_top": value.confirm_top,
            "confirm_seeds": list(value.confirm_seeds),
            "published": value.published,
        }

    def stage1(self, config: Config) -> Trial | None:
        return self.context.stage1(config)

    def baselines(self) -> list[Trial]:
        return [
            self._trial("baseline", arm, arm_config(self.base, changes))
            for arm, changes in self.search.baselines.items()
        ]

    def try_out(self, params: Mapping[str, Any]) -> Trial:
        """A trial of the search."""
        return self._trial("search", "tuned", self.base.override(params), params)

    def controls(self) -> list[Trial]:
        """The control over the fresh seeds."""
        if "stage2" not in self.search.baselines:
            return []
        control = arm_config(self.base, self.search.baselines["stage2"])
        return [
            self._trial("confirm", "stage2", control.override({"seed": seed}))
            for seed in self.search.confirm_seeds
        ]

    def confirm(self, params: Mapping[str, Any]) -> list[Trial]:
        """A setting over the fresh seeds."""
        seeds = self.search.confirm_seeds
        return [
            self._trial("confirm", "tuned", self.base.override({**params, "seed": seed}), params)
            for seed in seeds
        ]

    def final(
        self, params: Mapping[str, Any], stage1: Mapping[str, Any] | None, stage2: Mapping[str, Any]
    ) -> Trial:
        """A setting on all training images, for the epochs and the weights that the held-out images chose.

        Args:
            stage1, stage2: rows of the trials table with ``epoch`` and ``weights`` of the runs that chose them; None
                where there is no stage 1.
        """
        setting = self.base.override(params)
        fixed: dict[str, Any] = {"data.holdout": 0.0}
        for name, stage, row in (
            ("stage1", setting.stage1, stage1),
            ("stage2", setting.stage2, stage2),
        ):
            if row is None:
                continue
            fixed[f"{name}.epochs"] = row["epoch"]
            fixed[f"{name}.planned_epochs"] = stage.planned_epochs or stage.epochs
            fixed[f"{name}.patience"] = None
        config = setting.override(fixed)
        first = (
            self.stage1(config.override({"optim.report": stage1["weights"]}))
            if stage1 is not None
            else None
        )
        chosen = config.override({"optim.report": stage2["weights"]})
        return Trial(self.study, "final", "tuned", chosen, dict(params), stage1=first)

    def final_of(self, rows: Sequence[Mapping[str, Any]]) -> Trial | None:
        """The final run of the setting that is the best by now; ``rows`` as for :meth:`decided`."""
        chosen = winning_trial(rows, self.search.confirm_top, self.search.confirm_seeds)
        stage1 = next(
            (row for row in rows if chosen is not None and row["key"] == chosen["stage1_key"]), None
        )
        if chosen is None or (stage1 is None and chosen["stage1_key"] is not None):
            return None
        return self.final(chosen["settings"], stage1, chosen)

    def early_stage1(self, stage1: Mapping[str, Any] | None) -> Trial | None:
        """The stage 1 of the final run, where it does not depend on what the search finds; ``stage1`` as for ``final``."""
        space = self.search.space_at(self.scale)
        if any(
            config.stage1_digest() != self.base.stage1_digest()
            for config in bounds(space, self.base)
        ):
            return None
        return self.final({}, stage1, {"epoch": self.base.stage2.epochs, "weights": "raw"}).stage1

    @cached_property
    def settings(self) -> int:
        """How many the space holds; 0 where they are not counted."""
        count = sum(1 for _ in islice(every(self.search.space_at(self.scale)), MOST + 1))
        return count if count <= MOST else 0

    def used_up(self, epochs: int, seconds: float) -> bool:
        """Whether the search's trials have trained for so long that no further one starts."""
        most, hours = self.search.max_epochs, self.search.max_hours
        return (most is not None and epochs >= most) or (
            hours is not None and seconds >= 3600 * hours
        )

    def left_to_try(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Trials of the search that are still to come: those that were interrupted, and new ones while the budget lasts."""
        trials = [row for row in rows if row["phase"] == "search"]
        interrupted = sum(row["status"] == "running" for row in trials)
        if self.used_up(*spent(trials)):
            return interrupted
        return max(min(self.total, self.settings or self.total) - len(trials), 0) + interrupted

    def first_settings(self, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Of the settings to try first those that were not tried yet; one that leaves fields open counts as soon as it was
        tried with anything in them."""
        tried = [json.loads(row["params"]).items() for row in rows if row["phase"] == "search"]
        settings = [
            json.loads(json.dumps(dict(s))) for s in (*self.search.start_at(self.scale), *self.warm)
        ]
        return [s for s in settings if not any(all(item in t for item in s.items()) for t in tried)]

    def decided(self, rows: Sequence[Mapping[str, Any]]) -> list[Trial]:
        """The runs that are known by now, besides the search's own trials: confirmation and final run once it is over.

        Args:
            rows: of the study, with the stage 1 that its trials start from.
        """
        trials = [*self.baselines(), *self.controls()]
        if not self.left_to_try(rows):
            trials += [
                t
                for row in best_trials(rows, self.search.confirm_top)
                for t in self.confirm(row["settings"])
            ]
            final = self.final_of(rows)
            trials += [final] if final is not None else []
        stages = [self.stage1(self.base), *(trial.stage1 for trial in trials)]
        return list(
            {trial.key: trial for trial in (*stages, *trials) if trial is not None}.values()
        )

    def answered(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether nothing is left to run; ``rows`` as for :meth:`decided`."""
        ended = {row["key"] for row in rows if row["status"] != "running"}
        decided = self.decided(rows)
        return any(trial.phase == "final" for trial in decided) and ended >= {
            trial.key for trial in decided
        }

    def left(self, rows: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
        """Runs and epochs that are still to come; ``rows`` as for :meth:`decided`."""
        ended = {row["key"] for row in rows if row["status"] != "running"}
        decided = self.decided(rows)
        epochs = [trial.epochs for trial in decided if trial.key not in ended]
        stage1, stage2 = self.base.stage1.epochs, self.base.stage2.epochs
        if not any(trial.phase == "final" for trial in decided):
            again = self.search.confirm_top * len(self.search.confirm_seeds)
            epochs += [stage2] * (self.left_to_try(rows) + again + 1) + [stage1] * bool(stage1)
        return len(epochs), sum(epochs)

    def lines(self) -> Iterator[str]:
        """The plan in words."""
        for name, text in describe(self.search.space_at(self.scale)).items():
            yield f"  {name}: {text}"
        seeds = ", ".join(map(str, self.search.confirm_seeds))
        start = "one shared stage 1" if self.base.stage1.epochs else "stage 2 from model.start"
        trials = f"{self.total} trials"
        if self.settings and self.settings < self.total:
            trials = f"{self.settings} trials, which is all that the space holds"
        top = "the best" if self.search.confirm_top == 1 else f"the best {self.search.confirm_top}"
        yield (
            f"  {start}, {' and '.join(self.search.baselines)}, {trials}, {top} again over seeds "
            f"{seeds}, one final run; {self.base.stage1.epochs} + {self.base.stage2.epochs} epochs each"
        )
        limits = [
            f"at most {limit:g} {unit}"
            for limit, unit in (
                (self.search.max_epochs, "epochs"),
                (self.search.max_hours, "hours of training"),
            )
            if limit is not None
        ]
        stopping = (
            "no early stopping"
            if self.search.stopping is None
            else f"stopped early by {self.search.stopping}"
        )
        yield f"  {', '.join([f'sampler {self.search.sampler}', stopping, *limits])}"

    def _trial(
        self, phase: str, arm: str, config: Config, params: Mapping[str, Any] | None = None
    ) -> Trial:
        return self.context.trial(phase, arm, config, params)


def spent(rows: Iterable[Mapping[str, Any]]) -> tuple[int, float]:
    """Epochs and seconds that trials have trained."""
    rows = list(rows)
    return sum(row.get("epochs_done") or 0 for row in rows), sum(
        row.get("seconds") or 0.0 for row in rows
    )


def front(rows: Iterable[Mapping[str, Any]], objectives: Sequence[str]) -> list[dict[str, Any]]:
    """The complete trials that no other one beats in every objective, best held-out mAP first."""

    def at(row: Mapping[str, Any]) -> list[float]:
        return [row[name] if OBJECTIVES[name] == "min" else -row[name] for name in objectives]

    rows = list(rows)
    ranked = best_trials(rows, len(rows))
    beaten = [
        any(
            at(o) != at(r) and all(x <= y for x, y in zip(at(o), at(r), strict=True))
            for o in ranked
        )
        for r in ranked
    ]
    return [row for row, is_beaten in zip(ranked, beaten, strict=True) if not is_beaten]
