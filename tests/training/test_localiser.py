"""Means over the images of each label."""

from __future__ import annotations

import numpy as np
import torch

from sadcl.data.base import Boxes
from sadcl.training.localiser import Localiser


def test_means_over_the_images_of_each_label_in_any_order_of_the_batches():
    half, whole = [0, 0, 0.5, 1], [0, 0, 1, 1]
    boxes = Boxes(
        np.array([0, 2, 2, 2]),
        np.array([1, 0, 1, 1]),
        np.array([half, whole, [0.5, 0, 1, 1], whole]),
    )
    left, right = [[3.0, 1.0]], [[1.0, 3.0]]
    maps = torch.tensor([[left, right, left], [left, left, left], [left, right, right]])
    for batches in ([[0, 1, 2]], [[2], [1, 0]]):
        localiser = Localiser(boxes)
        for batch in batches:
            localiser(torch.tensor(batch), maps[batch])
        means = localiser.means(3, torch.device("cpu"))
        np.testing.assert_allclose(means["pointing"], [100, 50, np.nan])
        np.testing.assert_allclose(means["box_energy"], [100, (25 + 100) / 2, np.nan])
        np.testing.assert_allclose(means["box_area"], [100, 75, np.nan])
