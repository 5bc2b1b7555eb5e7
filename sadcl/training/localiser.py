"""Scores maps against known boxes while a split is evaluated.

Axes: B images of a batch, L labels, H, W of the map, R pairs of an image and a label that it shows.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sadcl import distributed
from sadcl.data.base import Boxes
from sadcl.metrics import localisation

MEASURES = ("pointing", "box_energy", "box_area")
"""Columns of the labels table, in percent."""


class Localiser:
    """Takes the maps of each batch, and gives the means over the images with a label, the same on every worker.

    Args:
        boxes: of the split that is evaluated.
    """

    def __init__(self, boxes: Boxes) -> None:
        self.boxes = boxes
        self.rows: list[tuple[float, ...]] = []

    def __call__(self, index_B: Tensor, maps_BLHW: Tensor) -> None:
        pairs = [
            (place, image, label, boxes_K4)
            for place, image in enumerate(index_B.tolist())
            for label, boxes_K4 in self.boxes.of(image).items()
        ]
        at = torch.tensor(
            [(place, label) for place, _, label, _ in pairs], dtype=torch.int64
        ).reshape(-1, 2)
        maps_RHW = (
            maps_BLHW[at[:, 0], at[:, 1]].double().cpu().numpy()
        )  # of a whole batch, because a GPU answers late
        for (_, image, label, boxes_K4), map_HW in zip(pairs, maps_RHW, strict=True):
            self.rows.append((image, label, *localisation(map_HW, boxes_K4)))

    def means(self, labels: int, device: torch.device) -> dict[str, NDArray[np.float64]]:
        """``pointing``, ``box_energy`` and ``box_area`` by label (L,) in percent; nan where no image has a box of it."""
        own = torch.tensor(self.rows, dtype=torch.float64, device=device).reshape(-1, 5)
        rows_R5 = distributed.all_gather_rows(own).cpu().numpy()
        rows_R5 = rows_R5[np.lexsort(rows_R5.T[1::-1])]  # one order, whatever the number of workers
        means_L3 = np.full((labels, 3), np.nan)
        for label in np.unique(rows_R5[:, 1]).astype(int):
            means_L3[label] = 100 * rows_R5[rows_R5[:, 1] == label, 2:].mean(axis=0)
        return dict(zip(MEASURES, means_L3.T, strict=True))
