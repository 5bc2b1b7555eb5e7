"""The learning curves of a study's page: all runs in one chart, or one small chart an arm."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sadcl.reports.page.svg import (
    SERIES,
    Tooltips,
    dash_pattern,
    inline_svg,
    page_style,
    small_axes,
    with_margin,
)
from sadcl.reports.plot_style import FAINT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASHES = ("", "5 2", "1.5 1.5", "7 2 1.5 2")
TILE_SIZE = (2.3, 1.75)
"""Inches; of one of many small charts."""
Points = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Curve:
    """The held-out mAP of a run over epochs.

    Attributes:
        group: runs of one group look alike and share a mean; None is for runs in the background.
        points: epoch and held-out mAP.
    """

    name: str
    group: int | None
    points: Points
    is_stopped: bool = False


def group_style(group: int | None) -> tuple[str, str]:
    """Return the colour and the dashes of a group; None is the background."""
    if group is None:
        return FAINT, ""
    return SERIES[group % len(SERIES)], DASHES[group // len(SERIES) % len(DASHES)]


def curves_chart(runs: Sequence[Curve], title: str, name: str) -> str:
    """Draw single runs as thin lines and the means of groups as thick ones.

    A cross marks a run that was stopped early.
    """
    with page_style():
        figure, axes = small_axes("epoch", "held-out mAP (%)", title)
        tooltips: Tooltips = {}
        for i, run in enumerate(runs):
            is_only = run.group is not None and sum(r.group == run.group for r in runs) == 1
            _draw_curve(axes, run, f"run{i}", is_only)
            tooltips[f"run{i}"] = _curve_text(run)
        for group in sorted({run.group for run in runs if run.group is not None}):
            _draw_group_mean(axes, group, [run for run in runs if run.group == group])
        alt = f"Held-out mAP of {len(runs)} runs by epoch, {title}."
        return inline_svg(figure, name, alt, tooltips)


def _draw_curve(axes: Axes, run: Curve, gid: str, is_only: bool) -> None:
    """Draw a run; the only run of its group stands for the group's mean."""
    colour, dash = group_style(run.group)
    x, y = zip(*run.points, strict=True)
    line: dict[str, Any] = {
        "color": colour,
        "linewidth": 1.6 if is_only else 0.7,
        "alpha": 1.0 if is_only else 0.4 if run.group is None else 0.7,
        "gid": gid,
    }
    axes.plot(x, y, **line, linestyle=dash_pattern(dash), marker="." if len(x) == 1 else None)
    if run.is_stopped:
        axes.plot(x[-1:], y[-1:], marker="x", markersize=3.5, color=colour)


def _draw_group_mean(axes: Axes, group: int, runs: Sequence[Curve]) -> None:
    """Draw the mean of several runs over the epochs that all of them have."""
    points = mean_curve(runs)
    if len(runs) > 1 and points:
        colour, dash = group_style(group)
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=colour, linewidth=2, linestyle=dash_pattern(dash), zorder=3)


def mean_curve(runs: Sequence[Curve]) -> Points:
    """Average runs over the epochs that all of them have."""
    curves = [dict(run.points) for run in runs]
    epochs = sorted(set.intersection(*map(set, curves))) if curves else []
    return [(epoch, math.fsum(curve[epoch] for curve in curves) / len(curves)) for epoch in epochs]


def curve_tiles(groups: Mapping[str, Sequence[Curve]], name: str) -> list[str]:
    """Draw a small chart for each group: its runs, its mean, and the means of the others in grey.

    All have the same axes.

    Args:
        groups: the runs of each group by its name; none is empty.
        name: of the charts; each has its number added.
    """
    means = {group: mean_curve(runs) for group, runs in groups.items()}
    points = [point for runs in groups.values() for run in runs for point in run.points]
    limits = [with_margin(column) for column in zip(*points, strict=True)]
    with page_style():
        return [
            _curve_tile(group, runs, means, limits, f"{name}-{i}")
            for i, (group, runs) in enumerate(groups.items())
        ]


def _curve_tile(
    group: str,
    runs: Sequence[Curve],
    means: Mapping[str, Points],
    limits: Sequence[tuple[float, float]],
    name: str,
) -> str:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=TILE_SIZE)
    title = textwrap.wrap(group, 30)
    axes = figure.subplots()
    figure.subplots_adjust(left=0.15, right=0.98, bottom=0.15, top=0.94 - 0.09 * len(title))
    for points in (points for other, points in means.items() if other != group and points):
        axes.plot(*zip(*points, strict=True), color=FAINT, linewidth=0.6, alpha=0.45)
    tooltips: Tooltips = {}
    for i, run in enumerate(runs):
        _draw_curve(axes, run, f"run{i}", len(runs) == 1)
        tooltips[f"run{i}"] = _curve_text(run)
    if len(runs) > 1 and means[group]:
        axes.plot(*zip(*means[group], strict=True), color=SERIES[0], linewidth=2, zorder=3)
    axes.set(xlim=limits[0], ylim=limits[1])
    axes.set_title("\n".join(title), fontsize=8, fontweight="bold", loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(width=0.6, length=3, labelsize=7.5)
    alt = f"Held-out mAP of {len(runs)} runs of {group} by epoch."
    return inline_svg(figure, name, alt, tooltips)


def _curve_text(run: Curve) -> str:
    epoch, value = run.points[-1]
    return f"{run.name}: {value:.2f} after epoch {epoch}" + ", stopped early" * run.is_stopped
