"""The charts of a study's page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sadcl.reports.ablation import AblationReport
from sadcl.reports.forest_plot import forest_figure
from sadcl.reports.importance import FieldImportance, ImportanceVerdict
from sadcl.reports.page.svg import SERIES, SMALL_SIZE, Tooltips, inline_svg, page_style
from sadcl.reports.plot_style import DARK, FAINT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


DASHES = ("", "5 2", "1.5 1.5", "7 2 1.5 2")
STATUS_TEXTS = {"pruned": "stopped early", "running": "not ended"}
HISTORY_MARKS: dict[str, dict[str, Any]] = {
    "complete": {"marker": "o", "color": SERIES[0]},
    "pruned": {"marker": "x", "color": FAINT},
    "running": {"marker": "^", "color": SERIES[1], "markerfacecolor": "#ffffff"},
}
PARALLEL_LINES: dict[str, dict[str, Any]] = {
    "pruned": {"color": FAINT, "linewidth": 0.8, "alpha": 0.8, "linestyle": (0, (2, 2))},
    "other": {"color": SERIES[0], "linewidth": 0.8, "alpha": 0.5},
    "best": {"color": SERIES[1], "linewidth": 1.5, "zorder": 3},
}


@dataclass(frozen=True)
class Curve:
    """The held-out mAP of a run over epochs.

    Attributes:
        group: runs of one group look alike and share a mean; None is for runs in the background.
        points: epoch and held-out mAP.
    """

    name: str
    group: int | None
    points: Sequence[tuple[int, float]]
    is_stopped: bool = False


@dataclass(frozen=True)
class TrialPoint:
    """A trial of a search.

    Attributes:
        number: by start, from 1.
        held_out_mAP: the last that it reached, if it was stopped early; nan if it failed.
    """

    number: int
    name: str
    status: str
    held_out_mAP: float


@dataclass(frozen=True)
class Axis:
    """An axis of parallel coordinates.

    Attributes:
        positions: of each trial, 0 to 1; nan where it has none.
        ticks: position and text.
    """

    name: str
    positions: Sequence[float]
    ticks: Sequence[tuple[float, str]]


def group_style(group: int | None) -> tuple[str, str]:
    """Return the colour and the dashes of a group; None is the background."""
    if group is None:
        return FAINT, ""
    return SERIES[group % len(SERIES)], DASHES[group // len(SERIES) % len(DASHES)]


def effects_chart(report: AblationReport) -> str:
    """Draw the forest plot of an ablation."""
    with page_style():
        alt = (
            f"Difference of each arm of {report.name} from {report.compared_with}, with its "
            "interval; the table has the figures."
        )
        return inline_svg(forest_figure(report), "forest", alt)


def curves_chart(runs: Sequence[Curve], title: str, name: str) -> str:
    """Draw single runs as thin lines and the means of groups as thick ones.

    A cross marks a run that was stopped early.
    """
    with page_style():
        figure, axes = _axes("epoch", "held-out mAP (%)", title)
        tooltips: Tooltips = {}
        for i, run in enumerate(runs):
            is_only = run.group is not None and sum(r.group == run.group for r in runs) == 1
            _draw_curve(axes, run, f"run{i}", is_only)
            epoch, value = run.points[-1]
            tooltips[f"run{i}"] = (
                f"{run.name}: {value:.2f} after epoch {epoch}" + ", stopped early" * run.is_stopped
            )
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
    axes.plot(x, y, **line, linestyle=_dashes(dash), marker="." if len(x) == 1 else None)
    if run.is_stopped:
        axes.plot(x[-1:], y[-1:], marker="x", markersize=3.5, color=colour)


def _draw_group_mean(axes: Axes, group: int, runs: Sequence[Curve]) -> None:
    """Draw the mean of several runs over the epochs that all of them have."""
    curves = [dict(run.points) for run in runs]
    epochs = sorted(set.intersection(*map(set, curves)))
    if len(curves) > 1 and epochs:
        colour, dash = group_style(group)
        means = [math.fsum(curve[epoch] for curve in curves) / len(curves) for epoch in epochs]
        axes.plot(epochs, means, color=colour, linewidth=2, linestyle=_dashes(dash), zorder=3)


def history_chart(trials: Sequence[TrialPoint], references: Mapping[str, float]) -> str:
    """Draw trials in the order of their start, the best so far, and figures to compare with.

    Args:
        references: held-out mAP by name, drawn as horizontal lines.
    """
    with page_style():
        figure, axes = _axes("trial, by start", "held-out mAP (%)", "")
        tooltips: Tooltips = {}
        for status, mark in HISTORY_MARKS.items():
            points = [t for t in trials if t.status == status and math.isfinite(t.held_out_mAP)]
            if points:
                label, gid = STATUS_TEXTS.get(status, status), f"{status}-trials"
                x, y = [t.number for t in points], [t.held_out_mAP for t in points]
                axes.plot(x, y, linestyle="none", markersize=3.8, label=label, gid=gid, **mark)
                tooltips[gid] = [f"{t.name}: {t.held_out_mAP:.2f}, {label}" for t in points]
        _draw_failed(axes, trials)
        _draw_best_so_far(axes, trials)
        for i, (name, value) in enumerate(references.items()):
            dashes = _dashes(DASHES[i + 1])
            axes.axhline(value, color=DARK, linewidth=0.8, linestyle=dashes, label=name, zorder=1)
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=7)
        alt = f"Held-out mAP of {len(trials)} trials in the order of their start."
        return inline_svg(figure, "history", alt, tooltips)


def _draw_failed(axes: Axes, trials: Sequence[TrialPoint]) -> None:
    failed = [trial.number for trial in trials if trial.status == "failed"]
    if failed:
        axes.plot(
            failed,
            [0.03] * len(failed),
            label="failed",
            transform=axes.get_xaxis_transform(),
            linestyle="none",
            marker="|",
            markersize=8,
            color=SERIES[1],
        )


def _draw_best_so_far(axes: Axes, trials: Sequence[TrialPoint]) -> None:
    highest, steps = -math.inf, []
    for trial in trials:
        if trial.status == "complete" and math.isfinite(trial.held_out_mAP):
            highest = max(highest, trial.held_out_mAP)
        steps.append(highest if math.isfinite(highest) else math.nan)
    if any(map(math.isfinite, steps)):
        x = [trial.number for trial in trials]
        axes.step(x, steps, where="post", color=SERIES[0], linewidth=1, label="best so far")


def parallel_chart(axes: Sequence[Axis], tooltips: Sequence[str], kinds: Sequence[str]) -> str:
    """Draw a line for each trial across its settings to its mAP.

    Args:
        axes: the settings, and the mAP.
        tooltips: of each trial.
        kinds: of each trial: ``best``, ``other`` or ``pruned``.
    """
    with page_style():
        from matplotlib.figure import Figure

        width = max(SMALL_SIZE[0], 1.25 * len(axes))
        figure = Figure(figsize=(width, 3), layout="constrained")
        panel = figure.subplots()
        by_gid: Tooltips = {}
        for kind, line in PARALLEL_LINES.items():
            for i in (i for i, k in enumerate(kinds) if k == kind):
                y = [axis.positions[i] for axis in axes]
                panel.plot(range(len(axes)), y, gid=f"trial{i}", **line)
                by_gid[f"trial{i}"] = tooltips[i]
        for x, axis in enumerate(axes):
            _draw_parallel_axis(panel, x, axis, is_last=x == len(axes) - 1)
        panel.set(xlim=(-0.3, len(axes) - 0.7), ylim=(-0.06, 1.18))
        panel.set_axis_off()
        names = ", ".join(axis.name for axis in axes)
        alt = f"Settings of {len(kinds)} trials and their held-out mAP, a line each: {names}."
        return inline_svg(figure, "parallel", alt, by_gid)


def _draw_parallel_axis(panel: Axes, x: int, axis: Axis, is_last: bool) -> None:
    panel.plot([x, x], [-0.02, 1.02], color=DARK, linewidth=0.8, zorder=4)
    text: dict[str, Any] = {"va": "center", "zorder": 5, "fontsize": 7.5}
    for y, tick in axis.ticks:
        shift, side = (-0.04, "right") if is_last else (0.04, "left")
        panel.text(x + shift, y, tick, ha=side, **text)
    name = axis.name.replace("_", "_\n", 1) if len(axis.name) > 14 else axis.name
    panel.text(x, 1.07, name, ha="center", va="bottom", fontweight="bold", fontsize=8)


def importance_chart(fields: Sequence[FieldImportance], names: Mapping[str, str]) -> str:
    """Draw the share of each field with its interval.

    Args:
        names: the short name of each field.
    """
    with page_style():
        height = 0.9 + 0.28 * len(fields)
        figure, axes = _axes("share of the importance", "", "", is_count=False, height=height)
        tooltips: Tooltips = {}
        for y, field in enumerate(fields):
            is_significant = field.verdict == ImportanceVerdict.SIGNIFICANT
            mark: dict[str, Any] = {
                "markerfacecolor": DARK if is_significant else "#ffffff",
                "color": DARK,
                "gid": f"field{y}",
            }
            axes.plot([field.low, field.high], [y, y], color=DARK, linewidth=1.1)
            axes.plot(field.share, y, marker="D", markersize=4.5, **mark)
            tooltips[f"field{y}"] = (
                f"{field.field}: {field.share:.2f} ({field.low:.2f} to {field.high:.2f}), "
                f"{field.verdict}"
            )
        axes.set_yticks(range(len(fields)), [names[field.field] for field in fields])
        axes.set(xlim=(0, None), ylim=(len(fields) - 0.5, -0.5))
        texts = "; ".join(str(text) for text in tooltips.values())
        alt = f"Importance of each field with its interval: {texts}."
        return inline_svg(figure, "importance", alt, tooltips)


def _axes(
    x_label: str,
    y_label: str,
    title: str,
    *,
    is_count: bool = True,
    height: float = SMALL_SIZE[1],
) -> tuple[Figure, Axes]:
    """Make a small figure; the ticks of an axis of counts are whole numbers."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(SMALL_SIZE[0], height), layout="constrained")
    axes = figure.subplots()
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=is_count))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_title(title, fontsize=8.5, fontweight="bold", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(width=0.6, length=3)
    return figure, axes


def _dashes(dash: str) -> Any:
    return (0, tuple(map(float, dash.split()))) if dash else "-"
