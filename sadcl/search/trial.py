"""A run as a value, and what all runs of a study have in common on one data set. No Ray here."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sadcl.config import Config
from sadcl.errors import UserError


@dataclass(frozen=True)
class Trial:
    """One run: what to train, and what it is for.

    Attributes:
        phase: ``stage1``, ``baseline``, ``search``, ``confirm``, ``final``, ``arm`` or ``train``.
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
        arm = re.sub(r"[^\w.+=-]+", "-", self.arm)  # it names a folder too
        return self.name or f"{self.study}-{arm}-s{self.config.seed}-{self.config.digest()}"

    @property
    def title(self) -> str:
        """What people call it."""
        if self.phase == "search":
            return f"search {self.key[-4:]}"
        what = (
            self.arm
            if self.phase in ("arm", "baseline", "stage1", "train")
            else f"{self.phase} {self.arm}"
        )
        all_images = (
            " all images" if self.phase == "stage1" and not self.config.data.holdout else ""
        )
        return f"{what} s{self.config.seed}{all_images}"

    @property
    def epochs(self) -> int:
        """Epochs that the run trains itself."""
        own = (
            self.config.stage1.epochs if self.stage1 is None else 0
        )  # a stage 1 that is shared costs nothing more
        return own + self.config.stage2.epochs


@dataclass(frozen=True)
class DataContext:
    """What all runs of a study have in common on one data set.

    Attributes:
        base: the configuration, with the concrete data set.
        digest: of the data, part held out.
        whole_digest: of the data with nothing held out, which a final run trains on.
        start: digest of the checkpoint ``model.start``, where there is one.
    """

    study: str
    base: Config
    digest: str
    whole_digest: str = ""
    start: str = ""

    def identity(self) -> dict[str, Any]:
        return {
            "base": self.base.digest(),
            "data": self.digest,
            **({"start": self.start} if self.start else {}),
        }

    def stage1(self, config: Config) -> Trial | None:
        """The stage 1 that a configuration starts from; all settings of stage 2 share it, and other studies too."""
        if not config.stage1.epochs:
            return None
        alone = config.override({"stage2.epochs": 0, "stage2.planned_epochs": None})
        source = "-".join(
            [self.digest if config.data.holdout else self.whole_digest]
            + [self.start] * bool(self.start)
        )
        return Trial(
            self.study,
            "stage1",
            "stage1",
            alone,
            name=f"stage1-s{config.seed}-{config.stage1_digest()}-{source}",
        )

    def trial(
        self, phase: str, arm: str, config: Config, params: Mapping[str, Any] | None = None
    ) -> Trial:
        """A run with the stage 1 that it shares; a network without a stage 2 of its own trains alone."""
        shares = config.stage2.epochs > 0 or (phase == "arm" and config.model.arch == "sadcl")
        return Trial(
            self.study,
            phase,
            arm,
            config,
            dict(params or {}),
            stage1=self.stage1(config) if shares else None,
        )


def arm_config(base: Config, changes: Mapping[str, Any]) -> Config:
    """An arm; the pooled network has one stage, as long as the two together."""
    config = base.override(changes)
    if config.model.arch != "pooled" or not config.stage2.epochs:
        return config
    one, two = config.stage1, config.stage2
    return config.override(
        {
            "stage1.epochs": one.epochs + two.epochs,
            "stage1.planned_epochs": (one.planned_epochs or one.epochs)
            + (two.planned_epochs or two.epochs),
            "stage2.epochs": 0,
            "stage2.planned_epochs": None,
        }
    )


def check_arguments(kind: type, given: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    """A mistyped argument is a user's mistake like a mistyped field."""
    for name in given:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
            known = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(fields)}."
            article = "An" if kind.__name__[0] in "AEIOU" else "A"
            raise UserError(f"{article} {kind.__name__} has no {name!r}. {known}")


def check_name(name: str) -> None:
    if name in ("", ".", "..") or any(c in name for c in "/\\\0"):
        raise UserError(f"A study's name must be a file name, but got {name!r}.")
