"""The charts of a search: its trials by start, their settings, and what matters among them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sadcl.reports.importance import FieldImportance, ImportanceVerdict
from sadcl.reports.page.svg import (
    SERIES,
    SMALL_SIZE,
    Tooltips,
    dash_pattern,
    inline_svg,
    page_style,
    small_axes,
    with_margin,
)
from sadcl.reports.plot_style import DARK, FAINT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STATUS_TEXTS = {"pruned": "stopped early", "running": "not ended"}
HISTORY_MARKS: dict[str, dict[str, Any]] = {
    "complete": {"marker": "o", "color": SERIES[0]},
    "pruned": {"marker": "x", "color": FAINT},
    "running": {"marker": "^", "color": SERIES[1], "markerfacecolor": "#ffffff"},
}
REFERENCE_DASHES = ("5 2", "1.5 1.5", "7 2 1.5 2")
PARALLEL_LINES: dict[str, dict[str, Any]] = {
    "pruned": {"color": FAINT, "linewidth": 0.8, "alpha": 0.8, "linestyle": (0, (2, 2))},
    "other": {"color": SERIES[0], "linewidth": 0.8, "alpha": 0.5},
    "best": {"color": SERIES[1], "linewidth": 1.5, "zorder": 3},
}


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


def history_chart(
    trials: Sequence[TrialPoint],
    references: Mapping[str, float],
    size: tuple[float, float] = SMALL_SIZE,
    others: Sequence[float] = (),
) -> str:
    """Draw trials in the order of their start, the best so far, and figures to compare with.

    The scale is that of the trials. A trial far below all others and a reference far from them are
    marked at the edge.

    Args:
        trials: at least one has a held-out mAP.
        references: held-out mAP by name, drawn as horizontal lines with their names.
        size: width and height in inches.
        others: held-out mAP of trials of another study, which the scale has too.
    """
    with page_style():
        figure, axes = small_axes("trial, by start", "held-out mAP (%)", size=size)
        shown = [trial for trial in trials if math.isfinite(trial.held_out_mAP)]
        values = [*(t.held_out_mAP for t in shown), *filter(math.isfinite, others)]
        low, high = _limits(values, references.values())
        axes.set_ylim(low, high)
        tooltips: Tooltips = {}
        for status, mark in HISTORY_MARKS.items():
            points = [t for t in shown if t.status == status and t.held_out_mAP >= low]
            if points:
                label, gid = STATUS_TEXTS.get(status, status), f"{status}-trials"
                x, y = [t.number for t in points], [t.held_out_mAP for t in points]
                axes.plot(x, y, linestyle="none", markersize=3.8, label=label, gid=gid, **mark)
                tooltips[gid] = [f"{t.name}: {t.held_out_mAP:.2f}, {label}" for t in points]
        below = [t for t in shown if t.held_out_mAP < low]
        _draw_at_edge(axes, [t.number for t in below], "below this scale", "v")
        tooltips["v-trials"] = [f"{t.name}: {t.held_out_mAP:.2f}" for t in below]
        failed = [trial.number for trial in trials if trial.status == "failed"]
        _draw_at_edge(axes, failed, "failed", "|")
        _draw_best_so_far(axes, trials)
        _draw_references(axes, references)
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=7)
        texts = "; ".join(f"{name} {value:.2f}" for name, value in references.items())
        alt = f"Held-out mAP of {len(trials)} trials in the order of their start; {texts}."
        return inline_svg(figure, "history", alt, tooltips)


def _limits(values: Sequence[float], references: Iterable[float]) -> tuple[float, float]:
    """Choose the scale of trials: without far outliers below, with the references that are near.

    A value is far below where it is more than three interquartile ranges below the first quartile
    (Tukey, Exploratory Data Analysis, 1977).
    """
    first, third = np.quantile(values, [0.25, 0.75])
    near = [value for value in values if value >= first - 3 * (third - first)]
    low, high = min(near), max(near)
    reach = 0.5 * (high - low)
    inside = [value for value in references if low - reach <= value <= high + reach]
    return with_margin([low, high, *inside])


def _draw_at_edge(axes: Axes, numbers: Sequence[int], label: str, marker: str) -> None:
    """Mark trials at the lower edge."""
    if numbers:
        mark: dict[str, Any] = {"marker": marker, "markersize": 8 if marker == "|" else 4}
        y = [0.03] * len(numbers)
        place: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "linestyle": "none"}
        axes.plot(numbers, y, label=label, color=SERIES[1], gid=f"{marker}-trials", **place, **mark)


def _draw_references(axes: Axes, references: Mapping[str, float]) -> None:
    """Draw each reference as a line with its name at the right; outside the scale, its name."""
    low, high = axes.get_ylim()
    place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "fontsize": 7.5}
    taken = -math.inf
    for i, (name, value) in enumerate(sorted(references.items(), key=lambda item: item[1])):
        is_inside = low <= value <= high
        if is_inside:
            dashes = dash_pattern(REFERENCE_DASHES[i % len(REFERENCE_DASHES)])
            axes.axhline(value, color=DARK, linewidth=0.8, linestyle=dashes, zorder=1)
        arrow = "" if is_inside else "↓ " if value < low else "↑ "
        # Names that are close to each other are moved apart.
        y = max(min(max(value, low), high), taken + 0.13 * (high - low))
        taken = y
        axes.text(1.02, y, f"{arrow}{name}\n{value:.2f}", va="center", **place)


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
        figure, axes = small_axes(
            "share of the importance", "", is_count=False, size=(SMALL_SIZE[0], height)
        )
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
