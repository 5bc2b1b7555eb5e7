"""What the arms of an ablation cost: by their networks, and as their runs have measured it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sadcl.results.status import Status


class ArmCost(NamedTuple):
    """What an arm costs on one data set; None where it is not known.

    Attributes:
        parameters: the number of trainable parameters.
        gflops: floating-point operations of one image's forward pass, in 1e9.
        images_per_second: mean over the arm's complete runs.
        memory_mb: peak memory of a run, mean over these runs.
    """

    parameters: float | None = None
    gflops: float | None = None
    images_per_second: float | None = None
    memory_mb: float | None = None


def arm_costs(
    described: Mapping[str, Mapping[str, Mapping[str, float]]],
    rows: Iterable[Mapping[str, Any]],
    stages1: Mapping[str | None, Mapping[str, Any]],
) -> dict[tuple[str, str], ArmCost]:
    """Return what each arm costs, by data set and arm.

    Args:
        described: parameters and operations by data set and arm, as the study's file has them.
        rows: the arms' rows of the trials table.
        stages1: the row of each stage 1 by its key. An arm that is a shared stage 1, and trains
            nothing itself, has that one's speed and memory.
    """
    complete = [row for row in rows if row["status"] == Status.COMPLETE]
    costs = {}
    for dataset, arms in described.items():
        for arm, counts in arms.items():
            runs = [row for row in complete if (row["dataset"], row["arm"]) == (dataset, arm)]
            trained = [
                row if row.get("images_per_second") else stages1.get(row.get("stage1_key"), row)
                for row in runs
            ]
            costs[dataset, arm] = ArmCost(
                counts.get("parameters"),
                counts.get("gflops"),
                _mean(trained, "images_per_second"),
                _mean(trained, "memory_mb"),
            )
    return costs


def _mean(rows: Sequence[Mapping[str, Any]], column: str) -> float | None:
    values = [row[column] for row in rows if row.get(column) is not None]
    return float(np.mean(values)) if values else None


def cost_cells(cost: ArmCost) -> dict[str, str]:
    """Format what an arm costs, one cell a column."""
    millions = None if cost.parameters is None else cost.parameters / 1e6
    return {
        "parameters (M)": _cell(millions, ".3g"),
        "GFLOPs": _cell(cost.gflops, ".3g"),
        "images/s": _cell(cost.images_per_second, ",.0f"),
        "memory (MB)": _cell(cost.memory_mb, ",.0f"),
    }


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


COST_NOTE = (
    "Parameters are those that train. GFLOPs are the floating-point operations of a forward pass "
    "of one image, a multiplication and an addition being two. Images/s (training and selection) "
    "and memory are means over the runs, without a stage 1 that an arm starts from; on a CPU, "
    "memory is the peak of the whole process, which may have run others before."
)
