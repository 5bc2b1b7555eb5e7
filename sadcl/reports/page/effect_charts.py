"""The charts of differences: the forest plot, and the two arms of a single comparison."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sadcl.reports.ablation import AblationReport
from sadcl.reports.effect_text import SPLITS, interval_text
from sadcl.reports.forest_plot import MAX_COLUMNS, forest_figure
from sadcl.reports.page.svg import SERIES, Tooltips, inline_svg, page_style
from sadcl.reports.plot_style import (
    FAINT,
    OPEN_MARK,
    SEED_MARK,
    SIGNIFICANT_MARK,
    ZERO_LINE,
    draw_interval,
)
from sadcl.reports.statistics import Effect

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FOREST_WIDTHS = {1: 5.55, 2: 8.2, 3: 10.4}
"""The width of a forest plot in inches by its panels in a row: half of the page, then all of it."""
PAIR_SIZE = (5.0, 3.0)
FigureBySeed = Mapping[int, float]
Limits = tuple[float, float]


def effects_chart(report: AblationReport, limits: Limits | None = None) -> str:
    """Draw the forest plot of an ablation.

    Args:
        report: the arms and their effects.
        limits: of the differences; None takes those of each data set.
    """
    with page_style():
        alt = (
            f"Difference of each arm of {report.name} from {report.compared_with}, with its "
            "interval; the table has the figures."
        )
        columns = min(len(report.datasets), MAX_COLUMNS)
        figure = forest_figure(report, FOREST_WIDTHS[columns])
        for axes in figure.axes if limits else ():
            axes.set_xlim(limits)
        return inline_svg(figure, "forest", alt, least_scale=0.9 if columns == 1 else 1.1)


def pair_chart(
    report: AblationReport,
    effect: Effect,
    reference: FigureBySeed,
    arm: FigureBySeed,
    *,
    scales: tuple[Limits, Limits] | None = None,
) -> str:
    """Draw both arms of a comparison seed by seed, and the difference with its interval.

    Source: estimation plots of Gardner and Altman, Confidence intervals rather than P values,
    British Medical Journal, 1986.

    Args:
        report: that has the comparison.
        effect: the comparison; it has at least one pair.
        reference, arm: the figures of both arms by seed.
        scales: the limits of the figures and of the difference; None takes those of this study.
    """
    from matplotlib.figure import Figure

    with page_style():
        figure = Figure(figsize=PAIR_SIZE, layout="constrained")
        panel, side = figure.subplots(1, 2, width_ratios=(1.5, 1))
        tooltips: Tooltips = {}
        for i, seed in enumerate(effect.pairs):
            values = [reference[seed], arm[seed]]
            panel.plot([0, 1], values, color=FAINT, linewidth=0.9, alpha=0.8, gid=f"seed{i}")
            tooltips[f"seed{i}"] = f"seed {seed}: {values[0]:.2f}, {values[1]:.2f}"
        for x, figures in enumerate((reference, arm)):
            y = list(figures.values())
            panel.plot([x] * len(y), y, **SEED_MARK | {"markersize": 3.5})
            panel.plot(x, math.fsum(y) / len(y), **SIGNIFICANT_MARK | {"color": SERIES[x]})
        names = [textwrap.fill(name, 16) for name in (effect.reference, effect.arm)]
        panel.set_xticks([0, 1], names)
        panel.set(xlim=(-0.4, 1.4))
        panel.set_ylabel(textwrap.fill(f"{report.quantity} on the {SPLITS[report.split]} (%)", 34))
        _draw_difference(side, effect)
        for axes, limits in zip((panel, side), scales or (), strict=False):
            axes.set_ylim(limits)
        for axes in (panel, side):
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(width=0.6, length=3)
        alt = (
            f"{effect.reference} and {effect.arm} by seed, and their difference: "
            f"{effect.difference:+.2f} points."
        )
        return inline_svg(figure, "pair", alt, tooltips, least_scale=0.9)


def _draw_difference(axes: Axes, effect: Effect) -> None:
    """Draw the difference with its interval, and that of each seed, against zero."""
    axes.axhline(0, **ZERO_LINE)
    dots: dict[str, Any] = SEED_MARK | {"markersize": 3.5}
    axes.plot([-0.12] * len(effect.differences), effect.differences, **dots)
    text = f"{effect.difference:+z.2f} points"
    half = effect.difference_half_width
    draw_interval(axes, 0, effect.difference, half, upright=True, linewidth=1.1, capsize=3)
    if not math.isnan(half):
        text += f"\n{interval_text(effect)}"
    axes.plot(0, effect.difference, **SIGNIFICANT_MARK if effect.is_significant else OPEN_MARK)
    axes.set_xticks([0], [text.replace("-", "\N{MINUS SIGN}")])
    axes.set(xlim=(-0.5, 0.5))
    axes.set_ylabel("difference (percentage points)")
    axes.margins(y=0.12)
