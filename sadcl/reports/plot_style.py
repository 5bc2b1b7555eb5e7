"""How the plots of reports look, and the file that a figure is saved to."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sadcl import storage
from sadcl.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


ENDINGS = ("png", "svg", "pdf")
STYLE = {
    "font.size": 8,
    "font.family": "sans-serif",
    "text.parse_math": False,  # a $ in a name is a $
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
SHOWN, OPEN = MARK, MARK | {"markerfacecolor": "white", "markeredgewidth": 1.0}
SEED: dict[str, Any] = {
    "marker": "o",
    "markersize": 2.6,
    "linestyle": "none",
    "color": FAINT,
    "alpha": 0.7,
    "markeredgewidth": 0,
}


def check_ending(uri: str) -> str:
    """The format of a picture by its file's ending.

    Raises:
        UserError: for another than PNG, SVG and PDF, or a place that cannot be written.
    """
    ending = uri.rpartition(".")[2].lower()
    if "." not in uri or ending not in ENDINGS:
        raise UserError(
            f"The plot {uri!r} cannot be drawn: its name must end in .{', .'.join(ENDINGS)}."
        )
    storage.check_new(uri)
    return ending


def save_figure(uri: str, figure: Callable[[], Figure]) -> None:
    """Draw a figure in the style of these plots into a file; raises as :func:`check`, and what ``figure`` does."""
    ending = check_ending(uri)
    from matplotlib import style

    buffer = io.BytesIO()
    with style.context(["default", STYLE]):
        figure().savefig(buffer, format=ending, dpi=300)
    storage.write(uri, buffer.getvalue())
