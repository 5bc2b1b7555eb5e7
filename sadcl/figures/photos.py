"""Fig. 5: where the networks look for each label, over photographs.

Axes: H, W a photograph's height and width, K boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sadcl.figures.drawing import caption, save
from sadcl.inference import Predictor, Seen
from sadcl.model import SADCL
from sadcl.reports.plot_style import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = 480
"""Pixels of the longer side of a photograph in the figure; longer ones are made smaller."""
CELL = 1.35
"""Width of a photograph in inches."""
FLATTEST, TALLEST = 0.2, 1.8
"""The height of its place is so many times the width, from and to; a taller photograph becomes narrower."""
ABOUT = {
    "SADCL": "attention of the label's query in the last decoder layer, mean over its heads",
    "baseline": "class activation map, its positive part",
}


@dataclass(frozen=True)
class Shown:
    """A photograph of the figure.

    Attributes:
        name: written above it.
        seen: by each network; the photograph at most 480 pixels long.
        labels: that are shown.
        scores: of these by the first network.
        boxes: of labels where these are known, (K, 4) each 0 to 1 of width and height.
    """

    name: str
    seen: Sequence[Seen]
    labels: Sequence[str]
    scores: Sequence[float]
    boxes: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


def name_of(predictor: Predictor) -> str:
    """``SADCL``, or ``baseline`` for the pooled network."""
    return "SADCL" if isinstance(predictor.network, SADCL) else "baseline"


def show(
    image: str | Path,
    networks: Sequence[Predictor],
    labels: Sequence[str] | None = None,
    top: int = 4,
    boxes: Mapping[str, NDArray[np.float64]] | None = None,
) -> Shown:
    """Look at an image file with each network.

    Args:
        image: of any proportions.
        networks: the first says which labels are shown, where these are not given.
        labels: None is the ``top`` ones that score above 0.5, and at least the best one.
        boxes: of its objects, where they are known.

    Raises:
        UserError: for a file that is missing or is no image, or a label that the first network does not know.
    """
    seen = [network.look(image) for network in networks]
    seen = [one._replace(photo_HW3=_smaller(one.photo_HW3)) for one in seen]
    chosen = networks[0].chosen(seen[0], labels)[: None if labels else top]
    scores = [float(seen[0].scores_L[i]) for i in chosen]
    return Shown(str(image), seen, [networks[0].labels[i] for i in chosen], scores, boxes or {})


def draw_maps(
    shown: Sequence[Shown], networks: Mapping[str, Predictor], uri: str, notes: Sequence[str] = ()
) -> None:
    """A block a photograph, in it a line a network and a column a label.

    Args:
        shown: at least one; each seen by all networks.
        networks: by the name that stands beside their lines.
        uri: a PNG, SVG or PDF.
        notes: sentences for the caption.

    Raises:
        UserError: for a file that cannot be written.
    """
    from matplotlib import style

    with style.context(["default", STYLE]):
        save(_figure(shown, networks, notes), uri)


def _figure(
    shown: Sequence[Shown], networks: Mapping[str, Predictor], notes: Sequence[str]
) -> Figure:
    from matplotlib.figure import Figure

    columns = 1 + max(len(one.labels) for one in shown)
    photos = [one.seen[0].photo_HW3 for one in shown]
    high = [
        CELL * min(max(photo.shape[0] / photo.shape[1], FLATTEST), TALLEST)
        for photo in photos
        for _ in networks
    ]
    inches = max(0.2 + 1.06 * CELL * columns, 3.6)
    figure = Figure(figsize=(inches, sum(high) + 0.2 * len(high) + 0.6), layout="constrained")
    grid = figure.add_gridspec(len(high), columns, height_ratios=high)
    for first, one, photo in zip(range(0, len(high), len(networks)), shown, photos, strict=True):
        axes = _cell(figure, grid[first : first + len(networks), 0], photo, _short(one.name))
        for line, (name, network) in enumerate(networks.items()):
            for column, label in enumerate(one.labels, start=1):
                place = network.labels.index(label) if label in network.labels else None
                if place is None:
                    axes = _cell(
                        figure,
                        grid[first + line, column],
                        np.full_like(photo, 235),
                        f"{label}: not known",
                    )
                else:
                    over = _overlay(photo, one.seen[line].over(place, *photo.shape[:2]))
                    score = one.seen[line].scores_L[place]
                    axes = _cell(figure, grid[first + line, column], over, f"{label} {score:.2f}")
                    _outline(axes, one.boxes.get(label, ()), photo)
                if column == 1:
                    axes.set_ylabel(name, fontsize=7)
    what = "; ".join(f"{name}: {ABOUT[name_of(network)]}" for name, network in networks.items())
    boxed = ["White outlines: the objects' known boxes."] if any(one.boxes for one in shown) else []
    about = [
        f"Number: the label's score. {what}. Each map on a scale of its own, from nothing to its highest value."
    ]
    caption(figure, [*about, *boxed, *notes], inches)
    return figure


def _overlay(photo_HW3: NDArray[np.uint8], map_HW: NDArray[np.float32]) -> NDArray[np.float64]:
    """The photograph, pale and grey where the map is low, under the map's colours where it is high."""
    from matplotlib import colormaps

    grey_HW3 = (photo_HW3 / 255.0) @ np.full((3, 3), 1 / 3)
    under_HW3 = 0.85 * (0.3 * photo_HW3 / 255.0 + 0.7 * grey_HW3)
    weight_HW1 = 0.72 * map_HW[..., None].astype(np.float64) ** 0.8
    return (1 - weight_HW1) * under_HW3 + weight_HW1 * colormaps["inferno"](0.3 + 0.65 * map_HW)[
        ..., :3
    ]


def _outline(axes: Axes, boxes_K4: Any, photo: NDArray[np.uint8]) -> None:
    from matplotlib.patches import Rectangle

    height, width = photo.shape[:2]
    for left, top, right, bottom in boxes_K4:
        corner = (left * width - 0.5, top * height - 0.5)
        size = ((right - left) * width, (bottom - top) * height)
        for colour, line in (("black", 1.6), ("white", 0.8)):
            axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=line))


def _smaller(photo_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from torchvision.transforms.v2 import functional as F

    height, width = photo_HW3.shape[:2]
    share = min(1.0, SIDE / max(height, width))
    if share == 1:
        return photo_HW3
    size = [max(1, round(height * share)), max(1, round(width * share))]
    return (
        F.resize(torch.from_numpy(photo_HW3).permute(2, 0, 1), size, antialias=True)
        .permute(1, 2, 0)
        .numpy()
    )


def _cell(figure: Figure, place: Any, image: NDArray[Any], title: str) -> Axes:
    axes = figure.add_subplot(place)
    axes.imshow(image)
    axes.set_anchor("NW")
    axes.set_title(title, fontsize=7, loc="left", pad=2)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return axes


def _short(name: str, most: int = 22) -> str:
    name = name.rpartition("/")[2]
    return name if len(name) <= most else "..." + name[3 - most :]
