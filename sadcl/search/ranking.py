"""Which trials of a search are the best, by the tables alone: the held-out images choose, and no test image."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def best_trials(rows: Iterable[Mapping[str, Any]], count: int) -> list[dict[str, Any]]:
    """The best complete trials of a search by the held-out images, best first; ``settings`` is what the search set."""
    found = ranked_trials(row for row in rows if row["phase"] == "search")[:count]
    return [{**row, "settings": json.loads(row["params"] or "{}")} for row in found]


def ranked_trials(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that are complete and have a held-out figure, best first."""
    complete = [row for row in rows if row["status"] == "complete" and is_finite(row["val_mAP"])]
    return sorted(complete, key=lambda row: (-row["val_mAP"], row["key"]))


def winning_trial(
    rows: Iterable[Mapping[str, Any]], count: int, seeds: Sequence[int]
) -> dict[str, Any] | None:
    """Of the ``count`` best trials the one with the best mean over the fresh seeds; the best where nothing is confirmed.

    Seeds differ by more than settings, so that means are over the seeds that all of them have; one that has none of the
    seeds is none of them.
    """
    rows = list(rows)
    candidates = best_trials(rows, count)
    figures: list[dict[int, float]] = []
    for row in candidates:
        same = ("confirm", "tuned", "complete", row["params"])
        mine = [
            r
            for r in rows
            if (r["phase"], r["arm"], r["status"], r["params"]) == same and r["seed"] in seeds
        ]
        figures.append({r["seed"]: r["val_mAP"] for r in mine if is_finite(r["val_mAP"])})
    shared = set(seeds).intersection(*filter(None, figures))
    confirmed = [
        (sum(f[s] for s in shared), row) for f, row in zip(figures, candidates, strict=True) if f
    ]
    if not shared or not confirmed:
        return candidates[0] if candidates else None
    return max(confirmed, key=lambda pair: pair[0])[1]


def chosen_trial(
    rows: Iterable[Mapping[str, Any]], about: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The trial whose setting a search ended with; ``about`` is what is written down of the study."""
    rows = list(rows)
    seeds = about.get("confirm_seeds") or sorted(
        {row["seed"] for row in rows if row["phase"] == "confirm"}
    )
    return winning_trial(rows, about.get("confirm_top") or 1, seeds)


def is_finite(value: float | None) -> bool:
    """Whether there is a figure."""
    return value is not None and math.isfinite(value)
