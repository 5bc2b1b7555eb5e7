"""How many seeds it takes to show a small difference, at the spread that was seen so far."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sadcl.reports.statistics import ALPHA, Effect, compare_arms
from sadcl.search import AblationPlan
from sadcl.search.until import MAX_SEEDS, MIN_PAIRS, deciding_metric
from sadcl.study import record

DIFFERENCE = 0.3
"""Percentage points of mAP: about what the paper reports for one contrast."""
POWER = 0.8
"""The probability with which the difference is to be shown."""

Rows = Sequence[Mapping[str, Any]]


def needed_seeds_lines(plan: AblationPlan, root: str, rows: Rows) -> Iterator[str]:
    """Say how many seeds a difference of 0.3 needs on each data set.

    The spread is that of the study's own pairs. Where it has fewer than three, it is that of the
    other study in the storage that has the most pairs of the same two arms.

    Args:
        plan: of the ablation.
        root: the storage.
        rows: of the study.
    """
    own = [row for row in rows if row["study"] == plan.study]
    others: list[dict[str, Any]] | None = None
    for dataset in plan.contexts:
        spreads, source = _spreads(plan, dataset, own), "so far"
        if not spreads:
            others = record.all_rows(root) if others is None else others
            by_study: dict[str, list[Mapping[str, Any]]] = {}
            for row in others:
                if row["study"] not in (None, plan.study):
                    by_study.setdefault(row["study"], []).append(row)
            found = {name: _spreads(plan, dataset, of) for name, of in by_study.items()}
            source = max(found, key=lambda name: len(found[name]), default="")
            spreads = found.get(source, [])
            source = f"of the same arms in the study {source}"
        yield f"  {_sentence(plan, dataset, spreads, source)}"


def _spreads(plan: AblationPlan, dataset: str, rows: Rows) -> list[float]:
    """Return the standard deviation of the paired differences of each arm that has enough pairs."""
    runs = [row for row in rows if row["phase"] == "arm" and row["dataset"] == dataset]
    runs = [row for row in runs if row["arm"] in plan.arms]
    effects: list[Effect] = compare_arms(
        _without_doubles(runs),
        plan.ablation.baseline,
        deciding_metric(runs),
        list(plan.arms),
        references=plan.ablation.references,
    )
    return [e.difference_sd for e in effects if len(e.pairs) >= MIN_PAIRS and e.difference_sd > 0]


def _without_doubles(rows: Rows) -> list[Mapping[str, Any]]:
    """Return one complete run of each arm and seed."""
    complete = [row for row in rows if row["status"] == "complete"]
    return list({(row["arm"], row["seed"]): row for row in complete}.values())


def _sentence(plan: AblationPlan, dataset: str, spreads: Sequence[float], source: str) -> str:
    if not spreads:
        return (
            f"{dataset}: how many seeds a difference of {DIFFERENCE} points needs is not known "
            f"yet, because the storage has no {MIN_PAIRS} pairs of any of these arms"
        )
    family = len(plan.ablation.compared)
    counts = sorted({seeds_needed(spread, family) for spread in (min(spreads), max(spreads))})
    sds = sorted({f"{min(spreads):.2f}", f"{max(spreads):.2f}"}, key=float)
    numbers = " to ".join(f"{n:,}" if n <= MAX_SEEDS else f"more than {MAX_SEEDS}" for n in counts)
    until = plan.ablation.until
    limit = until.at_most if until else len(plan.ablation.seed_numbers)
    short = f", but there are at most {limit}" if counts[-1] > limit else ""
    return (
        f"{dataset}: a difference of {DIFFERENCE} points needs {numbers} seeds at the spread "
        f"{source} (standard deviation of the paired differences {' to '.join(sds)} points), to be "
        f"shown with a probability of {POWER:.0%} beside {family - 1} other arms{short}"
    )


def seeds_needed(spread: float, family: int, difference: float = DIFFERENCE) -> int:
    """Return the least number of pairs with which a paired t test shows a difference.

    Args:
        spread: the standard deviation of the paired differences, in percentage points.
        family: the number of arms that are tested on the data set; the level is divided by it.
        difference: the true difference, in percentage points.

    Returns:
        The number, at least 3; ``MAX_SEEDS + 1`` where it is above ``MAX_SEEDS``. It is that of a
        fixed number of seeds; looking after each seed needs about a third more at the limit, and
        often fewer.
    """
    from scipy import special, stats

    for count in range(MIN_PAIRS, MAX_SEEDS + 1):
        critical = -float(special.stdtrit(count - 1, ALPHA / family / 2))
        shift = difference / spread * math.sqrt(count)
        if stats.nct.sf(critical, count - 1, shift) >= POWER:
            return count
    return MAX_SEEDS + 1
