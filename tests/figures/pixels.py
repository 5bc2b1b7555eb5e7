"""Reading figures back."""

import io

import numpy as np
from PIL import Image


def pixels(data):
    """Return the pixels of an image file, which must show something."""
    image = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float)
    assert image.std() > 10
    return image
