"""The section of a page that has a search: its trials, their settings, and what matters."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sadcl.console import short_names
from sadcl.reports.importance import importances
from sadcl.reports.importance_text import importance_sentences
from sadcl.reports.page import search_charts as charts
from sadcl.reports.page.curves import thin
from sadcl.reports.page.study import Row, StudyData, run_title, searched_settings
from sadcl.reports.page.svg import SMALL_SIZE
from sadcl.reports.page.tables import MAX_ROWS, Cells, setting_cell
from sadcl.search.ranking import ranked_trials
from sadcl.search.space import Float, Int, plain
from sadcl.search.study_file import described_stopping, read_space

Progress = Callable[[int, int], None]
MAX_LINES = 150
"""The largest number of lines in a chart; with more, the page says how many."""
MAX_STRONG = 30
"""The largest number of trials that are drawn as the best."""
UNSET = 0.15
"""How far above the trials that do not have a field an axis begins."""


@dataclass(frozen=True)
class SearchSection:
    """The charts and the table of a search.

    Attributes:
        history, parallel, importance: charts; empty where there is nothing to draw.
        importance_note: the findings on importance.
        trials: the best, one row each.
        num_trials: of the search.
        num_ended: trials with a figure that are complete or were stopped early.
        num_drawn: of these, the lines of ``parallel``; ``num_strong`` of them are drawn as best.
        stopped_note: which trials were stopped early, and after which epoch; empty for none.
    """

    history: str
    parallel: str
    importance: str
    importance_note: str
    trials: Cells
    num_trials: int
    num_ended: int
    num_drawn: int
    num_strong: int
    stopped_note: str


def trial_points(study: StudyData) -> list[charts.TrialPoint]:
    """Return the trials of a search by their start."""
    return [
        charts.TrialPoint(number, run_title(row), row["status"], study.held_out_mAP(row))
        for number, row in enumerate(study.phase("search"), 1)
    ]


def history(
    study: StudyData, size: tuple[float, float] = SMALL_SIZE, others: Sequence[float] = ()
) -> str:
    """Draw the trials of a search by their start; empty where none has a held-out mAP.

    Args:
        study: the search.
        size: width and height in inches.
        others: held-out mAP of trials of another study, which the scale has too.
    """
    trials = trial_points(study)
    references = {
        name: runs[0]["val_mAP"]
        for name, arm in (("control", "stage2"), ("pooled baseline", "baseline"))
        if (runs := ranked_trials(study.phase("baseline", arm)))
    }
    if not any(math.isfinite(trial.held_out_mAP) for trial in trials):
        return ""
    return charts.history_chart(trials, references, size, others)


def search_section(
    study: StudyData, progress: Progress | None, *, with_history: bool = True
) -> SearchSection:
    """Draw the history, the settings and the importance of a search, and list its best trials.

    Args:
        study: the search.
        progress: called with the evaluations of importance done and their total.
        with_history: whether to draw the history, which may be at the top of the page.
    """
    trials = trial_points(study)
    scored = [
        (trial, row)
        for trial, row in zip(trials, study.phase("search"), strict=True)
        if math.isfinite(trial.held_out_mAP)
    ]
    scored.sort(key=lambda pair: (pair[0].status != "complete", -pair[0].held_out_mAP))
    ended = [pair for pair in scored if pair[0].status in ("complete", "pruned")]
    num_complete = sum(trial.status == "complete" for trial, _ in ended)
    num_strong = min(math.ceil(num_complete / 10), MAX_STRONG)
    drawn = ended[:num_strong] + thin(ended[num_strong:], MAX_LINES)
    names = short_names(sorted({field for _, row in drawn for field in searched_settings(row)}))
    importance, importance_note = _importance(study, progress)
    return SearchSection(
        history=history(study) if with_history else "",
        parallel=_parallel(study, drawn, names, num_strong) if len(drawn) > 1 and names else "",
        importance=importance,
        importance_note=importance_note,
        trials=[_trial_line(trial, row, names) for trial, row in scored[:MAX_ROWS]],
        num_trials=len(trials),
        num_ended=len(ended),
        num_drawn=len(drawn),
        num_strong=num_strong,
        stopped_note=_stopped_note(study),
    )


def _importance(study: StudyData, progress: Progress | None) -> tuple[str, str]:
    """Draw the importance of each field, and state the findings."""
    space = read_space(study.description)
    result = importances(study.name, study.phase("search"), space, progress=progress)
    names = short_names([*(one.field for one in result.fields), *result.omitted])
    sentences = list(importance_sentences(result))
    if not result.fields:
        return "", " ".join(sentences)
    marks = (
        "Diamonds: the share of each field, with its 95 % interval; filled where it is significant."
    )
    return charts.importance_chart(result.fields, names), " ".join([marks, *sentences])


def _parallel(
    study: StudyData,
    drawn: Sequence[tuple[charts.TrialPoint, Row]],
    names: Mapping[str, str],
    num_strong: int,
) -> str:
    """Draw the settings of trials; the first ``num_strong`` are the best."""
    space = read_space(study.description)
    settings = [searched_settings(row) for _, row in drawn]
    axes = []
    for field, name in names.items():
        domain = plain(space[field]) if field in space else None
        is_log = isinstance(domain, Float | Int) and domain.log
        axes.append(_with_unset(_axis(name, [s.get(field) for s in settings], is_log)))
    axes.append(_axis("held-out mAP", [trial.held_out_mAP for trial, _ in drawn]))
    kinds = [
        "best" if i < num_strong else "other" if trial.status == "complete" else "pruned"
        for i, (trial, _) in enumerate(drawn)
    ]
    tooltips = []
    for (trial, _), setting in zip(drawn, settings, strict=True):
        text = ", ".join(f"{names[field]} {setting_cell(v)}" for field, v in setting.items())
        tooltips.append(f"{trial.name}: {text}: {trial.held_out_mAP:.2f}")
    return charts.parallel_chart(axes, tooltips, kinds)


def _trial_line(trial: charts.TrialPoint, row: Row, names: Mapping[str, str]) -> dict[str, str]:
    settings = searched_settings(row)
    return {
        "trial": trial.name,
        **{name: setting_cell(settings.get(field)) for field, name in names.items()},
        "held-out mAP": f"{trial.held_out_mAP:.2f}",
        "epochs": str(row["epochs_done"] or ""),
        "status": charts.STATUS_TEXTS.get(trial.status, trial.status),
    }


def _position(epoch: Mapping[str, Any]) -> tuple[int, int]:
    return epoch["stage"], epoch["epoch"]


def _stopped_note(study: StudyData) -> str:
    """State how many trials were stopped early, by which rule, and after which epochs."""
    pruned = [row for row in study.phase("search") if row["status"] == "pruned"]
    if not pruned:
        return ""
    last_epochs = Counter(
        max(study.epochs.get(row["key"], ()), key=_position, default={"epoch": 0})["epoch"]
        for row in pruned
    )
    counts = ", ".join(
        f"{n} {'trial' if n == 1 else 'trials'} after epoch {epoch}"
        for epoch, n in sorted(last_epochs.items())
    )
    rule = described_stopping(study.description)
    return f"Stopped early{f' ({rule})' if rule else ''}: {counts}."


def _axis(name: str, values: Sequence[Any], is_log: bool = False) -> charts.Axis:
    """Place numbers by their size, on a logarithmic scale if ``is_log``; other values in order."""
    numbers = [
        float(v) if isinstance(v, (int, float)) and not isinstance(v, bool) else math.nan
        for v in values
    ]
    if any(v is not None and math.isnan(x) for v, x in zip(values, numbers, strict=True)):
        return _categorical_axis(name, values)
    finite = [x for x in numbers if math.isfinite(x)]
    is_log = is_log and min(finite) > 0

    def scale(x: float) -> float:
        return math.log10(x) if is_log else x

    low, high = scale(min(finite)), scale(max(finite))
    if low == high:
        positions = [0.5 if math.isfinite(x) else math.nan for x in numbers]
        return charts.Axis(name, positions, [(0.5, f"{finite[0]:.3g}")])
    positions = [(scale(x) - low) / (high - low) if math.isfinite(x) else math.nan for x in numbers]
    ticks = [(t, low + t * (high - low)) for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return charts.Axis(name, positions, [(t, f"{10**x if is_log else x:.3g}") for t, x in ticks])


def _with_unset(axis: charts.Axis) -> charts.Axis:
    """Place trials that do not have a field below those that have it, so that no line is cut."""
    if all(map(math.isfinite, axis.positions)):
        return axis

    def place(y: float) -> float:
        return 1 - (1 - UNSET) * (1 - y) if math.isfinite(y) else 0.0

    ticks = [(0.0, "not set"), *((place(y), text) for y, text in axis.ticks)]
    return charts.Axis(axis.name, [place(y) for y in axis.positions], ticks)


def _categorical_axis(name: str, values: Sequence[Any]) -> charts.Axis:
    categories = sorted({str(v) for v in values if v is not None})
    places = {v: (i + 0.5) / len(categories) for i, v in enumerate(categories)}
    positions = [places.get(str(v), math.nan) for v in values]
    return charts.Axis(name, positions, [(place, v) for v, place in places.items()])
