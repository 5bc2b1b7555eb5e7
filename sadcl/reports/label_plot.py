"""The plot of gains by label: each label's difference with its interval, and how differences go with frequency and size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sadcl.errors import UserError
from sadcl.reports.ablation_text import SPLITS, count_words
from sadcl.reports.label_gains import Gain, Gains
from sadcl.reports.plot_style import DARK, FAINT, OPEN, SEED, SHOWN, save_figure
from sadcl.reports.statistics import ALPHA

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MOST_LABELS = 100
"""Labels that are drawn one by one; of more those that differ the most."""
LINE, SIDE = 0.15, 2.4
"""Inches of a label's line, and of a panel beside."""
BAND: dict[str, Any] = {"color": DARK, "linewidth": 1.4}
AXES = {"frequency": "images with the label", "size": "size of its objects (percent of the image)"}


def draw_labels(found: Gains, uri: str) -> None:
    """Draw the plot into a file.

    Raises:
        UserError: as ``forest.check``, and where there is nothing to draw.
    """
    save_figure(uri, lambda: label_figure(found))


def label_figure(found: Gains) -> Figure:
    """A line a label, the most frequent on top; beside it differences over frequency, and over size where it is known."""
    from matplotlib.figure import Figure

    drawn = [gain for gain in found.labels if gain.effect.pairs]
    if not drawn:
        raise UserError(
            f"The study {found.study!r} has nothing to draw: no seed has an AP of both arms."
        )
    if len(drawn) > MOST_LABELS:
        farthest = sorted(drawn, key=lambda gain: -abs(gain.effect.difference))[:MOST_LABELS]
        drawn = [gain for gain in drawn if gain in farthest]
    beside = [trend.by for trend in found.trends]
    height = max(0.9 + LINE * len(drawn), 0.5 + SIDE * len(beside), 2.4)
    words = max(len(gain.label) for gain in drawn)
    figure = Figure(
        figsize=(3.6 + 0.06 * words + 3.1 * bool(beside), height + 0.35), layout="constrained"
    )
    rows = [SIDE] * len(beside) + [max(height - SIDE * len(beside), 0.01)]
    grid = figure.add_gridspec(
        len(rows), 1 + bool(beside), height_ratios=rows, width_ratios=[1.25, 1][: 1 + bool(beside)]
    )
    left = figure.add_subplot(grid[:, 0])
    _labels(left, drawn, len(drawn) < len(found.labels))
    left.set_xlabel(
        f"{found.arm} less {found.baseline}: AP on {SPLITS[found.split]}\n(percentage points)",
        fontsize=7.5,
    )
    for place, by in enumerate(beside):
        _scatter(figure.add_subplot(grid[place, 1]), found, by)
    seeds = count_words([len(found.seeds)])
    figure.suptitle(f"{found.dataset} ({seeds})", fontsize=9, fontweight="bold", x=0.01, ha="left")
    _key(figure, drawn, bool(beside))
    return figure


def _labels(axes: Axes, drawn: Sequence[Gain], cut: bool) -> None:
    axes.axvline(0, color=DARK, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
    beside: dict[str, Any] = {
        "transform": axes.get_yaxis_transform(),
        "fontsize": 6.5,
        "va": "center",
        "ha": "right",
    }
    for at, gain in enumerate(drawn):
        effect = gain.effect
        shown = effect.verdict in ("gain", "loss")
        if len(effect.pairs) > 1:
            axes.plot(effect.differences, [at + 0.3] * len(effect.differences), **SEED)
            axes.errorbar(
                effect.difference,
                at,
                xerr=effect.difference_half,
                color=DARK,
                linewidth=0.9,
                zorder=2,
            )
        axes.plot(effect.difference, at, **((SHOWN if shown else OPEN) | {"markersize": 3.8}))
        axes.text(1.0, at, f"{gain.support:,.0f}", color=FAINT, **beside)
    axes.text(1.0, -1.0, "images", color=FAINT, **beside)
    axes.set_yticks(range(len(drawn)), [gain.label for gain in drawn], fontsize=7)
    axes.set_ylim(len(drawn) - 0.4, -1.4)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + 0.16 * (high - low))  # where the numbers of images stand
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", width=0.6, length=3, labelsize=7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if cut:
        axes.set_title(f"the {len(drawn)} labels that differ the most", fontsize=7, loc="left")


def _scatter(axes: Axes, found: Gains, by: str) -> None:
    """Labels as points, each third of them as its mean with its interval, from its first to its last label."""

    def value(gain: Gain) -> float:
        return gain.support if by == "frequency" else gain.size

    axes.axhline(0, color=DARK, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
    for gain in found.labels:
        if gain.effect.pairs and value(gain) > 0:
            axes.plot(value(gain), gain.effect.difference, **(SEED | {"markersize": 3.4}))
    for group in found.groups:
        if group.by != by or not group.effect.pairs:
            continue
        middle, half = group.effect.difference, group.effect.difference_half
        axes.plot([group.low, group.high], [middle] * 2, **BAND, zorder=3)
        if not math.isnan(half):
            axes.fill_between(
                [group.low, group.high],
                middle - half,
                middle + half,
                color=DARK,
                alpha=0.12,
                linewidth=0,
            )
        centre = math.sqrt(group.low * group.high)
        axes.annotate(
            group.name,
            (centre, 0.02),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize=6.5,
            color=FAINT,
        )
    axes.set_xscale("log")
    _plain_ticks(axes)
    axes.set_xlabel(AXES[by], fontsize=7.5)
    axes.set_ylabel("difference in AP (points)", fontsize=7.5)
    axes.tick_params(width=0.6, length=3, labelsize=7)
    axes.tick_params(which="minor", width=0.4, length=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.15)


def _plain_ticks(axes: Axes) -> None:
    """1, 2, 5, 10, ... and no powers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _key(figure: Figure, drawn: Sequence[Gain], beside: bool) -> None:
    from matplotlib.lines import Line2D

    several = any(len(gain.effect.pairs) > 1 for gain in drawn)
    verdicts = {gain.effect.verdict for gain in drawn}
    marks = [
        (SHOWN, f"shown (p < {ALPHA:g}, Benjamini-Hochberg)", bool(verdicts & {"gain", "loss"})),
        (
            OPEN,
            "not shown" if several else "one seed: not shown",
            bool(verdicts - {"gain", "loss"}),
        ),
        (
            SEED,
            " ".join(["difference of a seed"] * several + ["(on the right: of a label)"] * beside),
            several or beside,
        ),
        (BAND, "mean of a third of the labels and its 95 % interval", several and beside),
    ]
    handles = [Line2D([], [], label=label, **look) for look, label, there in marks if there]
    columns = 2 if beside else 1
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=7
    )
