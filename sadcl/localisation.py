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
    x, y = (np.unique(np.concatenate([np.arange(n + 1), *boxes_K4.T[axis::2]])) for axis, n in ((0, width), (1, height)))
    inside_YX = np.zeros((len(y) - 1, len(x) - 1))
    for left, top, right, bottom in boxes_K4:
        columns, rows = slice(*np.searchsorted(x, [left, right])), slice(*np.searchsorted(y, [top, bottom]))
        inside_YX[rows, columns] = 1
    area_YX = inside_YX * np.diff(y)[:, None] * np.diff(x)
    rows_HX = np.add.reduceat(area_YX, np.searchsorted(y, np.arange(height)), axis=0)
    return np.add.reduceat(rows_HX, np.searchsorted(x, np.arange(width)), axis=1)


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
