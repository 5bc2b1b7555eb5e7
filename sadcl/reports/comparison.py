"""Studies side by side: what each has confirmed, beside what looks better and is not."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sadcl.errors import UserError, did_you_mean
from sadcl.reports.statistics import interval
from sadcl.results import store
from sadcl.search.ranking import chosen_trial, is_finite

COLUMNS = (
    "key",
    "study",
    "phase",
    "arm",
    "seed",
    "dataset",
    "scale",
    "status",
    "params",
    "val_mAP",
    "test_mAP",
    "seconds",
)
COSTS = ("workers", "gpus")
Row = dict[str, Any]


def compare_studies(root: str, studies: Sequence[str] = ()) -> list[Row]:
    """A row for each study and data set, in the order given, or all studies by name.

    ``test mAP`` is the answer: the mean over the seeds of the setting that was confirmed (of an ablation, of the arm with
    the best held-out mean), with half of its 95 % interval; held-out images chose, test images did not. ``best-ever,
    optimistic`` is the highest held-out mAP of any epoch of any run, and ``its last epoch`` what that run ended with.
    ``paper`` is the published figure, at full scale only.

    Raises:
        UserError: for an unknown study.
    """
    table = store.read(root, "trials")
    trials = table.select([*COLUMNS, *COSTS]).to_pylist()
    sides = (
        table["data_image_size"].to_pylist()
        if "data_image_size" in table.column_names
        else [None] * len(table)
    )
    trials = [{**row, "data_image_size": side} for row, side in zip(trials, sides, strict=True)]
    known = sorted(
        {row["study"] for row in trials if row["study"] is not None}
        | set(store.recorded_studies(root))
    )
    for name in studies:
        if name not in known:
            raise UserError(f"There is no study {name!r} here{did_you_mean(name, known)}")
    wanted = list(dict.fromkeys(studies)) or known
    curves = _curves(root, {row["key"] for row in trials if row["study"] in set(wanted)})
    lines = []
    for name in wanted:
        about = store.study_record(root, name)
        mine = [row for row in trials if row["study"] == name]
        for dataset in dict.fromkeys(
            [row["dataset"] for row in mine if row["phase"] != "stage1"] or [None]
        ):
            lines.append(
                _line(name, dataset, about, [r for r in mine if r["dataset"] == dataset], curves)
            )
    return lines


def _curves(root: str, keys: set[str]) -> dict[str, list[tuple[int, int, float]]]:
    """Stage, epoch and held-out mAP of the runs' epochs."""
    table = store.read(root, "epochs", ["key", "stage", "epoch", "val_mAP"])
    curves: dict[str, list[tuple[int, int, float]]] = defaultdict(list)
    for key, *at in zip(*(column.to_pylist() for column in table.columns), strict=True):
        if key in keys and at[2] is not None and math.isfinite(at[2]):
            curves[key].append((at[0], at[1], at[2]))
    return curves


def _line(
    name: str,
    dataset: str | None,
    about: Mapping[str, Any],
    mine: Sequence[Row],
    curves: Mapping[str, Sequence[tuple[int, int, float]]],
) -> Row:
    setting, runs = comparison_answer(mine, about)
    tested = [row["test_mAP"] for row in runs if is_finite(row["test_mAP"])]
    mean, half = interval(tested) if tested else (None, None)
    ever = max(
        ((value, row["key"]) for row in mine for *_, value in curves.get(row["key"], ())),
        default=None,
    )
    scale = about.get("scale") or next((row["scale"] for row in mine), None)
    arm = setting if about.get("kind") == "ablation" else None
    hours = [(row["seconds"] or 0) / 3600 for row in mine]
    return {
        "study": name,
        "data set": dataset,
        "scale": scale,
        "setting": setting,
        "seeds": len(tested),
        "test mAP": mean,
        "± 95 %": half if half is not None and math.isfinite(half) else None,
        "best-ever, optimistic": ever[0] if ever else None,
        "its last epoch": max(curves[ever[1]])[2] if ever else None,
        "paper": _paper(dataset, arm, {row["data_image_size"] for row in mine})
        if scale == "full"
        else None,
        "trials": len(mine),
        "hours": sum(hours),
        "GPU hours": sum(map(gpu_hours, mine)),
    }


def gpu_hours(row: Mapping[str, Any]) -> float:
    """Of a run's workers together, also of a row that was written before there was such a column."""
    known: float | None = row.get("gpu_hours")
    return (
        known
        if known is not None
        else (row["seconds"] or 0) * (row["workers"] or 1) * (row["gpus"] or 0) / 3600
    )


def _paper(dataset: str | None, arm: str | None, sides: set[int | None]) -> float | None:
    """The published test mAP of SADCL, or of an arm of Table 7, at the runs' side in pixels."""
    from sadcl.results import published

    cells = [
        cell
        for cell in published.table().to_pylist()
        if (cell["dataset"], cell["metric"]) == (dataset, "mAP")
    ]
    if arm is None:
        cells = [cell for cell in cells if cell["is_ours"] and cell["arm"] is None]
    else:
        cells = [cell for cell in cells if cell["arm"] == arm]
    return next((cell["value"] for cell in cells if cell["test_px"] in sides), None)


def comparison_answer(
    rows: Iterable[Row], about: Mapping[str, Any]
) -> tuple[str | None, list[Row]]:
    """What a study chose by its held-out images, and the runs over seeds that say what it comes to.

    Of a search the setting that it ended with, once that is confirmed; of an ablation the arm with the best mean held-out mAP
    over the seeds that all have.
    """
    complete = [row for row in rows if row["status"] == "complete" and is_finite(row["val_mAP"])]
    best = chosen_trial(complete, about)
    if best is not None:
        same = ("confirm", "tuned", best["params"])
        again = [row for row in complete if (row["phase"], row["arm"], row["params"]) == same]
        return (_setting(best["settings"]), again) if again else (None, [])
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in complete:
        if row["phase"] == "arm":
            groups[row["arm"]].append(row)
    shared = (
        set.intersection(*({row["seed"] for row in group} for group in groups.values()))
        if groups
        else set()
    )

    def mean(group: tuple[str, list[Row]]) -> float:  # seeds differ by more than settings
        values = [row["val_mAP"] for row in group[1] if row["seed"] in shared or not shared]
        return sum(values) / len(values)

    return max(groups.items(), key=mean, default=(None, []))


def _setting(params: Mapping[str, Any]) -> str:
    return " ".join(
        f"{k.split('.')[-1]}={f'{v:.3g}' if isinstance(v, float) else v}" for k, v in params.items()
    )
