"""The style of the plots of reports, and how a figure is saved to a file."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sadcl import storage
from sadcl.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


ENDINGS = ("png", "svg", "pdf")
STYLE = {
    "font.size": 8,
    "font.family": "sans-serif",
    "text.parse_math": False,  # a $ in a name is not mathematics
    "text.usetex": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "axes.linewidth": 0.6,
}
DARK, FAINT = "#1a1a1a", "#8c8c8c"
MARK: dict[str, Any] = {
    "marker": "D",
    "markersize": 4.5,
    "linestyle": "none",
    "color": DARK,
    "zorder": 3,
}
SIGNIFICANT_MARK = MARK
OPEN_MARK = MARK | {"markerfacecolor": "white", "markeredgewidth": 1.0}
SEED_MARK: dict[str, Any] = {
    "marker": "o",
    "markersize": 2.6,
    "linestyle": "none",
    "color": FAINT,
    "alpha": 0.7,
    "markeredgewidth": 0,
}
ZERO_LINE: dict[str, Any] = {
    "color": DARK,
    "linewidth": 0.8,
    "linestyle": (0, (4, 2)),
    "zorder": 1,
}


def effect_axes(axes: Axes) -> None:
    """Style axes that have a name on each line and no frame."""
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", width=0.6, length=3)
    axes.spines[["top", "right", "left"]].set_visible(False)


def draw_interval(
    axes: Axes, x: float, y: float, half_width: float, *, upright: bool = False, **style: Any
) -> None:
    """Draw the interval of a difference, where it has one.

    Args:
        axes: to draw on.
        x, y: the place of the difference.
        half_width: of the interval; nan draws nothing.
        upright: along y and not along x.
        style: of ``errorbar``.
    """
    if not math.isnan(half_width):
        style |= {"yerr" if upright else "xerr": half_width}
        axes.errorbar(x, y, color=DARK, zorder=2, **style)


def check_ending(uri: str) -> str:
    """Return the format of a picture by the ending of its file name.

    Raises:
        UserError: for an ending other than .png, .svg and .pdf, and for a place that cannot be
            written.
    """
    ending = uri.rpartition(".")[2].lower()
    if "." not in uri or ending not in ENDINGS:
        raise UserError(
            f"The plot {uri!r} cannot be drawn: its name must end in .{', .'.join(ENDINGS)}."
        )
    storage.check_new(uri)
    return ending


def save_figure(uri: str, figure: Callable[[], Figure]) -> None:
    """Draw a figure in the style of reports and save it to a file.

    Args:
        uri: the file; its ending is its format.
        figure: makes the figure; it is called within the style.

    Raises:
        UserError: as :func:`check_ending` and ``figure`` do.
    """
    ending = check_ending(uri)
    from matplotlib import style

    buffer = io.BytesIO()
    with style.context(["default", STYLE]):
        figure().savefig(buffer, format=ending, dpi=300)
    storage.write(uri, buffer.getvalue())
