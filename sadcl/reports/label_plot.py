"""The plot of gains by label: the difference of each label, and over frequency and object size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sadcl.errors import UserError
from sadcl.reports.effect_text import SPLITS, seeds_text
from sadcl.reports.label_gains import ArmGains, LabelGain, LabelGroup
from sadcl.reports.plot_style import (
    DARK,
    FAINT,
    OPEN_MARK,
    SEED_MARK,
    SIGNIFICANT_MARK,
    ZERO_LINE,
    draw_interval,
    effect_axes,
    save_figure,
)
from sadcl.reports.statistics import ALPHA, SIGNIFICANT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MAX_LABELS = 100
"""The largest number of labels that are drawn; of more labels, those that differ the most."""
LINE_HEIGHT, PANEL_HEIGHT = 0.15, 2.4
"""Inches of the line of a label, and of a panel on the right."""
GROUP_LINE: dict[str, Any] = {"color": DARK, "linewidth": 1.4}
X_LABELS = {
    "frequency": "images with the label",
    "size": "size of its objects (percent of the image)",
}


def draw_labels(gains: ArmGains, uri: str) -> None:
    """Draw the plot into a file.

    Raises:
        UserError: as :func:`sadcl.reports.plot_style.check_ending`, and where there is nothing to
            draw.
    """
    save_figure(uri, lambda: label_figure(gains))


def label_figure(gains: ArmGains) -> Figure:
    """Draw a line for each label, the most frequent on top, and a panel for each trend.

    Raises:
        UserError: where no seed has both arms.
    """
    labels = _labels_to_draw(gains)
    variables = [trend.variable for trend in gains.trends]
    figure, left, panels = _panel_grid(labels, len(variables))
    _draw_labels(left, labels, is_selection=len(labels) < len(gains.labels))
    left.set_xlabel(
        f"{gains.arm} minus {gains.baseline}: AP on {SPLITS[gains.split]}\n(percentage points)",
        fontsize=7.5,
    )
    for axes, variable in zip(panels, variables, strict=True):
        _draw_scatter(axes, gains, variable)
    title = f"{gains.dataset} ({seeds_text([len(gains.seeds)])})"
    figure.suptitle(title, fontsize=9, fontweight="bold", x=0.01, ha="left")
    _add_legend(figure, labels, bool(variables))
    return figure


def _labels_to_draw(gains: ArmGains) -> list[LabelGain]:
    labels = [gain for gain in gains.labels if gain.effect.pairs]
    if not labels:
        raise UserError(
            f"The study {gains.study!r} has nothing to draw: no seed has an AP for both arms."
        )
    if len(labels) > MAX_LABELS:
        largest = sorted(labels, key=lambda gain: -abs(gain.effect.difference))[:MAX_LABELS]
        labels = [gain for gain in labels if gain in largest]
    return labels


def _panel_grid(labels: Sequence[LabelGain], num_panels: int) -> tuple[Figure, Axes, list[Axes]]:
    """Make a figure with a tall panel for the labels and smaller ones to its right."""
    from matplotlib.figure import Figure

    height = max(0.9 + LINE_HEIGHT * len(labels), 0.5 + PANEL_HEIGHT * num_panels, 2.4)
    longest = max(len(gain.label) for gain in labels)
    columns = 2 if num_panels else 1
    width = 3.6 + 0.06 * longest + 3.1 * (columns - 1)
    figure = Figure(figsize=(width, height + 0.35), layout="constrained")
    heights = [PANEL_HEIGHT] * num_panels + [max(height - PANEL_HEIGHT * num_panels, 0.01)]
    grid = figure.add_gridspec(
        len(heights), columns, height_ratios=heights, width_ratios=[1.25, 1][:columns]
    )
    left = figure.add_subplot(grid[:, 0])
    return figure, left, [figure.add_subplot(grid[i, 1]) for i in range(num_panels)]


def _draw_labels(axes: Axes, labels: Sequence[LabelGain], is_selection: bool) -> None:
    axes.axvline(0, **ZERO_LINE)
    text: dict[str, Any] = {
        "transform": axes.get_yaxis_transform(),
        "fontsize": 6.5,
        "va": "center",
        "ha": "right",
        "color": FAINT,
    }
    for y, gain in enumerate(labels):
        effect = gain.effect
        if len(effect.pairs) > 1:
            axes.plot(effect.differences, [y + 0.3] * len(effect.differences), **SEED_MARK)
        draw_interval(axes, effect.difference, y, effect.difference_half_width, linewidth=0.9)
        mark = SIGNIFICANT_MARK if effect.is_significant else OPEN_MARK
        axes.plot(effect.difference, y, **(mark | {"markersize": 3.8}))
        axes.text(1.0, y, f"{gain.support:,.0f}", **text)
    axes.text(1.0, -1.0, "images", **text)
    axes.set_yticks(range(len(labels)), [gain.label for gain in labels], fontsize=7)
    axes.set_ylim(len(labels) - 0.4, -1.4)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + 0.16 * (high - low))  # room for the numbers of images
    effect_axes(axes)
    axes.tick_params(axis="x", labelsize=7)
    if is_selection:
        axes.set_title(f"the {len(labels)} labels that differ the most", fontsize=7, loc="left")


def _draw_scatter(axes: Axes, gains: ArmGains, variable: str) -> None:
    """Draw labels as points, and each third of them as a line at its mean."""

    def value(gain: LabelGain) -> float:
        return gain.support if variable == "frequency" else gain.size

    axes.axhline(0, **ZERO_LINE)
    for gain in gains.labels:
        if gain.effect.pairs and value(gain) > 0:
            axes.plot(value(gain), gain.effect.difference, **(SEED_MARK | {"markersize": 3.4}))
    groups = [group for group in gains.groups if group.variable == variable and group.effect.pairs]
    for i, group in enumerate(groups):
        _draw_group(axes, group, name_y=(0.02, 0.08)[i % 2])
    axes.set_xscale("log")
    _set_decimal_ticks(axes)
    axes.set_xlabel(X_LABELS[variable], fontsize=7.5)
    axes.set_ylabel("difference in AP (points)", fontsize=7.5)
    axes.tick_params(width=0.6, length=3, labelsize=7)
    axes.tick_params(which="minor", width=0.4, length=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.15)


def _draw_group(axes: Axes, group: LabelGroup, name_y: float) -> None:
    """Draw a group's mean with its interval, from its lowest to its highest label.

    Args:
        name_y: the height of the group's name, 0 to 1; that of neighbours differs, so that names of
            narrow groups do not overlap.
    """
    mean, half_width = group.effect.difference, group.effect.difference_half_width
    x = [group.low, group.high]
    axes.plot(x, [mean] * 2, **GROUP_LINE, zorder=3)
    if not math.isnan(half_width):
        axes.fill_between(
            x, mean - half_width, mean + half_width, color=DARK, alpha=0.12, linewidth=0
        )
    axes.annotate(
        group.name,
        (math.sqrt(group.low * group.high), name_y),
        xycoords=("data", "axes fraction"),
        ha="center",
        va="bottom",
        fontsize=6.5,
        color=FAINT,
    )


def _set_decimal_ticks(axes: Axes) -> None:
    """Label a logarithmic axis with 1, 2, 5, 10, ... instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _add_legend(figure: Figure, labels: Sequence[LabelGain], has_panels: bool) -> None:
    from matplotlib.lines import Line2D

    has_intervals = any(not math.isnan(gain.effect.difference_half_width) for gain in labels)
    verdicts = {gain.effect.verdict for gain in labels}
    has_several = any(len(gain.effect.pairs) > 1 for gain in labels)
    point = "difference of one seed" if has_several else ""
    mean = "mean with the 95 % interval of that label alone, " if has_intervals else ""
    point += " (on the right: of one label)" if has_panels else ""
    entries = [
        (
            SIGNIFICANT_MARK,
            f"{mean}significant (p < {ALPHA:g}, Benjamini-Hochberg)",
            bool(verdicts & SIGNIFICANT),
        ),
        (
            OPEN_MARK,
            f"{mean}not significant" if has_intervals else "not tested",
            bool(verdicts - SIGNIFICANT),
        ),
        (SEED_MARK, point.strip(), bool(point)),
        (
            GROUP_LINE,
            "mean of a third of the labels with 95 % interval (Bonferroni)",
            has_intervals and has_panels,
        ),
    ]
    figure.legend(
        handles=[Line2D([], [], label=label, **mark) for mark, label, has in entries if has],
        loc="outside lower center",
        ncols=1,
        frameon=False,
        fontsize=7,
    )
