"""Pictures to augment."""

import numpy as np
import torch
from PIL import Image


def picture(width, height):
    """Return smooth colours with an orientation, and noise so that no two neighbours are equal."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(width).integers(0, 40, (height, width, 3))
    return Image.fromarray(
        (np.stack([x * 6, y * 8, (x + y) * 3], axis=-1) + noise).astype(np.uint8)
    )


def tensor(width, height):
    return torch.from_numpy(np.array(picture(width, height))).permute(2, 0, 1)


def operate(operation, images, *values):
    """Apply an operation of RandAugment with the magnitudes, and the places if it has them."""
    return operation.function(images, *operation.constants(images.shape[-1], *values))
