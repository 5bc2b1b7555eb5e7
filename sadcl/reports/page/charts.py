"""The charts of a study's page: matplotlib figures as inline SVG, whose colours and fonts are the page's own."""

from __future__ import annotations

import contextlib
import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from sadcl.reports.ablation import AblationReport
from sadcl.reports.forest_plot import forest_figure
from sadcl.reports.page.study import plain
from sadcl.reports.plot_style import DARK, FAINT, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


SERIES = ("#0072b2", "#d55e00", "#009e73", "#b0578d", "#b57b00", "#4c4c4c")
"""Okabe and Ito's, the light ones darkened or left out; the page has them as ``--c0`` to ``--c5``."""
DASHES = ("", "5 2", "1.5 1.5", "7 2 1.5 2")
COLOURS = {DARK: "ink", "#000000": "ink", FAINT: "faint", "#ffffff": "paper"} | {
    c: f"c{i}" for i, c in enumerate(SERIES)
}
LOOK = STYLE | {
    "font.size": 8.5,
    "lines.solid_capstyle": "round",
    "axes.edgecolor": FAINT,
    "svg.hashsalt": "page",
}
SMALL = (4.4, 2.75)
"""Inches; two beside each other on a desk, one on a phone."""
SVG = "http://www.w3.org/2000/svg"
ElementTree.register_namespace("", SVG)
Tips = dict[str, str | list[str]]


@dataclass(frozen=True)
class Curve:
    """Held-out mAP of a run over epochs; runs of one ``group`` look alike and share a mean, None is the background."""

    name: str
    group: int | None
    points: Sequence[tuple[int, float]]
    stopped: bool = False


@dataclass(frozen=True)
class Axis:
    """A line of parallel coordinates: ``at`` of each trial from 0 to 1 (nan where it has none), and the ticks."""

    name: str
    at: Sequence[float]
    ticks: Sequence[tuple[float, str]]


@contextlib.contextmanager
def look() -> Iterator[None]:
    from matplotlib import style

    with style.context(["default", LOOK]), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # glyphs that our font lacks are there in the reader's
        yield


def group_style(group: int | None) -> tuple[str, str]:
    """Colour and dashes of a group; None is what stands in the background."""
    return (
        (FAINT, "")
        if group is None
        else (SERIES[group % len(SERIES)], DASHES[group // len(SERIES) % len(DASHES)])
    )


def effects(report: AblationReport) -> str:
    """The forest plot of an ablation."""
    with look():
        figure = forest_figure(report)
        said = f"Difference of each arm of {report.name} to {report.baseline}, with its interval; the table has the figures."
        return _svg(figure, "forest", said)


def curves(runs: Sequence[Curve], title: str, name: str) -> str:
    """Single runs thin, the means of groups thick; a cross where a run was stopped early."""
    with look():
        figure, axes = _axes("epoch", "held-out mAP (%)", title)
        tips: Tips = {}
        for i, run in enumerate(runs):
            colour, dash = group_style(run.group)
            x, y = zip(*run.points, strict=True)
            alone = run.group is not None and sum(other.group == run.group for other in runs) == 1
            width, alpha = (1.6, 1.0) if alone else (0.7, 0.4 if run.group is None else 0.7)
            thin: dict[str, Any] = {
                "color": colour,
                "linewidth": width,
                "alpha": alpha,
                "gid": f"run{i}",
            }
            axes.plot(x, y, **thin, linestyle=_dashes(dash), marker="." if len(x) == 1 else None)
            if run.stopped:
                axes.plot(x[-1:], y[-1:], marker="x", markersize=3.5, color=colour)
            tips[f"run{i}"] = (
                f"{run.name}: {y[-1]:.2f} after epoch {x[-1]}" + ", stopped early" * run.stopped
            )
        for group in sorted({run.group for run in runs if run.group is not None}):
            mine = [dict(run.points) for run in runs if run.group == group]
            shared = sorted(set.intersection(*map(set, mine)))
            if len(mine) > 1 and shared:
                colour, dash = group_style(group)
                means = [math.fsum(run[epoch] for run in mine) / len(mine) for epoch in shared]
                axes.plot(
                    shared, means, color=colour, linewidth=2, linestyle=_dashes(dash), zorder=3
                )
        return _svg(figure, name, f"Held-out mAP of {len(runs)} runs by epoch, {title}.", tips)


def history(trials: Sequence[Mapping[str, Any]], lines: Mapping[str, float]) -> str:
    """Trials in the order of their start (``n``, ``value``, ``status``, ``name``), the best so far, and what to beat."""
    with look():
        figure, axes = _axes("trial, by start", "held-out mAP (%)", "")
        tips: Tips = {}
        marks: dict[str, dict[str, Any]] = {
            "complete": {"marker": "o", "color": SERIES[0]},
            "pruned": {"marker": "x", "color": FAINT},
            "running": {"marker": "^", "color": SERIES[1], "markerfacecolor": "#ffffff"},
        }
        for status, mark in marks.items():
            found = [t for t in trials if t["status"] == status and math.isfinite(t["value"])]
            if found:
                label = {"pruned": "stopped early", "running": "not ended"}.get(status, status)
                x, y = [t["n"] for t in found], [t["value"] for t in found]
                axes.plot(
                    x,
                    y,
                    linestyle="none",
                    markersize=3.8,
                    label=label,
                    gid=f"{status}-trials",
                    **mark,
                )
                tips[f"{status}-trials"] = [
                    f"{t['name']}: {t['value']:.2f}, {label}" for t in found
                ]
        failed = [t["n"] for t in trials if t["status"] == "failed"]
        if failed:
            cross: dict[str, Any] = {
                "linestyle": "none",
                "marker": "|",
                "markersize": 8,
                "color": SERIES[1],
            }
            axes.plot(
                failed,
                [0.03] * len(failed),
                label="failed",
                transform=axes.get_xaxis_transform(),
                **cross,
            )
        top, best = -math.inf, []
        for t in trials:
            top = (
                max(top, t["value"])
                if t["status"] == "complete" and math.isfinite(t["value"])
                else top
            )
            best.append(top if math.isfinite(top) else math.nan)
        if any(map(math.isfinite, best)):
            axes.step(
                [t["n"] for t in trials],
                best,
                where="post",
                color=SERIES[0],
                linewidth=1,
                label="best so far",
            )
        for i, (name, value) in enumerate(lines.items()):
            axes.axhline(
                value,
                color=DARK,
                linewidth=0.8,
                linestyle=_dashes(DASHES[i + 1]),
                label=name,
                zorder=1,
            )
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=7)
        return _svg(
            figure,
            "history",
            f"Held-out mAP of {len(trials)} trials in the order of their start.",
            tips,
        )


def parallel(axes_: Sequence[Axis], names: Sequence[str], kinds: Sequence[str]) -> str:
    """A line a trial across its settings to its mAP; kinds are ``best``, ``other`` and ``pruned``."""
    kinds_of: dict[str, dict[str, Any]] = {
        "pruned": {"color": FAINT, "linewidth": 0.8, "alpha": 0.8, "linestyle": (0, (2, 2))},
        "other": {"color": SERIES[0], "linewidth": 0.8, "alpha": 0.5},
        "best": {"color": SERIES[1], "linewidth": 1.5, "zorder": 3},
    }
    with look():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(max(SMALL[0], 1.25 * len(axes_)), 3), layout="constrained")
        axes = figure.subplots()
        tips: Tips = {}
        x = range(len(axes_))
        for kind, mark in kinds_of.items():
            for i in (i for i, k in enumerate(kinds) if k == kind):
                axes.plot(x, [axis.at[i] for axis in axes_], gid=f"trial{i}", **mark)
                tips[f"trial{i}"] = names[i]
        for at, axis in enumerate(axes_):
            axes.plot([at, at], [-0.02, 1.02], color=DARK, linewidth=0.8, zorder=4)
            last = at == len(axes_) - 1
            for height, text in axis.ticks:
                beside: dict[str, Any] = {
                    "ha": "right" if last else "left",
                    "va": "center",
                    "zorder": 5,
                    "fontsize": 7.5,
                }
                axes.text(at + (-0.04 if last else 0.04), height, text, **beside)
            name = axis.name.replace("_", "_\n", 1) if len(axis.name) > 14 else axis.name
            axes.text(at, 1.07, name, ha="center", va="bottom", fontweight="bold", fontsize=8)
        axes.set(xlim=(-0.3, len(axes_) - 0.7), ylim=(-0.06, 1.18))
        axes.set_axis_off()
        said = f"Settings of {len(names)} trials and their held-out mAP, a line each: {', '.join(a.name for a in axes_)}."
        return _svg(figure, "parallel", said, tips)


def importances(rows: Sequence[Mapping[str, Any]]) -> str:
    """Share of each field (``name``, ``share``, ``low``, ``high``, ``verdict``) in what sets the trials apart."""
    with look():
        figure, axes = _axes("share of the importance", "", "", height=0.9 + 0.28 * len(rows))
        tips: Tips = {}
        for at, row in enumerate(rows):
            mark: dict[str, Any] = {
                "markerfacecolor": DARK if row["verdict"] == "matters" else "#ffffff",
                "color": DARK,
                "gid": f"field{at}",
            }
            axes.plot([row["low"], row["high"]], [at, at], color=DARK, linewidth=1.1)
            axes.plot(row["share"], at, marker="D", markersize=4.5, **mark)
            tips[f"field{at}"] = (
                f"{row['field']}: {row['share']:.2f} ({row['low']:.2f} to {row['high']:.2f}), {row['verdict']}"
            )
        axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
        axes.set(xlim=(0, None), ylim=(len(rows) - 0.5, -0.5))
        said = "; ".join(str(tip) for tip in tips.values())
        return _svg(
            figure, "importance", f"Importance of each field with its interval: {said}.", tips
        )


def _axes(x: str, y: str, title: str, height: float = SMALL[1]) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(SMALL[0], height), layout="constrained")
    axes = figure.subplots()
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=x in ("epoch", "trial, by start")))
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=8.5, fontweight="bold", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(width=0.6, length=3)
    return figure, axes


def _dashes(dash: str) -> Any:
    return (0, tuple(map(float, dash.split()))) if dash else "-"


def _svg(figure: Figure, name: str, said: str, tips: Tips | None = None) -> str:
    """SVG to stand in a page: names of its own, the page's colours and fonts, a tooltip for what has one.

    Args:
        said: what the chart shows, for whoever cannot see it.
        tips: text of an artist by its gid, or of each of its marks.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True)
    root = ElementTree.fromstring(plain(buffer.getvalue()))
    metadata, styles = f"{{{SVG}}}metadata", f"{{{SVG}}}style"
    for parent in list(root.iter()):
        for child in [c for c in parent if c.tag in (metadata, styles)]:
            parent.remove(child)  # its style would be that of the whole page
    for node in root.iter():
        named = {
            key.rpartition("}")[2]: value for key, value in node.attrib.items()
        }  # href needs no xlink
        node.attrib.clear()
        node.attrib |= {key: _attribute(key, value, name) for key, value in named.items()}
        if tip := (tips or {}).get(node.get("id", "").removeprefix(f"{name}-")):
            marks = [node] if isinstance(tip, str) else list(node.iter(f"{{{SVG}}}use"))
            for mark, text in zip(marks, [tip] if isinstance(tip, str) else tip, strict=True):
                title = ElementTree.Element(f"{{{SVG}}}title")
                title.text = text
                mark.insert(0, title)
    width = float(root.attrib.pop("width").removesuffix("pt"))
    del root.attrib["height"]
    least = f"min-width:{1.2 * width:.0f}px;" if width > 72 * SMALL[0] + 1 else ""
    root.attrib |= {
        "role": "img",
        "aria-label": said,
        "style": f"{least}max-width:{1.5 * width:.0f}px",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _attribute(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return value.replace("#", f"#{name}-")
    if key == "clip-path":
        return value.replace("url(#", f"url(#{name}-")
    if key in ("d", "x", "y", "transform", "points"):
        return re.sub(r"(\.\d\d)\d+", r"\1", " ".join(value.split()))
    if key == "style":
        value = re.sub(
            r"#[0-9a-f]{6}", lambda m: f"var(--{COLOURS[m[0]]})" if m[0] in COLOURS else m[0], value
        )
        return re.sub(r"'DejaVu Sans'[^;]*", "var(--sans)", value)
    return value
