"""How well maps point at objects whose boxes are known; NumPy only.

A map is a grid over the whole image, whatever its proportions; a box is (left, top, right, bottom), each 0 to 1 of the
image's width or height. Axes: H, W the map's height and width, K boxes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Found(NamedTuple):
    """What one map says of the boxes of its label in one image, each 0 to 1."""

    pointing: float
    """1 where its highest place is in a box."""
    energy: float
    """Share of it that is inside the boxes."""
    area: float
    """Share of the image that is: what a map that knows nothing would have."""


def coverage(boxes_K4: ArrayLike, height: int, width: int) -> Floats:
    """Which share of each cell of a grid is inside any of the boxes, (H, W), exactly; boxes may overlap each other."""
    boxes_K4 = np.clip(np.asarray(boxes_K4, dtype=np.float64).reshape(-1, 4), 0, 1) * [width, height, width, height]
    first_W, inside_KX, width_X = _pieces(boxes_K4[:, 0], boxes_K4[:, 2], width)
    first_H, inside_KY, height_Y = _pieces(boxes_K4[:, 1], boxes_K4[:, 3], height)
    area_YX = (inside_KY.T @ inside_KX > 0) * height_Y[:, None] * width_X
    return np.add.reduceat(np.add.reduceat(area_YX, first_H, axis=0), first_W, axis=1)


def _pieces(low_K: Floats, high_K: Floats, cells: int) -> tuple[NDArray[np.intp], Floats, Floats]:
    """An axis cut at each end of a cell or a box: first piece of each cell, pieces (K, pieces) of each box, and lengths."""
    ends = np.unique(np.concatenate([np.arange(cells + 1.0), low_K, high_K]))
    inside_K = (low_K[:, None] <= ends[:-1]) & (ends[:-1] < high_K[:, None])
    return np.searchsorted(ends, np.arange(cells)), inside_K.astype(np.float64), np.diff(ends)


def score(map_HW: ArrayLike, boxes_K4: ArrayLike) -> Found:
    """The pointing game and the energy inside the boxes.

    The highest place is the middle of the highest cell, of equal ones the first, without the tolerance of 15 pixels of the
    pointing game's authors. Energy is of the positive part; a map without any is as good as a uniform one.

    Args:
        map_HW: higher where the label is.
        boxes_K4: at least one.

    Source: Zhang, Lin, Brandt, Shen, Sclaroff, Top-Down Neural Attention by Excitation Backprop, 2016 (pointing game);
    Wang et al., Score-CAM, 2020 (energy).
    """
    map_HW, boxes_K4 = np.asarray(map_HW, dtype=np.float64), np.asarray(boxes_K4, dtype=np.float64)
    height, width = map_HW.shape
    row, column = divmod(int(map_HW.argmax()), width)
    x, y = (column + 0.5) / width, (row + 0.5) / height
    left_K, top_K, right_K, bottom_K = boxes_K4.T
    hit = bool(((left_K <= x) & (x <= right_K) & (top_K <= y) & (y <= bottom_K)).any())
    covered_HW = coverage(boxes_K4, height, width)
    area = float(covered_HW.mean())
    positive_HW = map_HW.clip(min=0)
    total = positive_HW.sum()
    return Found(float(hit), float((positive_HW * covered_HW).sum() / total) if total > 0 else area, area)
