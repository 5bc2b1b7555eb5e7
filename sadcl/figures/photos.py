"""Fig. 5: where the networks look for each label, over photographs.

Axes: H, W a photograph's height and width, K boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sadcl.figures.drawing import caption, save
from sadcl.inference import Predictor, Seen
from sadcl.model import SADCL
from sadcl.results.forest import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = 480
"""Pixels of the longer side of a photograph in the figure; longer ones are made smaller."""
CELL = 1.35
"""Width of a photograph in inches."""
TALLEST = 1.8
"""A photograph is drawn at most so many times as high as wide; taller ones become narrower."""
WHAT = {True: "attention", False: "class activation"}


@dataclass(frozen=True)
class Shown:
    """A photograph of the figure.

    Attributes:
        name: written above it.
        seen: by each network.
        labels: that are shown, most of them first.
        boxes: of labels where these are known, (K, 4) each 0 to 1 of width and height.
    """

    name: str
    seen: Sequence[Seen]
    labels: Sequence[str]
    boxes: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


def draw_maps(shown: Sequence[Shown], networks: Mapping[str, Predictor], uri: str, notes: Sequence[str] = ()) -> None:
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


def _figure(shown: Sequence[Shown], networks: Mapping[str, Predictor], notes: Sequence[str]) -> Figure:
    from matplotlib.figure import Figure

    columns = 1 + max(len(one.labels) for one in shown)
    photos = [_smaller(one.seen[0].photo_HW3) for one in shown]
    high = [CELL * min(max(p.shape[0] / p.shape[1], 0.3), TALLEST) for p in photos for _ in networks]
    inches = max(0.3 + CELL * 1.04 * columns, 3.6)
    figure = Figure(figsize=(inches, sum(high) + 0.25 * len(high) + 0.75), layout="constrained")
    grid = figure.add_gridspec(len(high), columns, height_ratios=high)
    for i, (one, photo) in enumerate(zip(shown, photos, strict=True)):
        for line, (name, network) in enumerate(networks.items()):
            at = i * len(networks) + line
            axes = figure.add_subplot(grid[at, 0])
            _blank(axes)
            axes.set_ylabel(name, fontsize=7)
            if line == 0:
                axes.imshow(photo)
                axes.set_title(_short(one.name), fontsize=7, loc="left")
            else:
                axes.set_aspect(photo.shape[0] / photo.shape[1])
            for column, label in enumerate(one.labels, start=1):
                axes = figure.add_subplot(grid[at, column])
                _blank(axes)
                if label in network.labels:
                    place = network.labels.index(label)
                    axes.imshow(_overlay(photo, one.seen[line].over(place, *photo.shape[:2])))
                    axes.set_title(f"{label} {one.seen[line].scores_L[place]:.2f}", fontsize=7, loc="left")
                    _outline(axes, one.boxes.get(label, ()), photo)
                else:
                    axes.set_title(f"{label}: not known", fontsize=7, loc="left")
    kinds = {isinstance(network, SADCL): name for name, network in _nets(networks)}
    what = "; ".join(f"{name}: {_ABOUT[kind]}" for kind, name in kinds.items())
    boxed = ["White outlines: the objects' known boxes."] if any(one.boxes for one in shown) else []
    about = [f"Number: the label's score. {what}. Each map on a scale of its own, from nothing to its highest value."]
    caption(figure, [*about, *boxed, *notes], inches)
    return figure


_ABOUT = {
    True: "attention of the label's query, last decoder layer, mean over heads",
    False: "class activation map, positive part",
}


def _nets(networks: Mapping[str, Predictor]) -> list[tuple[str, Any]]:
    return [(name, predictor.network) for name, predictor in networks.items()]


def _overlay(photo_HW3: NDArray[np.uint8], map_HW: NDArray[np.float32]) -> NDArray[np.float64]:
    """The photograph, pale and grey where the map is low, under the map's colours where it is high."""
    from matplotlib import colormaps

    grey_HW3 = (photo_HW3 / 255.0) @ np.full((3, 3), 1 / 3)
    under_HW3 = 0.75 * (0.35 * photo_HW3 / 255.0 + 0.65 * grey_HW3)
    weight_HW1 = 0.8 * map_HW[..., None].astype(np.float64) ** 0.8
    return (1 - weight_HW1) * under_HW3 + weight_HW1 * colormaps["inferno"](0.25 + 0.7 * map_HW)[..., :3]


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
    return F.resize(torch.from_numpy(photo_HW3).permute(2, 0, 1), size, antialias=True).permute(1, 2, 0).numpy()


def _blank(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else "..." + name[-most:]
