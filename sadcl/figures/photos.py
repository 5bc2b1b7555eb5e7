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
from sadcl.inference import LabelMaps, Predictor
from sadcl.reports.plot_style import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = 480
"""Longest side in pixels of a photograph in the figure; larger ones are reduced."""
CELL = 1.35
"""Width of a photograph in inches."""
FLATTEST, TALLEST = 0.2, 1.8
"""Smallest and largest height of a photograph's cell as a share of its width; a taller photograph
becomes narrower."""
BAR = 0.1
"""Height of the colour bar in inches."""
MAP_KINDS = {
    "SADCL": "attention of the label's query in the last decoder layer, mean over its heads",
    "baseline": "class activation map, its positive part",
}
"""What the maps of each kind of network are; those of another head are what it says."""


@dataclass(frozen=True)
class PhotoMaps:
    """A photograph of the figure, with the maps of each network.

    Attributes:
        name: written above it.
        maps: one for each network; the photograph is at most ``SIDE`` pixels long.
        labels: the labels to show.
        scores: of these labels by the first network.
        boxes: of labels whose boxes are known, (K, 4), each 0 to 1 of width and height.
    """

    name: str
    maps: Sequence[LabelMaps]
    labels: Sequence[str]
    scores: Sequence[float]
    boxes: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


def network_name(predictor: Predictor) -> str:
    """Return ``SADCL``, ``baseline`` for the pooled network, or the name of another head."""
    name = type(predictor.network.head).__name__
    return {"SARL": "SADCL", "Pooled": "baseline"}.get(name, name)


def map_photo(
    image: str | Path,
    networks: Sequence[Predictor],
    labels: Sequence[str] | None = None,
    top: int = 4,
    boxes: Mapping[str, NDArray[np.float64]] | None = None,
) -> PhotoMaps:
    """Compute the maps of each network for an image file.

    Args:
        image: of any proportions.
        networks: the first one decides which labels are shown if ``labels`` is None.
        labels: the labels to show; None is the ``top`` ones that score above 0.5, and at least the
            best one.
        top: largest number of labels if ``labels`` is None.
        boxes: of the image's objects by label, if they are known.

    Raises:
        UserError: for a file that is missing or is no image, or a label that the first network does
            not know.
    """
    maps = [network.label_maps(image) for network in networks]
    maps = [one._replace(photo_HW3=_reduced(one.photo_HW3)) for one in maps]
    positions = networks[0].select_labels(maps[0], labels)[: None if labels else top]
    names = [networks[0].labels[i] for i in positions]
    scores = [float(maps[0].scores_L[i]) for i in positions]
    return PhotoMaps(str(image), maps, names, scores, boxes or {})


def draw_maps(
    photos: Sequence[PhotoMaps],
    networks: Mapping[str, Predictor],
    uri: str,
    notes: Sequence[str] = (),
) -> None:
    """Draw a block for each photograph, with a row for each network and a column for each label.

    Args:
        photos: at least one; each with the maps of all networks.
        networks: by the name that is written beside their rows.
        uri: a PNG, SVG or PDF file.
        notes: sentences for the caption.

    Raises:
        UserError: for a file that cannot be written.
    """
    from matplotlib import style

    with style.context(["default", STYLE]):
        save(_figure(photos, networks, notes), uri)


def _figure(
    photos: Sequence[PhotoMaps], networks: Mapping[str, Predictor], notes: Sequence[str]
) -> Figure:
    from matplotlib.figure import Figure

    columns = 1 + max(len(one.labels) for one in photos)
    heights = [_cell_height(one) for one in photos for _ in networks]
    inches = max(0.2 + 1.06 * CELL * columns, 3.6)
    size = (inches, sum(heights) + 0.2 * len(heights) + BAR + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.add_gridspec(len(heights) + 1, columns, height_ratios=[*heights, BAR])
    for first_row, one in zip(range(0, len(heights), len(networks)), photos, strict=True):
        cell = grid[first_row : first_row + len(networks), 0]
        _draw_image(figure, cell, one.maps[0].photo_HW3, _short(one.name))
        for i, (name, network) in enumerate(networks.items()):
            for column, label in enumerate(one.labels, start=1):
                axes = _draw_map(figure, grid[first_row + i, column], one, i, network, label)
                if column == 1:
                    axes.set_ylabel(name, fontsize=7)
    _draw_colour_bar(figure, grid[-1, 1])
    kinds = "; ".join(f"{name}: {_map_kind(network_name(n))}" for name, n in networks.items())
    legend = (
        f"Number: the label's score. {kinds}. Each map on a scale of its own, from nothing to its "
        "highest value."
    )
    has_boxes = any(one.boxes for one in photos)
    boxes_note = ["White outlines: the objects' known boxes."] if has_boxes else []
    caption(figure, [legend, *boxes_note, *notes], inches)
    return figure


def _map_kind(name: str) -> str:
    return MAP_KINDS.get(name, "the map of its head")


def _cell_height(one: PhotoMaps) -> float:
    """Return the height of a photograph's cell in inches."""
    height, width, _ = one.maps[0].photo_HW3.shape
    return CELL * min(max(height / width, FLATTEST), TALLEST)


def _draw_map(
    figure: Figure, cell: Any, photo: PhotoMaps, network_index: int, network: Predictor, label: str
) -> Axes:
    """Draw a label's map over a photograph, or a grey cell if the network does not know the
    label."""
    photo_HW3, maps = photo.maps[0].photo_HW3, photo.maps[network_index]
    if label not in network.labels:
        return _draw_image(figure, cell, np.full_like(photo_HW3, 235), f"{label}: not known")
    position = network.labels.index(label)
    overlay = _overlay(photo_HW3, maps.map_of(position, *photo_HW3.shape[:2]))
    axes = _draw_image(figure, cell, overlay, f"{label} {maps.scores_L[position]:.2f}")
    _outline(axes, photo.boxes.get(label, ()), photo_HW3)
    return axes


def _overlay(photo_HW3: NDArray[np.uint8], map_HW: NDArray[np.float32]) -> NDArray[np.float64]:
    """Blend the photograph, pale and grey, with the map's colours where the map is high."""
    from matplotlib import colormaps

    grey_HW3 = (photo_HW3 / 255.0) @ np.full((3, 3), 1 / 3)
    pale_HW3 = 0.85 * (0.3 * photo_HW3 / 255.0 + 0.7 * grey_HW3)
    colour_HW3 = colormaps["inferno"](0.3 + 0.65 * map_HW)[..., :3]
    weight_HW1 = 0.72 * map_HW[..., None].astype(np.float64) ** 0.8
    return (1 - weight_HW1) * pale_HW3 + weight_HW1 * colour_HW3


def _draw_colour_bar(figure: Figure, cell: Any) -> None:
    """Draw the colours of a map from nothing to its highest value, as they are over mid-grey."""
    values_HW = np.tile(np.linspace(0, 1, 128, dtype=np.float32), (2, 1))
    grey_HW3 = np.full((*values_HW.shape, 3), 128, np.uint8)
    axes = figure.add_subplot(cell)
    axes.imshow(_overlay(grey_HW3, values_HW), aspect="auto", extent=(0, 1, 0, 1))
    axes.set_yticks([])
    axes.set_xticks([0, 1], ["nothing", "highest"], fontsize=6)
    axes.tick_params(length=2, pad=2)


def _outline(axes: Axes, boxes_K4: Any, photo_HW3: NDArray[np.uint8]) -> None:
    """Draw boxes as white lines with a black border."""
    from matplotlib.patches import Rectangle

    height, width = photo_HW3.shape[:2]
    for left, top, right, bottom in boxes_K4:
        corner = (left * width - 0.5, top * height - 0.5)
        size = ((right - left) * width, (bottom - top) * height)
        for colour, line in (("black", 1.6), ("white", 0.8)):
            axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=line))


def _reduced(photo_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the photograph with sides of at most ``SIDE`` pixels."""
    from torchvision.transforms.v2 import functional as F

    height, width = photo_HW3.shape[:2]
    share = min(1.0, SIDE / max(height, width))
    if share == 1:
        return photo_HW3
    size = [max(1, round(height * share)), max(1, round(width * share))]
    photo_3HW = torch.from_numpy(photo_HW3).permute(2, 0, 1)
    return F.resize(photo_3HW, size, antialias=True).permute(1, 2, 0).numpy()


def _draw_image(figure: Figure, cell: Any, image: NDArray[Any], title: str) -> Axes:
    axes = figure.add_subplot(cell)
    axes.imshow(image)
    axes.set_anchor("NW")
    axes.set_title(title, fontsize=7, loc="left", pad=2)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return axes


def _short(name: str, length: int = 22) -> str:
    """Return the file name alone, and only its end if it is longer than ``length``."""
    name = name.rpartition("/")[2]
    return name if len(name) <= length else "..." + name[3 - length :]
