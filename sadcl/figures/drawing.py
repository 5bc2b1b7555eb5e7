"""What the figures share: colours, marks, the caption, t-SNE, and the file.

Axes: N points, D dimensions.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sadcl import storage
from sadcl.reports.plot_style import check_ending

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FAINT = "#6b6b6b"
COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
    *("#7a4fbf", "#8c564b", "#b5a900", "#1f1f1f", "#e6194b", "#7f7f7f"),
)
"""Colour-blind readers can tell the first six apart (Okabe and Ito); beyond them the marks help."""
MARKS = "osD^vP*X<>hp"
SEED = 0
"""Seed of every t-SNE, sample and permutation."""


def look_of(number: int) -> dict[str, Any]:
    """Return colour and mark of a class; no pair occurs twice among 132 classes."""
    return {"color": COLOURS[number % 12], "marker": MARKS[(number + number // 12) % 12]}


def save(figure: Figure, uri: str) -> None:
    """Write a figure whole or not at all; the same figure gives the same file."""
    ending, buffer = check_ending(uri), io.BytesIO()
    undated: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(ending, {})
    # a picture may have 65,535 pixels on a side
    dpi = min(200.0, 60_000 / max(figure.get_size_inches()))
    figure.savefig(buffer, format=ending, dpi=dpi, metadata=undated)
    storage.write(uri, buffer.getvalue())


def caption(figure: Figure, sentences: Sequence[str], inches: float) -> None:
    """Add sentences below everything else, wrapped to the width of the figure in inches."""
    figure.supxlabel(
        textwrap.fill(" ".join(sentences), int(inches * 19)),
        fontsize=7,
        color="#333333",
        x=0.01,
        ha="left",
    )


def t_sne(rows_ND: NDArray[Any]) -> tuple[NDArray[np.float64], float]:
    """Place points in the plane by their cosine distances.

    Returns:
        Positions (N, 2), and the perplexity: 30, or a third of the other points if they are few.
    """
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(rows_ND) - 1) / 3)
    unit_ND = rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True).clip(1e-12)
    # Euclidean distances of unit vectors have the order of cosine distances, and are searched fast
    return TSNE(perplexity=perplexity, init="pca", random_state=SEED).fit_transform(
        unit_ND
    ), perplexity


def remove_ticks(axes: Axes, title: str) -> None:
    """Draw a frame without numbers, because positions of a t-SNE have no unit."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=8, fontweight="bold", loc="left")
    axes.margins(0.07)
