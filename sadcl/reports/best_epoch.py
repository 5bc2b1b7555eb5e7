"""The best epoch ever beside the last one: a figure that is picked as the highest of many is optimistic by how much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sadcl.reports.statistics import interval


@dataclass(frozen=True)
class BestEpoch:
    """Held-out mAP of the runs of an arm, in percent: means, and half of their 95 % intervals (Student's t; nan for one run).

    Attributes:
        seeds: of the runs.
        best_ever: of each run's best epoch of its last stage, chosen on the very images that it is measured on.
        last_epoch: of each run's last epoch, which nothing chose.
        optimism: best ever less last epoch, paired by run.
    """

    study: str
    dataset: str
    phase: str
    arm: str
    seeds: tuple[int, ...]
    best_ever: float
    best_ever_half: float
    last_epoch: float
    last_epoch_half: float
    optimism: float
    optimism_half: float


def best_epoch(
    trials: Iterable[Mapping[str, Any]], epochs: Iterable[Mapping[str, Any]]
) -> list[BestEpoch]:
    """Both figures of each study, data set, phase and arm, as they come; runs that are not complete are left out.

    Where an arm has runs of several settings (those of a search, or several stage 1), each counts, and the interval is over
    runs, not over seeds.

    Args:
        trials, epochs: rows of the tables.
    """
    curves: dict[str, dict[int, dict[int, float]]] = {}
    for row in epochs:
        if row["val_mAP"] is not None and row["val_mAP"] == row["val_mAP"]:
            curves.setdefault(row["key"], {}).setdefault(row["stage"], {})[row["epoch"]] = row[
                "val_mAP"
            ]
    groups: dict[tuple[str, str, str, str], list[tuple[int, float, float]]] = {}
    for row in trials:
        if row["status"] == "complete" and row["key"] in curves:
            curve = curves[row["key"]][max(curves[row["key"]])]
            arm = (row["study"], row["dataset"], row["phase"], row["arm"])
            groups.setdefault(arm, []).append((row["seed"], max(curve.values()), curve[max(curve)]))
    found = []
    for (study, dataset, phase, name), runs in groups.items():
        seeds, best, last = zip(*runs, strict=True)
        optimism = [b - e for b, e in zip(best, last, strict=True)]
        figures = (*interval(best), *interval(last), *interval(optimism))
        found.append(BestEpoch(study, dataset, phase, name, seeds, *figures))
    return found
