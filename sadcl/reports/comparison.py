"""Studies side by side: the confirmed result of each, compared with its most optimistic figure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sadcl.console import settings_text
from sadcl.errors import UserError, did_you_mean
from sadcl.reports.statistics import interval
from sadcl.results import store
from sadcl.search.ranking import chosen_trial, is_finite
from sadcl.search.until import until_from_json

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
    "workers",
    "gpus",
)
Row = dict[str, Any]
Curves = Mapping[str, Sequence[tuple[int, int, float]]]
"""Stage, epoch and held-out mAP of each run's epochs, by the run's key."""


@dataclass(frozen=True)
class ComparedStudy:
    """The result of a study on one data set.

    Attributes:
        dataset: None where the study has no run yet.
        scale: ``full`` or ``demo``; None where it is not known.
        setting: the confirmed setting of a search; of an ablation, the arm with the best mean
            held-out mAP; None where there is none.
        num_seeds: seeds of ``setting`` that have a test mAP.
        test_mAP: mean over these seeds, in percent. The held-out images chose the setting; the test
            images chose nothing.
        test_half_width: of the 95 % interval of ``test_mAP``, for this mean alone; None for one
            seed.
        best_epoch: the highest held-out mAP of any epoch of any run, which is optimistic.
        last_epoch: the held-out mAP of that run's last epoch.
        published: the paper's test mAP; at full scale only.
        num_trials: rows of the trials table.
        hours, gpu_hours: of all these runs together.
    """

    study: str
    dataset: str | None
    scale: str | None
    setting: str | None
    num_seeds: int
    test_mAP: float | None
    test_half_width: float | None
    best_epoch: float | None
    last_epoch: float | None
    published: float | None
    num_trials: int
    hours: float
    gpu_hours: float


def compare_studies(root: str, studies: Sequence[str] = ()) -> list[ComparedStudy]:
    """Read the result of each study on each data set.

    Args:
        root: the storage.
        studies: names, in order; none takes all studies by name.

    Raises:
        UserError: for an unknown study.
    """
    trials = _trials(root)
    names = sorted(
        {row["study"] for row in trials if row["study"] is not None}
        | set(store.recorded_studies(root))
    )
    for name in studies:
        if name not in names:
            raise UserError(f"There is no study {name!r} here{did_you_mean(name, names)}")
    selection = list(dict.fromkeys(studies)) or names
    curves = _curves(root, {row["key"] for row in trials if row["study"] in set(selection)})
    answers = []
    for name in selection:
        description = store.study_record(root, name)
        runs = [row for row in trials if row["study"] == name]
        datasets = dict.fromkeys(row["dataset"] for row in runs if row["phase"] != "stage1")
        for dataset in datasets or [None]:
            of_dataset = [row for row in runs if row["dataset"] == dataset]
            chosen, confirmed = comparison_answer(of_dataset, description)
            answers.append((name, dataset, description, of_dataset, chosen, confirmed))
    fields = {field for *_, one, _ in answers if isinstance(one, Mapping) for field in one}
    return [
        # a short name means the same field in all studies
        _result(
            name,
            dataset,
            description,
            rows,
            settings_text(one, fields) if isinstance(one, Mapping) else one,
            runs,
            curves,
        )
        for name, dataset, description, rows, one, runs in answers
    ]


def comparison_table(results: Iterable[ComparedStudy]) -> list[Row]:
    """Return a row for each result, with the columns that a reader sees."""
    return [
        {
            "study": result.study,
            "data set": result.dataset,
            "scale": result.scale,
            "setting": result.setting,
            "seeds": result.num_seeds,
            "test mAP": result.test_mAP,
            "± 95 %": result.test_half_width or None,
            "best epoch (optimistic)": result.best_epoch,
            "last epoch of that run": result.last_epoch,
            "paper": result.published,
            "trials": result.num_trials,
            "hours": result.hours,
            "GPU hours": result.gpu_hours,
        }
        for result in results
    ]


def _trials(root: str) -> list[Row]:
    """Read the trials table; a run of an older version may lack the image size."""
    table = store.read(root, "trials")
    rows = table.select(COLUMNS).to_pylist()
    image_sizes: list[int | None] = [None] * len(table)
    if "data_image_size" in table.column_names:
        image_sizes = table["data_image_size"].to_pylist()
    return [{**row, "data_image_size": size} for row, size in zip(rows, image_sizes, strict=True)]


def _curves(root: str, keys: set[str]) -> Curves:
    table = store.read(root, "epochs", ["key", "stage", "epoch", "val_mAP"])
    curves: dict[str, list[tuple[int, int, float]]] = defaultdict(list)
    columns = (column.to_pylist() for column in table.columns)
    for key, stage, epoch, value in zip(*columns, strict=True):
        if key in keys and value is not None and math.isfinite(value):
            curves[key].append((stage, epoch, value))
    return curves


def _result(
    study: str,
    dataset: str | None,
    description: Mapping[str, Any],
    rows: Sequence[Row],
    setting: str | None,
    runs: Sequence[Row],
    curves: Curves,
) -> ComparedStudy:
    test_mAPs = [row["test_mAP"] for row in runs if is_finite(row["test_mAP"])]
    until = until_from_json(description.get("until"))
    mean, half_width = interval(test_mAPs, until=until) if test_mAPs else (None, None)
    best = max(
        ((value, row["key"]) for row in rows for *_, value in curves.get(row["key"], ())),
        default=None,
    )
    scale = description.get("scale") or next((row["scale"] for row in rows), None)
    arm = setting if description.get("kind") == "ablation" else None
    image_sizes = {row["data_image_size"] for row in rows}
    return ComparedStudy(
        study=study,
        dataset=dataset,
        scale=scale,
        setting=setting,
        num_seeds=len(test_mAPs),
        test_mAP=mean,
        test_half_width=half_width if is_finite(half_width) else None,
        best_epoch=best[0] if best else None,
        last_epoch=max(curves[best[1]])[2] if best else None,
        published=_published_mAP(dataset, arm, image_sizes) if scale == "full" else None,
        num_trials=len(rows),
        hours=sum((row["seconds"] or 0) / 3600 for row in rows),
        gpu_hours=sum(map(gpu_hours, rows)),
    )


def gpu_hours(row: Mapping[str, Any]) -> float:
    """Return the GPU hours of all workers of a run.

    Rows that were written before the column existed are computed from their parts.
    """
    recorded: float | None = row.get("gpu_hours")
    if recorded is not None:
        return recorded
    return (row["seconds"] or 0) * (row["workers"] or 1) * (row["gpus"] or 0) / 3600


def _published_mAP(
    dataset: str | None, arm: str | None, image_sizes: set[int | None]
) -> float | None:
    """Return the paper's test mAP of SADCL, or of an arm of its Table 7, at an image size."""
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
    return next((cell["value"] for cell in cells if cell["test_px"] in image_sizes), None)


def comparison_answer(
    rows: Iterable[Row], description: Mapping[str, Any]
) -> tuple[str | Mapping[str, Any] | None, list[Row]]:
    """Return what a study chose by its held-out images, and its runs over seeds.

    Of a search, this is the setting that it ended with, by field, once that is confirmed; of an
    ablation, the arm with the best mean held-out mAP over the seeds that all arms have.

    Args:
        rows: the study's rows of the trials table.
        description: what is written down about the study.
    """
    complete = [row for row in rows if row["status"] == "complete" and is_finite(row["val_mAP"])]
    chosen = chosen_trial(complete, description)
    if chosen is not None:
        confirmation = ("confirm", "tuned", chosen["params"])
        runs = [
            row for row in complete if (row["phase"], row["arm"], row["params"]) == confirmation
        ]
        return (chosen["settings"], runs) if runs else (None, [])
    arms: dict[str, list[Row]] = defaultdict(list)
    for row in complete:
        if row["phase"] == "arm":
            arms[row["arm"]].append(row)
    seeds = [{row["seed"] for row in runs} for runs in arms.values()]
    shared = set.intersection(*seeds) if seeds else set()

    def mean(arm: tuple[str, list[Row]]) -> float:
        """Average over the shared seeds, because seeds differ by more than settings do."""
        values = [row["val_mAP"] for row in arm[1] if row["seed"] in shared or not shared]
        return sum(values) / len(values)

    return max(arms.items(), key=mean, default=(None, []))
