"""The best epoch compared with the last: how optimistic it is to pick the highest of many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sadcl.reports.statistics import interval


@dataclass(frozen=True)
class BestEpoch:
    """Held-out mAP of the runs of an arm, in percent.

    Each mean has the half-width of its 95 % interval (Student's t), which is nan for one run.

    Attributes:
        seeds: of the runs.
        best: mean over the runs of the best epoch of the last stage, chosen on the very images that
            it is measured on.
        last: mean over the runs of the last epoch, which nothing chose.
        optimism: ``best`` minus ``last``, paired by run.
    """

    study: str
    dataset: str
    phase: str
    arm: str
    seeds: tuple[int, ...]
    best: float
    best_half_width: float
    last: float
    last_half_width: float
    optimism: float
    optimism_half_width: float


def best_epoch(
    trials: Iterable[Mapping[str, Any]], epochs: Iterable[Mapping[str, Any]]
) -> list[BestEpoch]:
    """Compare the best with the last epoch for each study, data set, phase and arm.

    Runs that are not complete are left out. If an arm has runs of several settings (as a search
    has, or several stage 1), each run counts, and the interval is over runs, not over seeds.

    Args:
        trials: rows of the trials table.
        epochs: rows of the epochs table.
    """
    curves = _curves(epochs)
    groups: dict[tuple[str, str, str, str], list[tuple[int, float, float]]] = {}
    for row in trials:
        if row["status"] == "complete" and row["key"] in curves:
            stages = curves[row["key"]]
            curve = stages[max(stages)]
            group = (row["study"], row["dataset"], row["phase"], row["arm"])
            best_and_last = (row["seed"], max(curve.values()), curve[max(curve)])
            groups.setdefault(group, []).append(best_and_last)
    results = []
    for group, runs in groups.items():
        seeds, best, last = zip(*runs, strict=True)
        optimism = [b - e for b, e in zip(best, last, strict=True)]
        figures = (*interval(best), *interval(last), *interval(optimism))
        results.append(BestEpoch(*group, seeds, *figures))
    return results


def _curves(epochs: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, dict[int, float]]]:
    """Return held-out mAP by run, stage and epoch; missing values and nan are left out."""
    curves: dict[str, dict[int, dict[int, float]]] = {}
    for row in epochs:
        value = row["val_mAP"]
        if value is not None and value == value:
            curves.setdefault(row["key"], {}).setdefault(row["stage"], {})[row["epoch"]] = value
    return curves
