"""Which runs of a study become which learning curve, and how many of them are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from sadcl.reports.effect_text import arm_text
from sadcl.reports.page import curve_charts
from sadcl.reports.page.curve_charts import Curve
from sadcl.reports.page.study import StudyData, run_title
from sadcl.reports.page.svg import COLOURS
from sadcl.search.ranking import ranked_trials

T = TypeVar("T")
MAX_CURVES = 120
"""The largest number of curves in a chart; with more, the page says how many."""
MAX_GROUPS = 6
"""The largest number of groups in one chart; more have a small chart each."""


def thin(items: Sequence[T], most: int) -> list[T]:
    """Choose at most ``most`` items at even distances, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


class LegendEntry(NamedTuple):
    """A line of the legend: the colour's variable in the style sheet, and the dashes."""

    name: str
    colour: str
    dashes: str


class CurvesFigure(NamedTuple):
    """A chart with its caption, or several small ones with one caption."""

    charts: tuple[str, ...]
    caption: str


@dataclass(frozen=True)
class CurvesSection:
    """The learning curves.

    Attributes:
        panels: a chart for each data set and stage of few groups.
        tiles: small charts for each data set and stage of many groups.
        legend: of ``panels``; it has the groups that have a line in them.
        notes: what lines and marks mean, and what was left out.
    """

    panels: tuple[CurvesFigure, ...]
    tiles: tuple[CurvesFigure, ...]
    legend: tuple[LegendEntry, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Stage:
    """The runs of a data set and stage: those of each group, and those in the background."""

    title: str
    groups: Mapping[str, Sequence[Curve]]
    others: Sequence[Curve]


def curves_section(study: StudyData) -> CurvesSection:
    """Draw the learning curves."""
    stages = _stages(study)
    few = [stage for stage in stages if len(stage.groups) <= MAX_GROUPS]
    many = [stage for stage in stages if len(stage.groups) > MAX_GROUPS]
    names = list(dict.fromkeys(name for stage in few for name in stage.groups))
    panels: list[CurvesFigure] = []
    notes: list[str] = []
    for stage in few:
        runs = _with_numbers(stage, names)
        drawn = _thin_curves(runs)
        svg = curve_charts.curves_chart(drawn, stage.title, f"curves{len(panels)}")
        panels.append(CurvesFigure((svg,), f"Held-out mAP after each epoch of {stage.title}."))
        if len(drawn) < len(runs):
            notes.append(
                f"{stage.title}: {len(drawn)} of {len(runs):,} runs are drawn, at even distances "
                "by their last held-out mAP."
            )
    legend = [_legend_entry(name, group) for group, name in enumerate(names)]
    if any(stage.others for stage in few):
        others = "other trials" if study.kind == "search" else "other runs"
        legend.append(_legend_entry(others, None))
    return CurvesSection(
        panels=tuple(panels),
        tiles=tuple(_tiles(stage, f"tiles{i}") for i, stage in enumerate(many)),
        legend=tuple(legend),
        notes=(*_line_notes(few, many), *notes),
    )


def _stages(study: StudyData) -> list[_Stage]:
    """Return each data set and stage that has curves, ordered by their last held-out mAP."""
    stages = []
    for dataset in study.datasets:
        groups = {
            row["key"]: name for name, rows in study.curve_groups(dataset).items() for row in rows
        }
        order = list(dict.fromkeys(groups.values()))
        for stage in (1, 2):
            by_group: dict[str | None, list[Curve]] = {name: [] for name in order}
            for row in study.rows:
                if row["dataset"] == dataset and (points := study.curve(row, stage)):
                    is_stopped = row["status"] == "pruned"
                    curve = Curve(run_title(row), None, points, is_stopped)
                    by_group.setdefault(groups.get(row["key"]), []).append(curve)
            for curves in by_group.values():
                curves.sort(key=lambda curve: curve.points[-1][1])
            others = by_group.pop(None, [])
            named = {name: curves for name, curves in by_group.items() if name and curves}
            title = f"stage {stage}" + f", {dataset}" * (len(study.datasets) > 1)
            if named or others:
                stages.append(_Stage(title, named, others))
    return stages


def _with_numbers(stage: _Stage, names: Sequence[str]) -> list[Curve]:
    """Return all runs of a stage with the numbers of their groups."""
    numbered = [
        replace(run, group=names.index(name)) for name, runs in stage.groups.items() for run in runs
    ]
    return [*stage.others, *numbered]


def _thin_curves(runs: Sequence[Curve]) -> list[Curve]:
    """Choose the curves to draw, the background first; at least half may be of groups."""
    named = thin([run for run in runs if run.group is not None], MAX_CURVES)
    background = [run for run in runs if run.group is None]
    return thin(background, MAX_CURVES - min(len(named), MAX_CURVES // 2)) + named


def _tiles(stage: _Stage, name: str) -> CurvesFigure:
    groups = {
        arm_text(group): [replace(run, group=0) for run in runs]
        for group, runs in stage.groups.items()
    }
    caption = (
        f"Held-out mAP (%) after each epoch of {stage.title}, a chart for each arm, all on the "
        "same axes. Thick: the mean of its runs; thin: single runs; grey: the means of the others."
    )
    return CurvesFigure(tuple(curve_charts.curve_tiles(groups, name)), caption)


def _legend_entry(name: str, group: int | None) -> LegendEntry:
    colour, dashes = curve_charts.group_style(group)
    return LegendEntry(arm_text(name), COLOURS[colour], dashes)


def _line_notes(few: Sequence[_Stage], many: Sequence[_Stage]) -> list[str]:
    """State what the lines and marks mean that there are."""
    notes = []
    if few:
        notes.append(
            "Thin lines: single runs. Thick lines: the mean of the runs of one setting, over the "
            "epochs that all of them have; a setting with one run has only a thick line."
        )
    runs = [
        run
        for stage in (*few, *many)
        for group in (stage.others, *stage.groups.values())
        for run in group
    ]
    if any(run.is_stopped for run in runs):
        notes.append("Crosses: runs that were stopped early.")
    if any(len(run.points) == 1 for run in runs):
        notes.append("Dots: runs of a single epoch.")
    return notes


def best_run_curve(study: StudyData) -> CurvesFigure | None:
    """Draw the best run of a study in its last stage, the others in the background."""
    best = study.best_run() or next(iter(ranked_trials(study.rows)), None)
    if best is None:
        return None
    stage = 2 if study.curve(best, 2) else 1
    curves = [
        Curve(run_title(row), 0 if row["key"] == best["key"] else None, points)
        for row in study.rows
        if row["dataset"] == best["dataset"] and (points := study.curve(row, stage))
    ]
    named = [curve for curve in curves if curve.group == 0]
    if not named:
        return None
    drawn = [*thin([curve for curve in curves if curve.group is None], MAX_CURVES), *named]
    svg = curve_charts.curves_chart(drawn, "", "best")
    others = f"; grey: {len(drawn) - 1} other runs" if len(drawn) > 1 else ""
    caption = f"Held-out mAP after each epoch of stage {stage}. Blue: {named[0].name}{others}."
    return CurvesFigure((svg,), caption)
