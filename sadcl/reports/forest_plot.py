"""The forest plot of an ablation: what each arm sets apart from the baseline, and how far that is known."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

from sadcl.errors import UserError
from sadcl.reports.ablation import AblationReport
from sadcl.reports.ablation_text import SPLITS, count_words, equals
from sadcl.reports.statistics import ALPHA, Effect

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

from sadcl.reports.plot_style import DARK, FAINT, OPEN, SEED, SHOWN, save_figure

ACROSS = 3
"""Panels in a row."""


def draw_forest(report: AblationReport, uri: str) -> None:
    """Draw the plot into a file.

    Raises:
        UserError: as :func:`check`, and where there is nothing to draw.
    """
    save_figure(uri, lambda: forest_figure(report))


def forest_figure(report: AblationReport) -> Figure:
    """A panel a data set, a line an arm: mean difference and interval above the seeds' own differences."""
    from matplotlib.figure import Figure

    datasets, arms = report.datasets, [arm for arm in report.arms if arm != report.baseline]
    if not datasets or not arms:
        raise UserError(
            f"The study {report.name!r} has nothing to draw: no run of an arm besides {report.baseline!r}."
        )
    labels = [_wrapped(arm, 30) for arm in arms]
    words = max(len(line) for label in labels for line in label.split("\n"))
    line = 0.13 * max(1 + label.count("\n") for label in labels) + 0.15
    across, down = min(len(datasets), ACROSS), math.ceil(len(datasets) / ACROSS)
    size = (0.3 + 0.06 * words + 2.9 * across, 0.4 + (0.8 + line * len(arms)) * down)
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(down, across, sharey=True, squeeze=False).flat)
    for axes in panels[len(datasets) :]:
        axes.remove()
    panels[0].set_yticks(range(len(arms)), labels)
    panels[0].set_ylim(len(arms) - 0.5, -0.5)
    for axes, dataset in zip(panels, datasets, strict=False):
        effects = [effect for effect in report.on(dataset) if effect.arm != report.baseline]
        _panel(axes, effects)
        seeds = count_words([len(effect.pairs) for effect in effects])
        axes.set_title(f"{dataset} ({seeds})", fontsize=8, fontweight="bold", loc="left")
        label = f"difference in {report.quantity} to {report.baseline} on {SPLITS[report.split]} (percentage points)"
        axes.set_xlabel(_wrapped(label, 44))
    columns = 1 if across == 1 else 3
    figure.legend(
        handles=_key(report), loc="outside lower center", ncols=columns, frameon=False, fontsize=7
    )
    return figure


def _wrapped(text: str, width: int) -> str:
    """In several lines, broken at spaces, hyphens and underscores."""
    return textwrap.fill(text.replace("_", "_ "), width).replace("_ ", "_")


def _panel(axes: Axes, effects: list[Effect]) -> None:
    axes.axvline(0, color=DARK, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
    beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "fontsize": 6.5}
    axes.text(1.03, -0.5, "mean, Holm's p", va="bottom", color=FAINT, **beside)
    for at, effect in enumerate(effects):
        axes.text(
            1.03, at, _annotation(effect).replace("-", "\N{MINUS SIGN}"), va="center", **beside
        )
        if len(effect.pairs) > 1:
            half = effect.difference_half
            axes.errorbar(
                effect.difference,
                at,
                xerr=half,
                color=DARK,
                linewidth=1.1,
                capsize=2.5,
                capthick=0.9,
                zorder=2,
            )
            axes.plot(effect.differences, [at + 0.25] * len(effect.differences), **SEED)
        if effect.pairs:
            axes.plot(
                effect.difference, at, **(SHOWN if effect.verdict in ("gain", "loss") else OPEN)
            )
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", width=0.6, length=3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.margins(x=0.08)


def _annotation(effect: Effect) -> str:
    """The figures beside a line."""
    if not effect.pairs:
        return effect.verdict
    return f"{effect.difference:+z.2f}, {effect.verdict if math.isnan(effect.corrected) else f'p {equals(effect)}'}"


def _key(report: AblationReport) -> list[Line2D]:
    """What the marks mean, of those that are there."""
    from matplotlib.lines import Line2D

    several = any(len(effect.pairs) > 1 for effect in report.effects)
    verdicts = {effect.verdict for effect in report.effects}
    band = "mean and its 95 % interval, " if several else ""
    marks = [
        (SHOWN, f"{band}shown (p < {ALPHA:g})", bool(verdicts & {"gain", "loss"})),
        (
            OPEN,
            f"{band or 'one seed: '}not shown",
            bool(verdicts - {"gain", "loss", "baseline", "no pair"}),
        ),
        (SEED, "difference of a seed", several),
    ]
    return [Line2D([], [], label=label, **look) for look, label, there in marks if there]
