"""A matplotlib figure as inline SVG, whose colours and fonts are those of the page."""

from __future__ import annotations

import contextlib
import contextvars
import io
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from sadcl.reports.page.study import printable
from sadcl.reports.plot_style import DARK, FAINT, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = ("#0072b2", "#d55e00", "#009e73", "#b0578d", "#b57b00", "#4c4c4c")
"""The palette of Okabe and Ito, without or with darker light colours; ``--c0`` to ``--c5``."""
COLOURS = {DARK: "ink", "#000000": "ink", FAINT: "faint", "#ffffff": "paper"} | {
    colour: f"c{i}" for i, colour in enumerate(SERIES)
}
"""The variable of the page's style sheet for each colour of a figure."""
PAGE_STYLE = STYLE | {
    "font.size": 8.5,
    "lines.solid_capstyle": "round",
    "axes.edgecolor": FAINT,
    "svg.hashsalt": "page",
}
SMALL_SIZE = (4.4, 2.75)
"""Inches; two such figures fit side by side on a desktop, one on a phone."""
SVG = "http://www.w3.org/2000/svg"
ElementTree.register_namespace("", SVG)
Tooltips = dict[str, str | list[str]]
_id_prefix = contextvars.ContextVar("id_prefix", default="")


@contextlib.contextmanager
def ids_begin_with(prefix: str) -> Iterator[None]:
    """Begin the ids of all figures with a prefix, for the second study of a page."""
    token = _id_prefix.set(prefix)
    try:
        yield
    finally:
        _id_prefix.reset(token)


@contextlib.contextmanager
def page_style() -> Iterator[None]:
    """Draw in the style of the page."""
    from matplotlib import style

    with style.context(["default", PAGE_STYLE]), warnings.catch_warnings():
        # The reader's font has the glyphs that ours lacks.
        warnings.simplefilter("ignore", UserWarning)
        yield


def small_axes(
    x_label: str,
    y_label: str,
    title: str = "",
    *,
    is_count: bool = True,
    size: tuple[float, float] = SMALL_SIZE,
) -> tuple[Figure, Axes]:
    """Make a small figure.

    Args:
        x_label, y_label, title: of the axes.
        is_count: whether the ticks of the x axis are whole numbers.
        size: width and height in inches.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=is_count))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_title(title, fontsize=8.5, fontweight="bold", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(width=0.6, length=3)
    return figure, axes


def with_margin(values: Iterable[float]) -> tuple[float, float]:
    """Return the limits of an axis that has these values inside."""
    values = list(values)
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin


def dash_pattern(dash: str) -> Any:
    """Convert dashes as SVG has them to matplotlib's; empty is a solid line."""
    return (0, tuple(map(float, dash.split()))) if dash else "-"


def inline_svg(
    figure: Figure,
    name: str,
    alt: str,
    tooltips: Tooltips | None = None,
    *,
    least_scale: float = 1.2,
) -> str:
    """Convert a figure to an SVG element.

    Args:
        name: of the figure; a prefix of its ids, which must be unique in the page.
        alt: what the chart shows, for readers who cannot see it.
        tooltips: the text of an artist by its gid, or a text for each of its marks.
        least_scale: the smallest scale of a figure that is wider than a small one, in CSS pixels
            for a point; on a narrower screen it scrolls.
    """
    name = f"{_id_prefix.get()}{name}"
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True)
    root = ElementTree.fromstring(printable(buffer.getvalue()))
    _remove_metadata_and_styles(root)
    for node in root.iter():
        # Without its namespace, because href needs no xlink.
        attributes = {key.rpartition("}")[2]: value for key, value in node.attrib.items()}
        node.attrib.clear()
        node.attrib |= {key: _attribute(key, value, name) for key, value in attributes.items()}
        gid = node.get("id", "").removeprefix(f"{name}-")
        if tooltip := (tooltips or {}).get(gid):
            _add_tooltips(node, tooltip)
    width = float(root.attrib.pop("width").removesuffix("pt"))
    del root.attrib["height"]
    is_wide = width > 72 * SMALL_SIZE[0] + 1
    min_width = f"min-width:{least_scale * width:.0f}px;" if is_wide else ""
    root.attrib |= {
        "role": "img",
        "aria-label": alt,
        "style": f"{min_width}max-width:{1.5 * width:.0f}px",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _remove_metadata_and_styles(root: ElementTree.Element) -> None:
    """Remove the figure's style element too, because it would apply to the whole page."""
    names = (f"{{{SVG}}}metadata", f"{{{SVG}}}style")
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in names]:
            parent.remove(child)


def _add_tooltips(node: ElementTree.Element, tooltip: str | list[str]) -> None:
    if isinstance(tooltip, str):
        marks, texts = [node], [tooltip]
    else:
        marks, texts = list(node.iter(f"{{{SVG}}}use")), tooltip
    for mark, text in zip(marks, texts, strict=True):
        title = ElementTree.Element(f"{{{SVG}}}title")
        title.text = text
        mark.insert(0, title)


def _attribute(key: str, value: str, name: str) -> str:
    """Make ids unique, shorten numbers, and replace colours and fonts by the page's."""
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
