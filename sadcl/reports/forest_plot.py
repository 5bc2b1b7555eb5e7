"""The forest plot of an ablation: the difference of each arm from the baseline, with intervals."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

from sadcl.errors import UserError
from sadcl.reports.ablation import AblationReport
from sadcl.reports.effect_text import SPLITS, arm_text, p_comparison, seeds_text
from sadcl.reports.plot_style import (
    FAINT,
    OPEN_MARK,
    SEED_MARK,
    SIGNIFICANT_MARK,
    ZERO_LINE,
    draw_interval,
    effect_axes,
    save_figure,
)
from sadcl.reports.statistics import ALPHA, SIGNIFICANT, Effect, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

MAX_COLUMNS = 3
"""The largest number of panels in a row."""
DENSE = 8
"""On a page, the lines of more arms are closer to each other."""


def draw_forest(report: AblationReport, uri: str) -> None:
    """Draw the forest plot into a file.

    Raises:
        UserError: as :func:`sadcl.reports.plot_style.check_ending`, and where there is nothing to
            draw.
    """
    save_figure(uri, lambda: forest_figure(report))


def forest_figure(report: AblationReport, width: float | None = None) -> Figure:
    """Draw a panel for each data set with a line for each arm.

    A line has the mean difference with its interval, above the differences of single seeds.

    Args:
        report: the arms and their effects.
        width: of the figure, in inches; None is as wide as names and panels need.

    Raises:
        UserError: where no arm besides the baseline has a run.
    """
    datasets, arms = report.datasets, [arm for arm in report.arms if arm != report.baseline]
    if not datasets or not arms:
        raise UserError(
            f"The study {report.name!r} has nothing to draw: no arm besides {report.baseline!r} "
            "has a run."
        )
    names = [_wrapped(arm_text(arm), 30) for arm in arms]
    figure, panels = _panel_grid(names, len(datasets), width)
    panels[0].set_yticks(range(len(arms)), names)
    panels[0].set_ylim(len(arms) - 0.5, -0.5)
    for axes, dataset in zip(panels, datasets, strict=True):
        effects = [effect for effect in report.on(dataset) if effect.arm != report.baseline]
        _draw_panel(axes, effects)
        seeds = seeds_text([len(effect.pairs) for effect in effects])
        axes.set_title(f"{dataset} ({seeds})", fontsize=8, fontweight="bold", loc="left")
        x_label = (
            f"difference in {report.quantity} from {report.compared_with} on "
            f"{SPLITS[report.split]} "
            "(percentage points)"
        )
        axes.set_xlabel(_wrapped(x_label, 44))
    figure.legend(
        handles=_legend(report),
        loc="outside lower center",
        frameon=False,
        fontsize=7.5,
    )
    return figure


def _panel_grid(
    names: list[str], num_panels: int, width: float | None
) -> tuple[Figure, list[Axes]]:
    """Make a figure of the height that the names and panels need, and of the width if None."""
    from matplotlib.figure import Figure

    longest = max(len(line) for name in names for line in name.split("\n"))
    is_dense = width is not None and len(names) > DENSE
    line_height = 0.13 * max(1 + name.count("\n") for name in names) + (0.06 if is_dense else 0.15)
    columns, rows = min(num_panels, MAX_COLUMNS), math.ceil(num_panels / MAX_COLUMNS)
    width = width or 0.3 + 0.06 * longest + 2.9 * columns
    height = 0.4 + (0.8 + line_height * len(names)) * rows
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axes in panels[num_panels:]:
        axes.remove()
    return figure, panels[:num_panels]


def _wrapped(text: str, width: int) -> str:
    """Break text into lines at spaces, hyphens and underscores."""
    return textwrap.fill(text.replace("_", "_ "), width).replace("_ ", "_")


def _draw_panel(axes: Axes, effects: list[Effect]) -> None:
    axes.axvline(0, **ZERO_LINE)
    margin: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "fontsize": 7.5}
    axes.text(1.03, -0.5, "mean, p (Holm)", va="bottom", color=FAINT, **margin)
    for y, effect in enumerate(effects):
        text = _annotation(effect).replace("-", "\N{MINUS SIGN}")
        axes.text(1.03, y, text, va="center", **margin)
        half = effect.difference_half_width
        draw_interval(axes, effect.difference, y, half, linewidth=1.1, capsize=2.5, capthick=0.9)
        if len(effect.pairs) > 1:
            axes.plot(effect.differences, [y + 0.25] * len(effect.differences), **SEED_MARK)
        if effect.pairs:
            mark = SIGNIFICANT_MARK if effect.is_significant else OPEN_MARK
            axes.plot(effect.difference, y, **mark)
    effect_axes(axes)
    axes.margins(x=0.08)


def _annotation(effect: Effect) -> str:
    """Format the figures at the end of a line."""
    if not effect.pairs:
        return effect.verdict.value
    is_tested = not math.isnan(effect.p_corrected)
    return (
        f"{effect.difference:+z.2f}, "
        f"{f'p {p_comparison(effect)}' if is_tested else effect.verdict.value}"
    )


def _legend(report: AblationReport) -> list[Line2D]:
    """Make the legend's entries, for the marks that the plot has."""
    from matplotlib.lines import Line2D

    effects = [effect for effect in report.effects if effect.pairs]
    has_intervals = any(not math.isnan(effect.difference_half_width) for effect in effects)
    has_several = any(len(effect.pairs) > 1 for effect in effects)
    verdicts = {effect.verdict for effect in effects}
    has_untested = any(math.isnan(effect.p_corrected) for effect in effects)
    mean = "mean with 95 % interval (Bonferroni), " if has_intervals else ""
    entries = [
        (
            SIGNIFICANT_MARK,
            f"{mean}p < {ALPHA:g}",
            bool(verdicts & SIGNIFICANT),
        ),
        (OPEN_MARK, f"{mean}not significant", Verdict.NOT_SIGNIFICANT in verdicts),
        (OPEN_MARK, "mean alone, not tested" if mean else "not tested", has_untested),
        (SEED_MARK, "difference of one seed", has_several),
    ]
    return [Line2D([], [], label=label, **mark) for mark, label, has in entries if has]
