"""What the rest of a study takes: hours and bytes of checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sadcl.config import Config
from sadcl.console import bytes_text, confirm, count_text, print_text
from sadcl.errors import UserError
from sadcl.launch import resources
from sadcl.launch.datasets import PreparedData
from sadcl.launch.estimate import disk_limit, hours_text, training_hours
from sadcl.launch.features import (
    NO_MAPS,
    FeatureMaps,
    feature_maps,
    feature_text,
    feature_times,
    shared_bytes,
)
from sadcl.launch.options import Options
from sadcl.search import AblationPlan, Plan
from sadcl.study import record
from sadcl.study.placement import Placement


class RemainingRuns(NamedTuple):
    """What a study still has to run.

    Attributes:
        runs: All runs.
        epochs: Their epochs, summed.
        trials: The trials of a search among the runs, which give up their checkpoints where the
            disk is small.
        least: The runs that are to come in any case, where seeds are added until the differences
            are settled; None where all runs are.
    """

    runs: int
    epochs: int
    trials: int
    least: int | None = None


@dataclass(frozen=True)
class StudyEstimate:
    """What the rest of a study takes; the most expensive data set stands for all.

    Attributes:
        remaining: What is to run.
        hours: With ``at_once`` runs at the same time.
        at_once: Runs at the same time.
        gpus: GPUs of all runs at the same time.
        timed: What was timed, in words.
        is_proxy: Whether the GPUs that will train are elsewhere, so that steps were timed on a CPU
            instead.
        checkpoint: Bytes that each run leaves.
        state: Bytes of the state of each run while it runs.
        has_patience: Whether stages may end before their last epoch.
        maps: Feature maps of frozen backbones that the runs read.
        maps_text: What these cost and save, as another line.
    """

    remaining: RemainingRuns
    hours: float
    at_once: int
    gpus: float
    timed: str
    is_proxy: bool
    checkpoint: int
    state: int
    has_patience: bool = False
    maps: FeatureMaps = NO_MAPS
    maps_text: str = ""

    @property
    def spare_trials(self) -> int:
        """Trials whose checkpoints may be removed: not those that run, one of which may be best."""
        return max(self.remaining.trials - self.at_once, 0)

    @property
    def most_bytes(self) -> int:
        """Bytes of checkpoints if every run keeps its own."""
        return self.remaining.runs * self.checkpoint + self.at_once * self.state

    @property
    def least_bytes(self) -> int:
        """Bytes of checkpoints if the spare trials give up theirs."""
        return self.most_bytes - self.spare_trials * self.checkpoint

    def text(self) -> str:
        """One line for people."""
        devices = f"{self.gpus:g} GPU(s)" if self.gpus else "CPUs"
        proxy = ", because none of its GPUs is on this machine" if self.is_proxy else ""
        most, early = ("at most ", ", if no stage ends early") if self.has_patience else ("", "")
        runs, about = count_text(self.remaining.runs, "run"), "about"
        if self.remaining.least is not None:
            runs, most, about = f"{self.remaining.least:,} to {runs}", "at most ", "at most"
        return (
            f"  to run: {runs}, {most}"
            f"{count_text(self.remaining.epochs, 'epoch')} on {devices}; {about} "
            f"{hours_text(self.hours)} with {self.at_once} at once{early} (estimated from "
            f"{self.timed}{proxy}); up to {bytes_text(self.most_bytes)} of checkpoints"
            f"{self.maps_text}"
        )


def estimate_study(
    remaining: RemainingRuns,
    prepared: Sequence[PreparedData],
    options: Options,
    configs: Sequence[Config] = (),
    confirmed: tuple[int, Config] | None = None,
) -> StudyEstimate:
    """Time a step of the most expensive data set, and multiply.

    Args:
        remaining: What is to run.
        prepared: The data sets.
        options: Those of the start.
        configs: Of the runs, which say what feature maps are needed.
        confirmed: Epochs of a confirmation that trains another configuration, and that
            configuration; None where it trains the same.
    """
    part = max(prepared, key=lambda p: len(p.images.train) * p.context.base.data.image_size**2)
    placement, base = part.placement, part.context.base
    images = remaining.epochs * len(part.images.train)
    one = part.one_image
    timed = one._replace(hours=images * one.hours)
    fit = resources.trials_at_once(placement, options.address)
    at_once = min(fit or options.max_concurrent or 1, options.max_concurrent or fit or 1)
    gpus = placement.gpus * placement.workers * at_once
    hours, share = timed.hours / placement.workers / at_once, 1 / placement.workers / at_once
    maps = maps_of(configs, prepared)
    times, text = None, ""
    if base.stores_features:
        trained = (images, timed)
        times = feature_times(base, len(part.images.labels), trained, maps, placement)
    dearer = 0.0
    if confirmed is not None:
        epochs, config = confirmed
        seen = epochs * len(part.images.train)
        of_config = training_hours(config, len(part.images.labels), seen, placement).hours
        dearer = of_config - timed.hours * epochs / max(remaining.epochs, 1)
    if maps.whole:
        text = f"\n{feature_text(maps, placement, times, hours, share)}"
    return StudyEstimate(
        remaining,
        hours=hours + (times.compute if times is not None else 0.0) + share * dearer,
        at_once=at_once,
        gpus=gpus,
        timed=timed.step.text(),
        is_proxy=bool(gpus) and not timed.step.on_gpu,
        checkpoint=part.checkpoint_bytes[0],
        state=part.checkpoint_bytes[1],
        has_patience=any(
            stage.patience
            for item in prepared
            for stage in (item.context.base.stage1, item.context.base.stage2)
        ),
        maps=maps,
        maps_text=text,
    )


def planned_configs(plan: Plan | AblationPlan, rows: Sequence[Mapping[str, Any]]) -> list[Config]:
    """Return the configurations of a study's runs."""
    configs = [trial.config for trial in plan.planned_trials(rows)]
    if isinstance(plan, Plan):
        configs += [plan.base, *plan.search.variants(plan.scale, plan.base)]
    return configs


def maps_of(configs: Sequence[Config], prepared: Sequence[PreparedData]) -> FeatureMaps:
    """Find the feature maps that runs read, of all data sets together."""
    needed = [
        feature_maps(
            [c for c in configs if c.data.name == item.context.base.data.name], item.images
        )
        for item in prepared
    ]
    return FeatureMaps(*map(sum, zip(*needed, strict=True)))


def checkpoint_limit(maps: FeatureMaps, placement: Placement, options: Options) -> float | None:
    """Return the bytes that all checkpoints may take next to the maps that are missing.

    None is no limit, as of :func:`sadcl.launch.estimate.disk_limit`.
    """
    limit = disk_limit(options.storage, options.max_disk)
    if limit is None:
        return None
    return limit - shared_bytes(maps, placement, options.storage, options.max_disk)


def check_disk(estimate: StudyEstimate, options: Options, placement: Placement, freed: int) -> None:
    """Check that the checkpoints fit, and say if those of the worst trials will be removed.

    Args:
        estimate: What the study takes.
        options: Those of the start, with the limit.
        placement: What a worker gets, with the absolute root for the message.
        freed: Bytes that are removed before the study starts.

    Raises:
        UserError: Where they do not fit, with the arithmetic.
    """
    limit = checkpoint_limit(estimate.maps, placement, options)
    if limit is None:
        return
    room = limit - record.checkpoint_bytes(options.storage)["."] + freed
    if room < estimate.least_bytes:
        spare = estimate.spare_trials
        given_up = f" (which the {spare} worst trials give up)" if spare else ""
        raise UserError(
            f"There is room for {bytes_text(max(room, 0))} of checkpoints in "
            f"{placement.storage!r}, but {bytes_text(estimate.least_bytes)} are needed: "
            f"{estimate.at_once} runs at once take "
            f"{bytes_text(estimate.at_once * estimate.state)} while they run, and each of "
            f"{estimate.remaining.runs} runs leaves {bytes_text(estimate.checkpoint)}{given_up}. "
            "Free some space, raise --max-disk, lower --max-concurrent, or choose another "
            "--storage."
        )
    if room < estimate.most_bytes:
        print_text(
            f"  disk: only {bytes_text(room)} of checkpoints fit, so those of a search's worst "
            "trials are removed along the way"
        )


LEAST_HOURS_TO_ASK = 0.5
"""What takes less time on CPUs is not asked about."""


def confirm_without_gpu(hours: float, timed: str, yes: bool) -> None:
    """Ask before half an hour or more of training at full scale on CPUs.

    Args:
        hours: Those that it takes.
        timed: What they are estimated from.
        yes: The answer, if it was given before.

    Raises:
        UserError: If the answer is no, or if there is no terminal to answer at.
    """
    if hours < LEAST_HOURS_TO_ASK:
        return
    confirm(
        f"There is no GPU. This would take about {hours_text(hours)} on this machine's CPUs "
        f"(estimated from {timed}).",
        yes,
    )
