"""Rows of the tables in the words of people, for commands that print them on a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sadcl.console import bytes_text, clock_text, setting_text, short_names

if TYPE_CHECKING:
    from sadcl.reports.comparison import ComparedStudy

Row = Mapping[str, Any]
RANKED = ("search", "arm", "train")
"""The phases whose trials are ranked, the first that a study has; the others serve these."""
_FIGURES = {"val_mAP": "held-out", "test_mAP": "test"}


def with_whole_numbers(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows in which counts and whole fields of the configuration are integers.

    The tables store them as float64. Of a query, the columns ``max(NAME)`` and the like count too.
    """
    from sadcl.results import trial_columns

    names = {name for row in rows for name, value in row.items() if isinstance(value, float)}
    whole = {name for name in names if _source(name) in trial_columns.whole_columns()}
    return [{name: _whole(v) if name in whole else v for name, v in row.items()} for row in rows]


def _source(column: str) -> str:
    found = re.fullmatch(r"(?:any_value|first|last|max|median|min|mode|sum)\((\w+)\)", column)
    return found[1] if found else column


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def ranked_phases(counts: Mapping[str, int], phase: str | None) -> list[list[str] | None]:
    """Choose the phases whose trials are ranked together.

    Args:
        counts: Trials of each phase.
        phase: The one that was asked for, or ``all``; None chooses.

    Returns:
        Phases, each None for all: the first of which a trial has the metric are ranked.

    Raises:
        UserError: For a phase that has no trial.
    """
    from sadcl.errors import UserError

    if phase is None:
        return [*([name] for name in RANKED if name in counts), None]
    if phase == "all":
        return [None]
    if counts and phase not in counts:
        raise UserError(
            f"There is no trial of the phase {phase!r}; there are: {', '.join(counts)}."
        )
    return [[phase]]


def other_phases(counts: Mapping[str, int], phases: Sequence[str] | None) -> str:
    """Say which phases are not ranked; empty where there is none."""
    others = {name: n for name, n in counts.items() if phases is not None and name not in phases}
    if not others:
        return ""
    text = ", ".join(f"{name} {n:,}" for name, n in others.items())
    return f"Trials of other phases are not ranked here ({text}); --phase NAME shows them."


def ranking_columns(metric: str) -> list[str]:
    """The columns of a ranking, as the tables name them."""
    figures = dict.fromkeys([metric, *_FIGURES])
    return ["rank", "key", "study", "phase", "arm", "seed", "status", *figures, "settings"]


def ranking(rows: Sequence[Row], metric: str) -> list[dict[str, Any]]:
    """Number the rows, with the settings of each in one cell."""
    numbered = [
        {**row, "rank": number, "settings": params_of(row)} for number, row in enumerate(rows, 1)
    ]
    return [{name: row[name] for name in ranking_columns(metric)} for row in numbered]


def short_ranking(rows: Sequence[Row], metric: str) -> list[dict[str, Any]]:
    """A ranking with one column for each field that the trials set."""
    from sadcl.search.trial import short_id

    settings = [params_of(row) for row in rows]
    names = short_names(sorted({field for one in settings for field in one}))
    lines = []
    for number, (row, values) in enumerate(zip(rows, settings, strict=True), 1):
        figures = {
            _FIGURES.get(name, name): row[name] for name in dict.fromkeys([metric, *_FIGURES])
        }
        lines.append(
            {
                "rank": number,
                "id": short_id(row["key"]),
                "study": row["study"],
                "phase": row["phase"],
                "arm": row["arm"],
                "seed": row["seed"],
                "state": row["status"],
                **figures,
                **{short: _cell(values.get(field)) for field, short in names.items()},
            }
        )
    return lines


def params_of(row: Row) -> dict[str, Any]:
    """The settings of a trial by their dotted names."""
    params: dict[str, Any] = json.loads(row["params"] or "{}")
    return params


def _cell(value: Any) -> str:
    return "" if value is None else setting_text(value)


def short_study(row: Row) -> dict[str, Any]:
    """A study's line: what it has, how its trials ended, and what it takes."""
    others = [f"{row[s]:,} {s}" for s in ("pruned", "failed", "running") if row[s]]
    line = {
        "study": row["study"],
        "data set": row["dataset"],
        "scale": row["scale"],
        "best held-out": row["best_val_mAP"],
        "trials": f"{row['trials']:,}" + (f" ({', '.join(others)})" if others else ""),
    }
    if "checkpoint_bytes" in row:
        line["disk"] = bytes_text(row["checkpoint_bytes"])
    return {**line, "started": None if row["started"] is None else f"{row['started']:%Y-%m-%d}"}


def short_comparison(result: ComparedStudy) -> dict[str, Any]:
    """A study's line beside others; its setting is said below."""
    mean, half = result.test_mAP, result.test_half_width
    interval = "" if half is None else f" ± {half:.2f}"
    return {
        "study": result.study,
        "data set": result.dataset,
        "test mAP ± 95 %": "" if mean is None else f"{mean:.2f}{interval}",
        "seeds": result.num_seeds,
        "paper": result.published,
        "best epoch": result.best_epoch,
        "last epoch": result.last_epoch,
        "time": None if result.hours is None else clock_text(3600 * result.hours),
        "GPU time": clock_text(3600 * result.gpu_hours) if result.gpu_hours else None,
    }


def comparison_notes(results: Sequence[ComparedStudy]) -> Iterator[str]:
    """Yield what the short lines leave out: the settings, and which figures are optimistic."""
    for result in results:
        if result.setting:
            yield f"{result.study}: {result.setting}"
    yield (
        "Best epoch is the highest held-out mAP of any epoch of any run, which is optimistic; last "
        "epoch is the same run's last."
    )


_TRIAL = {
    "key": "key",
    "study": "study",
    "phase": "phase",
    "arm": "arm",
    "seed": "seed",
    "dataset": "data set",
    "scale": "scale",
    "status": "state",
    "cause": "cause",
    "val_mAP": "held-out mAP",
    "test_mAP": "test mAP",
    "weights": "weights",
    "epoch": "selected epoch",
    "epochs_done": "epochs done",
    "checkpoint": "checkpoint",
    "stage1_key": "stage 1",
    "started": "started",
    "device": "device",
    "workers": "workers",
}


def short_trial(row: Row) -> dict[str, Any]:
    """A trial's row, as far as one looks at it first."""
    fields = {heading: row[name] for name, heading in _TRIAL.items() if row.get(name) is not None}
    if row.get("seconds") is not None:
        fields["time"] = clock_text(row["seconds"])
    fields |= {field: _cell(value) for field, value in params_of(row).items()}
    return {**fields, "": f"(--wide shows {len(row)} columns, sadcl results recipe the setting)"}


def _short_epochs(rows: Sequence[Row]) -> list[dict[str, Any]]:
    headings = {
        "stage": "stage",
        "epoch": "epoch",
        "val_mAP": "held-out",
        "val_mAP_raw": "raw",
        "val_mAP_ema": "EMA",
        "loss": "loss",
        "loss_class": "class",
        "loss_sample": "sample",
        "loss_prototype": "prototype",
        "admitted": "rows per label",
        "seconds": "seconds",
    }
    return [{heading: row.get(name) for name, heading in headings.items()} for row in rows]


def _short_labels(rows: Sequence[Row]) -> list[dict[str, Any]]:
    names = ("split", "label", "AP", "P", "R", "F1", "support")
    return [{name: row.get(name) for name in names} for row in rows]


SHORT: dict[str, Callable[[Sequence[Row]], list[dict[str, Any]]]] = {
    "epochs": _short_epochs,
    "labels": _short_labels,
}
"""What is shown of the other tables of a trial."""
