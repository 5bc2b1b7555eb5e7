"""The best trials of a search, by the tables alone: held-out images choose, never a test image."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sadcl.results.status import Status
from sadcl.search.trial import Phase

OBJECTIVES = {"val_mAP": "max", "seconds": "min", "memory_mb": "min"}
"""The columns of the trials table that every search can optimise, and their directions."""


def objective(name: str) -> tuple[str, str]:
    """Return the column of the trials table and the direction (max or min) of an objective.

    Args:
        name: one of ``OBJECTIVES``, or the figure of a metric of your own, such as
            ``val_one_error``, with a minus sign where less is better.
    """
    column = name.removeprefix("-")
    return column, "min" if name.startswith("-") else OBJECTIVES.get(column, "max")


def best_trials(rows: Iterable[Mapping[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return the best complete trials of a search by the held-out images, best first.

    Args:
        rows: rows of the trials table.
        count: the largest number of trials to return.

    Returns:
        The rows, each with the values that the search chose under ``settings``.
    """
    ranked = ranked_trials(row for row in rows if row["phase"] == Phase.SEARCH)[:count]
    return [{**row, "settings": json.loads(row["params"] or "{}")} for row in ranked]


def ranked_trials(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the complete rows that have a held-out figure, best first, ties by key."""
    complete = [
        row for row in rows if row["status"] == Status.COMPLETE and is_finite(row["val_mAP"])
    ]
    return sorted(complete, key=lambda row: (-row["val_mAP"], row["key"]))


def winning_trial(
    rows: Iterable[Mapping[str, Any]], count: int, seeds: Sequence[int]
) -> dict[str, Any] | None:
    """Return, of the best trials, the one with the best mean over the fresh seeds.

    Seeds differ by more than settings do, so the means are over the seeds that all confirmed
    candidates have. A candidate without any of the seeds is out. If nothing is confirmed yet, the
    best trial wins.

    Args:
        rows: rows of the trials table.
        count: the number of best trials to compare.
        seeds: the fresh seeds.

    Returns:
        The row as :func:`best_trials` gives it, or None if no trial is complete.
    """
    rows = list(rows)
    candidates = best_trials(rows, count)
    figures: list[dict[int, float]] = []
    for candidate in candidates:
        same = (Phase.CONFIRM, "tuned", Status.COMPLETE, candidate["params"])
        confirmations = [
            row
            for row in rows
            if (row["phase"], row["arm"], row["status"], row["params"]) == same
            and row["seed"] in seeds
        ]
        figures.append(
            {row["seed"]: row["val_mAP"] for row in confirmations if is_finite(row["val_mAP"])}
        )
    shared = set(seeds).intersection(*filter(None, figures))
    confirmed = [
        (sum(by_seed[seed] for seed in shared), candidate)
        for by_seed, candidate in zip(figures, candidates, strict=True)
        if by_seed
    ]
    if not shared or not confirmed:
        return candidates[0] if candidates else None
    return max(confirmed, key=lambda pair: pair[0])[1]


def chosen_trial(
    rows: Iterable[Mapping[str, Any]], description: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the trial whose setting a search ended with; None without a complete trial.

    Args:
        rows: rows of the trials table.
        description: the content of the study's file.
    """
    rows = list(rows)
    seeds = description.get("confirm_seeds") or sorted(
        {row["seed"] for row in rows if row["phase"] == Phase.CONFIRM}
    )
    return winning_trial(rows, description.get("confirm_top") or 1, seeds)


def final_run(rows: Iterable[Mapping[str, Any]], params: str | None) -> Mapping[str, Any] | None:
    """Return the complete final run of a setting; None without one.

    It is the newest. An older one may be there where the study was extended since, or begun by an
    older version.

    Args:
        rows: rows of the trials table, of one study.
        params: of the trial whose setting the search ended with.
    """
    same = (Phase.FINAL, Status.COMPLETE, params)
    runs = [row for row in rows if (row["phase"], row["status"], row["params"]) == same]
    return max(runs, key=lambda row: row["started"], default=None)


def pareto_front(
    rows: Iterable[Mapping[str, Any]], objectives: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the complete trials on the Pareto front, best held-out mAP first.

    A trial is on it if no other one is at least as good in every objective and better in one. A
    trial that lacks a figure, or where it is not defined, is not.
    """
    columns = [objective(name) for name in objectives]

    def costs(row: Mapping[str, Any]) -> list[float]:
        return [row[name] if way == "min" else -row[name] for name, way in columns]

    def dominates(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        pairs = list(zip(costs(one), costs(other), strict=True))
        return costs(one) != costs(other) and all(x <= y for x, y in pairs)

    rows = list(rows)
    ranked = [
        row
        for row in best_trials(rows, len(rows))
        if all(is_finite(row.get(name)) for name, _ in columns)
    ]
    return [row for row in ranked if not any(dominates(other, row) for other in ranked)]


def is_finite(value: float | None) -> bool:
    """Return whether a figure is present: neither null, nan nor infinite."""
    return value is not None and math.isfinite(value)
