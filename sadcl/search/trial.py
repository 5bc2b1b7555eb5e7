"""One run as a value, its phase, and what all runs of a study share on one data set."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sadcl.config import POOLED, SARL, Config
from sadcl.errors import UserError


class Phase(StrEnum):
    """What a run is for. The value is stored in the column ``phase`` of the trials table."""

    STAGE1 = "stage1"
    """Stage 1 alone, from which other runs start; studies share it."""
    BASELINE = "baseline"
    """A fixed setting that the tuned one is compared with."""
    SEARCH = "search"
    """A setting that the sampler chose."""
    CONFIRM = "confirm"
    """One of the best settings, or the control, over a seed that the search did not use."""
    FINAL = "final"
    """The chosen setting, trained on all training images."""
    ARM = "arm"
    """A run of an ablation."""
    TRAIN = "train"
    """A single run that belongs to no study."""


DIGEST = 12
"""Length of the digests in a run's key."""


def short_id(key: str) -> str:
    """Return the six characters of a trial's key by which people know it, everywhere the same.

    :func:`sadcl.results.query.find_key` takes them in the place of the key. They end the digest of
    the configuration, which those of the data may follow.
    """
    return re.sub(rf"(-[0-9a-f]{{{DIGEST}}})(-[0-9a-f]{{{DIGEST}}})+$", r"\1", key)[-6:]


NAME_BYTES = 150
"""Largest length of a study's name, to which seed, digests, data set and ``-demo`` are added."""
KEY_BYTES = 210
"""Largest length of a run's key: its files have up to 45 bytes more, and 255 are possible."""


@dataclass(frozen=True)
class Trial:
    """One run: what is trained, and what for.

    Attributes:
        study: the name of the study that the row belongs to.
        phase: what the run is for.
        arm: the name of the setting.
        config: the whole configuration.
        params: the values that the search chose, by field.
        stage1: the run whose weights stage 2 starts from. With None the run trains its own stage 1
            if its configuration has one.
        name: a fixed key, for runs that studies share. Without one the key is made from the fields.
        serves: of a stage 1, the arms that start from it, for its title.
    """

    study: str
    phase: Phase
    arm: str
    config: Config
    params: Mapping[str, Any] = field(default_factory=dict)
    stage1: Trial | None = None
    name: str = ""
    serves: str = ""

    def __post_init__(self) -> None:
        """Raise UserError if study and arm make a longer name than files can have."""
        object.__setattr__(self, "phase", Phase(self.phase))
        parts = [self.name] if self.name else [self.study, self.arm, f"s{self.config.seed}", ""]
        size = len("-".join(parts).encode()) + DIGEST * (not self.name)
        if size > KEY_BYTES:
            raise UserError(
                f"The runs of the study {self.study[:40]!r}... would have names of {size} bytes, "
                f"which files cannot have; {KEY_BYTES} are possible. Shorten the name of the study "
                f"({len(self.study.encode())} bytes) or of the arm ({len(self.arm.encode())})."
            )

    @property
    def key(self) -> str:
        """The key of the run's row.

        It depends on the trial alone, so that the same trial is the same row whenever and wherever
        it runs.
        """
        arm = re.sub(r"[^\w.+=-]+", "-", self.arm)  # the key names a folder too
        return self.name or f"{self.study}-{arm}-s{self.config.seed}-{self.config.digest()}"

    @property
    def title(self) -> str:
        """A short name for people."""
        if self.phase == Phase.SEARCH:
            return f"search {short_id(self.key)}"
        prefix = f"{self.phase} " if self.phase in (Phase.CONFIRM, Phase.FINAL) else ""
        if self.phase == Phase.STAGE1:
            whole = "" if self.config.data.holdout else ", all images"
            serves = f" of {self.serves}" if self.serves else ""
            return f"stage 1{serves} s{self.config.seed}{whole}"
        is_control = self.arm == "stage2" and self.phase in (Phase.BASELINE, Phase.CONFIRM)
        return f"{prefix}{'control' if is_control else self.arm} s{self.config.seed}"

    @property
    def epochs(self) -> int:
        """The number of epochs that the run trains itself; a shared stage 1 costs it nothing."""
        stage1 = self.config.stage1.epochs if self.stage1 is None else 0
        return stage1 + self.config.stage2.epochs


@dataclass(frozen=True)
class DataContext:
    """What all runs of a study share on one data set.

    Attributes:
        study: the name of the study.
        base: the configuration, with the concrete data set.
        digest: the digest of the data, with the held-out images left out of training.
        whole_digest: the digest of the data with nothing held out, on which a final run trains.
        start: the digest of the checkpoint ``model.start``; empty without one.
        num_images: the number of images by split, ``train``, ``val`` and ``test``.
    """

    study: str
    base: Config
    digest: str
    whole_digest: str = ""
    start: str = ""
    num_images: Mapping[str, int] = field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        """Return the digests of the base and the data, as a study's file stores them."""
        return {
            "base": self.base.digest(),
            "data": self.digest,
            **({"start": self.start} if self.start else {}),
        }

    def stage1(self, config: Config) -> Trial | None:
        """Return the stage 1 that a configuration starts from; None if it has none.

        All settings of stage 2 share it, in other studies too.
        """
        if not config.stage1.epochs:
            return None
        alone = config.override({"stage2.epochs": 0, "stage2.planned_epochs": None})
        data_digest = self.digest if config.data.holdout else self.whole_digest
        source = "-".join([data_digest] + [self.start] * bool(self.start))
        key = f"stage1-s{config.seed}-{config.stage1_digest()}-{source}"
        return Trial(self.study, Phase.STAGE1, "stage1", alone, name=key)

    def trial(
        self, phase: Phase, arm: str, config: Config, params: Mapping[str, Any] | None = None
    ) -> Trial:
        """Return a run with the stage 1 that it shares.

        A network without a stage 2 trains alone. An arm of an ablation that consists of stage 1
        only is a run of its own, which takes its weights and figures from the shared stage 1.
        """
        shares = config.stage2.epochs > 0 or (phase == Phase.ARM and config.model.head == SARL)
        stage1 = self.stage1(config) if shares else None
        return Trial(self.study, phase, arm, config, dict(params or {}), stage1)


def arm_config(base: Config, changes: Mapping[str, Any]) -> Config:
    """Return the configuration of an arm.

    The pooled network has one stage only, which trains for as many epochs as both stages of
    the base together.

    Args:
        base: the configuration that the arm starts from.
        changes: the values that the arm changes, by field.
    """
    config = base.override(changes)
    if config.model.head != POOLED or not config.stage2.epochs:
        return config
    one, two = config.stage1, config.stage2
    planned = (one.planned_epochs or one.epochs) + (two.planned_epochs or two.epochs)
    return config.override(
        {
            "stage1.epochs": one.epochs + two.epochs,
            "stage1.planned_epochs": planned,
            "stage2.epochs": 0,
            "stage2.planned_epochs": None,
        }
    )


def study_name(name: str, scale: str, datasets: Iterable[str] = ()) -> str:
    """Return the name of a study at a scale.

    At demo scale ``-demo`` is added, and then the data sets, unless they are the drawn scenes. So a
    demo on images is another study than the one on scenes before it.

    Args:
        name: that its file gives it.
        scale: ``demo`` or ``full``.
        datasets: the concrete data sets that it runs on.
    """
    if scale == "full":
        return name
    images = sorted({dataset for dataset in datasets if dataset != "scenes"})
    return "-".join([name, "demo", *images])


def check_arguments(kind: type, arguments: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    """Check the names of keyword arguments, because a mistyped one is the user's mistake.

    Args:
        kind: the class that is made.
        arguments: the keyword arguments.
        fields: the names that the class takes.

    Raises:
        UserError: for an unknown name, with the nearest one.
    """
    for name in arguments:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(fields)}."
            article = "An" if kind.__name__[0] in "AEIOU" else "A"
            raise UserError(f"{article} {kind.__name__} has no {name!r}. {hint}")


def check_name(name: str) -> None:
    """Check that the name of a study can name a file, and those of its runs.

    Raises:
        UserError: if it cannot.
    """
    if (size := len(name.encode())) > NAME_BYTES:
        raise UserError(
            f"The name of the study {name[:40]!r}... has {size} bytes; {NAME_BYTES} are possible, "
            "because it is part of the names of files."
        )
    if name in ("", ".", "..") or any(c in name for c in "/\\\0"):
        raise UserError(f"A study's name must be a file name, but got {name!r}.")
