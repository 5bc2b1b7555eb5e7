"""A search as one value: its question, its base, its space, its budget; and the trials that it is made of. No Ray here."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sadcl.config import Config
from sadcl.errors import UserError
from sadcl.search.space import Space, check, describe

Scale = Literal["demo", "full"]
BASELINES: dict[str, dict[str, Any]] = {
    "baseline": {"model.arch": "pooled"},
    "stage2": {"loss.sample_weight": 0.0, "loss.prototype_weight": 0.0},
}
"""The pooled network trained as long as both stages, and the control: stage 2 without contrasts."""


@dataclass(frozen=True)
class Trial:
    """One run: what to train, and what it is for.

    Attributes:
        phase: ``stage1``, ``baseline``, ``search``, ``confirm``, ``final`` or ``train``.
        arm: name of the setting.
        params: what the search set, by field.
        stage1: the run whose weights stage 2 starts from; None trains stage 1 in this run, where there is one.
        name: a key of its own, for runs that studies share.
    """

    study: str
    phase: str
    arm: str
    config: Config
    params: Mapping[str, Any] = field(default_factory=dict)
    stage1: Trial | None = None
    name: str = ""

    @property
    def key(self) -> str:
        """Made of what the trial is alone, so that the same trial is the same row whenever and wherever it is run."""
        return self.name or f"{self.study}-{self.arm}-s{self.config.seed}-{self.config.digest()}"

    @property
    def title(self) -> str:
        """What people call it."""
        if self.phase == "search":
            return f"search {self.key[-4:]}"
        what = self.arm if self.phase in ("baseline", "stage1", "train") else f"{self.phase} {self.arm}"
        all_images = " all images" if self.phase == "stage1" and not self.config.data.holdout else ""
        return f"{what} s{self.config.seed}{all_images}"

    @property
    def epochs(self) -> int:
        """Epochs that the run trains itself."""
        own = self.config.stage1.epochs if self.stage1 is None else 0
        return own + self.config.stage2.epochs


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
        trials, demo_trials: settings to try.
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
    baselines: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: BASELINES)
    confirm_top: int = 1
    confirm_seeds: tuple[int, ...] = (1001, 1002)
    published: float | None = None

    def __new__(cls, *args: Any, **given: Any) -> Search:
        """A mistyped argument is a user's mistake like a mistyped field."""
        for name in given:
            if name not in cls.__dataclass_fields__:
                near = difflib.get_close_matches(name, cls.__dataclass_fields__, n=1, cutoff=0.5)
                known = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(cls.__dataclass_fields__)}."
                raise UserError(f"A Search has no {name!r}. {known}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if not self.name or any(c in self.name for c in "/\\\0"):
            raise UserError(f"A study's name must be a file name, but got {self.name!r}.")
        for scale in ("full", "demo"):
            base = self.config(scale)
            if any("model.start" in fields for fields in (self.space_at(scale), *self.baselines.values())):
                raise UserError("model.start belongs to the base of a study, whose runs all start from one checkpoint.")
            check(self.space_at(scale), base)
            for changes in self.baselines.values():
                base.override(changes)
            if base.data.holdout == 0:
                raise UserError("A search needs held-out images to choose by: data.holdout must be above 0.")
            if base.seed in self.confirm_seeds:
                raise UserError(f"confirm_seeds {self.confirm_seeds} must not hold the search's own seed {base.seed}.")
        if min(self.trials, self.demo_trials) < 1 or not 1 <= self.confirm_top <= self.demo_trials:
            raise UserError(
                f"trials >= 1 and 1 <= confirm_top <= trials must hold, but got trials={self.trials}, "
                f"demo_trials={self.demo_trials}, confirm_top={self.confirm_top}."
            )
        if len(set(self.confirm_seeds)) < len(self.confirm_seeds) or not self.confirm_seeds:
            raise UserError(f"confirm_seeds must be at least one, and differ, but got {self.confirm_seeds}.")

    def config(self, scale: str) -> Config:
        return self.base if scale == "full" else self.demo

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
    """

    search: Search
    scale: str
    base: Config
    total: int
    digest: str
    whole_digest: str
    start: str = ""

    @property
    def study(self) -> str:
        return self.search.name if self.scale == "full" else f"{self.search.name}-demo"

    def identity(self) -> dict[str, Any]:
        """What makes two studies of one name the same study."""
        return {
            "name": self.study,
            "scale": self.scale,
            "base": self.base.digest(),
            "data": self.digest,
            "space": describe(self.search.space_at(self.scale)),
            **({"start": self.start} if self.start else {}),
        }

    def stage1(self, config: Config) -> Trial | None:
        """The stage 1 that a configuration starts from; all settings of stage 2 share it, and other studies too."""
        if not config.stage1.epochs:
            return None
        alone = config.override({"stage2.epochs": 0, "stage2.planned_epochs": None})
        source = "-".join([self.digest if config.data.holdout else self.whole_digest] + [self.start] * bool(self.start))
        return Trial(self.study, "stage1", "stage1", alone, name=f"stage1-s{config.seed}-{config.stage1_digest()}-{source}")

    def baselines(self) -> list[Trial]:
        return [self._trial("baseline", arm, _arm(self.base, changes)) for arm, changes in self.search.baselines.items()]

    def try_out(self, params: Mapping[str, Any]) -> Trial:
        """A trial of the search."""
        return self._trial("search", "tuned", self.base.override(params), params)

    def controls(self) -> list[Trial]:
        """The control over the fresh seeds."""
        if "stage2" not in self.search.baselines:
            return []
        control = _arm(self.base, self.search.baselines["stage2"])
        return [self._trial("confirm", "stage2", control.override({"seed": seed})) for seed in self.search.confirm_seeds]

    def confirm(self, params: Mapping[str, Any]) -> list[Trial]:
        """A setting over the fresh seeds."""
        seeds = self.search.confirm_seeds
        return [self._trial("confirm", "tuned", self.base.override({**params, "seed": seed}), params) for seed in seeds]

    def final(self, params: Mapping[str, Any], stage1: Mapping[str, Any] | None, stage2: Mapping[str, Any]) -> Trial:
        """A setting on all training images, for the epochs and the weights that the held-out images chose.

        Args:
            stage1, stage2: rows of the trials table with ``epoch`` and ``weights`` of the runs that chose them; None
                where there is no stage 1.
        """
        setting = self.base.override(params)
        fixed: dict[str, Any] = {"data.holdout": 0.0}
        for name, stage, row in (("stage1", setting.stage1, stage1), ("stage2", setting.stage2, stage2)):
            if row is None:
                continue
            fixed[f"{name}.epochs"] = row["epoch"]
            fixed[f"{name}.planned_epochs"] = stage.planned_epochs or stage.epochs
            fixed[f"{name}.patience"] = None
        config = setting.override(fixed)
        first = self.stage1(config.override({"optim.report": stage1["weights"]})) if stage1 is not None else None
        chosen = config.override({"optim.report": stage2["weights"]})
        return Trial(self.study, "final", "tuned", chosen, dict(params), stage1=first)

    def final_of(self, rows: Sequence[Mapping[str, Any]]) -> Trial | None:
        """The final run of the setting that is the best by now; ``rows`` as for :meth:`decided`."""
        chosen = winner(rows, self.search.confirm_top)
        stage1 = next((row for row in rows if chosen is not None and row["key"] == chosen["stage1_key"]), None)
        if chosen is None or (stage1 is None and chosen["stage1_key"] is not None):
            return None
        return self.final(chosen["settings"], stage1, chosen)

    def early_stage1(self, stage1: Mapping[str, Any] | None) -> Trial | None:
        """The stage 1 of the final run, where it does not depend on what the search finds; ``stage1`` as for ``final``."""
        space = self.search.space_at(self.scale)
        bounds = [self.base.override({name: value}) for name, values in space.items() for value in values.probes]
        if any(config.stage1_digest() != self.base.stage1_digest() for config in bounds):
            return None
        return self.final({}, stage1, {"epoch": self.base.stage2.epochs, "weights": "raw"}).stage1

    def left_to_try(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Trials of the search that are still to come."""
        ended = [row for row in rows if row["phase"] == "search" and row["status"] in ("complete", "pruned")]
        return max(self.total - len(ended), 0)

    def decided(self, rows: Sequence[Mapping[str, Any]]) -> list[Trial]:
        """The runs that are known by now, besides the search's own trials: confirmation and final run once it is over.

        Args:
            rows: of the study, with the stage 1 that its trials start from.
        """
        trials = [*self.baselines(), *self.controls()]
        if not self.left_to_try(rows):
            trials += [t for row in best(rows, self.search.confirm_top) for t in self.confirm(row["settings"])]
            final = self.final_of(rows)
            trials += [final] if final is not None else []
        stages = [self.stage1(self.base), *(trial.stage1 for trial in trials)]
        return list({trial.key: trial for trial in (*stages, *trials) if trial is not None}.values())

    def answered(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether nothing is left to run; ``rows`` as for :meth:`decided`."""
        complete = {row["key"] for row in rows if row["status"] == "complete"}
        decided = self.decided(rows)
        return any(trial.phase == "final" for trial in decided) and complete >= {trial.key for trial in decided}

    def epochs_left(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Epochs that are still to be trained; ``rows`` as for :meth:`decided`."""
        complete = {row["key"] for row in rows if row["status"] == "complete"}
        decided = self.decided(rows)
        count = sum(trial.epochs for trial in decided if trial.key not in complete)
        stage1, stage2 = self.base.stage1.epochs, self.base.stage2.epochs
        if not any(trial.phase == "final" for trial in decided):
            again = self.search.confirm_top * len(self.search.confirm_seeds) + 1
            count += (self.left_to_try(rows) + again) * stage2 + stage1
        return count

    def lines(self) -> Iterator[str]:
        """The plan in words."""
        for name, text in describe(self.search.space_at(self.scale)).items():
            yield f"  {name}: {text}"
        seeds = ", ".join(map(str, self.search.confirm_seeds))
        start = "one shared stage 1" if self.base.stage1.epochs else "stage 2 from model.start"
        top = "the best" if self.search.confirm_top == 1 else f"the best {self.search.confirm_top}"
        yield (
            f"  {start}, {' and '.join(self.search.baselines)}, {self.total} trials, {top} again over seeds "
            f"{seeds}, one final run; {self.base.stage1.epochs} + {self.base.stage2.epochs} epochs each"
        )

    def _trial(self, phase: str, arm: str, config: Config, params: Mapping[str, Any] | None = None) -> Trial:
        stage1 = self.stage1(config) if config.stage2.epochs else None
        return Trial(self.study, phase, arm, config, dict(params or {}), stage1=stage1)


def best(rows: Iterable[Mapping[str, Any]], count: int) -> list[dict[str, Any]]:
    """The best trials of a search by the held-out images, best first; ``settings`` is what the search set."""
    complete = [r for r in rows if r["phase"] == "search" and r["status"] == "complete" and r["val_mAP"] is not None]
    ranked = sorted(complete, key=lambda row: (-row["val_mAP"], row["key"]))[:count]
    return [{**row, "settings": json.loads(row["params"])} for row in ranked]


def winner(rows: Iterable[Mapping[str, Any]], count: int) -> dict[str, Any] | None:
    """Of the ``count`` best trials the one with the best mean over the fresh seeds; the best where nothing is confirmed."""
    rows = list(rows)
    confirmed = [r for r in rows if (r["phase"], r["arm"], r["status"]) == ("confirm", "tuned", "complete")]

    def mean(row: Mapping[str, Any]) -> float:
        values = [r["val_mAP"] for r in confirmed if json.loads(r["params"]) == row["settings"]]
        return sum(values) / len(values) if values else float("-inf")

    return max(best(rows, count), key=mean, default=None)


def _arm(base: Config, changes: Mapping[str, Any]) -> Config:
    """A baseline; the pooled network has one stage, as long as the two together."""
    config = base.override(changes)
    if config.model.arch != "pooled" or not config.stage2.epochs:
        return config
    one, two = config.stage1, config.stage2
    return config.override(
        {
            "stage1.epochs": one.epochs + two.epochs,
            "stage1.planned_epochs": (one.planned_epochs or one.epochs) + (two.planned_epochs or two.epochs),
            "stage2.epochs": 0,
            "stage2.planned_epochs": None,
        }
    )
