"""Scores of the maps of a split against known boxes, computed while the split is evaluated.

Axes: B images of a batch, L labels, H, W a map's height and width, K boxes, R pairs of an image and
a label that it shows; R5 has the columns image, label and the three measures.
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
    """Takes the maps of each batch and averages their scores over the images with a label.

    Args:
        boxes: boxes of the split that is evaluated.
    """

    def __init__(self, boxes: Boxes) -> None:
        self.boxes = boxes
        self.rows: list[tuple[float, ...]] = []

    def __call__(self, index_B: Tensor, maps_BLHW: Tensor) -> None:
        pairs = [
            (row, image, label, boxes_K4)
            for row, image in enumerate(index_B.tolist())
            for label, boxes_K4 in self.boxes.of(image).items()
        ]
        index_R2 = torch.tensor(
            [(row, label) for row, _, label, _ in pairs], dtype=torch.int64
        ).reshape(-1, 2)
        # The maps of a whole batch are copied at once, because each copy from a GPU waits.
        maps_RHW = maps_BLHW[index_R2[:, 0], index_R2[:, 1]].cpu().double().numpy()
        for (_, image, label, boxes_K4), map_HW in zip(pairs, maps_RHW, strict=True):
            self.rows.append((image, label, *localisation(map_HW, boxes_K4)))

    def means(self, num_labels: int, device: torch.device) -> dict[str, NDArray[np.float64]]:
        """Average over the images of all workers. This is a collective call.

        Returns:
            ``pointing``, ``box_energy`` and ``box_area`` of each label (L,) in percent, the same on
            every worker; nan where no image has a box of the label.
        """
        local_R5 = torch.tensor(self.rows, dtype=torch.float64, device=device).reshape(-1, 5)
        rows_R5 = distributed.all_gather_rows(local_R5).cpu().numpy()
        # One order for any number of workers, because the order of a sum changes its last bits.
        rows_R5 = rows_R5[np.lexsort(rows_R5.T[1::-1])]
        means_L3 = np.full((num_labels, 3), np.nan)
        for label in np.unique(rows_R5[:, 1]).astype(int):
            means_L3[label] = 100 * rows_R5[rows_R5[:, 1] == label, 2:].mean(axis=0)
        return dict(zip(MEASURES, means_L3.T, strict=True))
