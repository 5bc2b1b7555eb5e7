"""A search as one value: its question, its base, its space, its budget; and the trials that it is made of. No Ray here."""

from __future__ import annotations

from collections.abc import Mapping
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
        phase: ``stage1``, ``baseline``, ``search``, ``confirm`` or ``final``.
        arm: name of the setting.
        params: what the search set, by field.
    """

    study: str
    phase: str
    arm: str
    config: Config
    params: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    """A key of its own, for what studies share."""

    @property
    def key(self) -> str:
        """Made of what the trial is alone, so that the same trial is the same row whenever and wherever it is run."""
        return self.name or f"{self.study}-{self.arm}-s{self.config.seed}-{self.config.digest()}"


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
        baselines: arm -> overrides; the stage-1 arms and the control to stand beside the tuned setting.
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

    def __post_init__(self) -> None:
        if not self.name or any(c in self.name for c in "/\\\0"):
            raise UserError(f"A study's name must be a file name, but got {self.name!r}.")
        for scale in ("full", "demo"):
            base = self.config(scale)
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

    def study(self, scale: str) -> str:
        return self.name if scale == "full" else f"{self.name}-demo"

    def identity(self, scale: str, base: Config, data_digest: str) -> dict[str, Any]:
        """What makes two studies of one name the same study."""
        return {
            "name": self.study(scale),
            "scale": scale,
            "base": base.digest(),
            "data": data_digest,
            "space": describe(self.space_at(scale)),
        }

    def stage1_trial(self, scale: str, config: Config, data_digest: str) -> Trial:
        """The stage 1 that a configuration starts from; all settings of stage 2 share it, and other studies too."""
        alone = config.override({"stage2.epochs": 0, "stage2.planned_epochs": None})
        return Trial(self.study(scale), "stage1", "stage1", alone, name=stage1_key(config, data_digest))

    def baseline_trials(self, scale: str, base: Config) -> list[Trial]:
        study = self.study(scale)
        return [Trial(study, "baseline", arm, _arm(base, changes)) for arm, changes in self.baselines.items()]

    def search_trial(self, scale: str, base: Config, params: Mapping[str, Any]) -> Trial:
        return Trial(self.study(scale), "search", "tuned", base.override(params), dict(params))

    def confirm_trials(self, scale: str, base: Config, best: list[Mapping[str, Any]]) -> list[Trial]:
        """The best settings and the control, each over the fresh seeds."""
        study, trials = self.study(scale), []
        for seed in self.confirm_seeds:
            for place, params in enumerate(best, start=1):
                arm = "tuned" if place == 1 else f"tuned-{place}"
                trials.append(Trial(study, "confirm", arm, base.override({**params, "seed": seed}), dict(params)))
            if "stage2" in self.baselines:
                control = _arm(base, self.baselines["stage2"]).override({"seed": seed})
                trials.append(Trial(study, "confirm", "stage2", control))
        return trials

    def final_trial(self, scale: str, base: Config, params: Mapping[str, Any], chosen: Mapping[str, Any]) -> Trial:
        """The confirmed setting on all training images, for the epochs and the weights that the search chose."""
        return Trial(
            self.study(scale), "final", "tuned", base.override({**params, **chosen, "data.holdout": 0.0}), dict(params)
        )


def stage1_key(config: Config, data_digest: str) -> str:
    return f"stage1-s{config.seed}-{config.stage1_digest()}-{data_digest}"


def _arm(base: Config, changes: Mapping[str, Any]) -> Config:
    """A baseline; the pooled network has one stage, as long as the two together."""
    config = base.override(changes)
    if config.model.arch == "pooled" and config.stage2.epochs:
        planned = (config.stage1.planned_epochs or config.stage1.epochs) + (
            config.stage2.planned_epochs or config.stage2.epochs
        )
        config = config.override(
            {
                "stage1.epochs": config.stage1.epochs + config.stage2.epochs,
                "stage1.planned_epochs": planned,
                "stage2.epochs": 0,
                "stage2.planned_epochs": None,
            }
        )
    return config
