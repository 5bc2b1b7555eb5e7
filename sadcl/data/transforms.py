"""What happens to an image between its file and the network.

Images are uint8 tensors (3, height, width) until the very end: sizes and colours are changed in whole bytes, and the
normalisation to float is done for a batch at once, on its device.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from sadcl.config import Augmentation
from sadcl.errors import UserError

try:
    from torchvision.io import ImageReadMode, decode_image
except ImportError:  # deprecated there since 0.29; half as fast again as Pillow while it lasts
    decode_image = None

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet, which the published backbones were trained with; channels red, green, blue in 0 to 1."""


def read_image(path: str | Path, side: int) -> Tensor:
    """Decode a file and resize it to a square, whatever its proportions; uint8 (3, side, side).

    Raises:
        UserError: for a file that is missing, is not an image, or is damaged or cut short.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"The image {str(path)!r} cannot be read: {error.strerror or error}.") from None
    return resize(decode(data, str(path)), side)


def decode(data: bytes, name: str) -> Tensor:
    """Red, green and blue of an encoded image, turned upright by its EXIF orientation; uint8 (3, height, width).

    Raises:
        UserError: naming ``name``, for bytes that are not a whole image.
    """
    if not data:
        raise UserError(f"The image {name!r} is empty (0 bytes): it was not copied whole; fetch it again.")
    if decode_image is not None:
        try:
            encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            image = decode_image(encoded, mode=ImageReadMode.RGB, apply_exif_orientation=True)
            if image.ndim == 3 and image.dtype == torch.uint8:
                return image
        except RuntimeError:
            pass  # a format that torchvision does not know, or damage: Pillow tells which
    try:
        with Image.open(io.BytesIO(data)) as opened:
            upright = ImageOps.exif_transpose(opened)
            if upright.mode.startswith("I"):  # 16 bits, which Pillow would clip: the upper byte is the picture
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            upright = upright.convert("RGB")
    except Exception as error:  # Pillow's readers raise many kinds for damaged files
        reason = "no known image format" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise UserError(
            f"The image {name!r} ({len(data):,} bytes) cannot be decoded: {reason}. It is damaged, cut short or not an "
            "image; fetch it again or leave it out."
        ) from None
    return torch.from_numpy(np.array(upright)).permute(2, 0, 1).contiguous()


def resize(image: Tensor, side: int) -> Tensor:
    if image.shape[-2:] == (side, side):
        return image
    return F.resize(image, [side, side], interpolation=v2.InterpolationMode.BILINEAR, antialias=True)


def augment(image: Tensor, spec: Augmentation, size: int, rng: np.random.Generator) -> Tensor:
    """Crop, flip, cut a hole, RandAugment, in this order; the given image stays as it is.

    Args:
        image: uint8 square, already of ``spec.resize``.
        spec: what to do.
        size: side of the result in pixels.
        rng: the only source of chance.
    """
    if spec.multiscale:
        whole = image.shape[-1]
        side = max(round(whole * spec.multiscale[rng.integers(len(spec.multiscale))]), 1)
        top, left = rng.integers(0, whole - side + 1, 2).tolist()
        image = image[:, top : top + side, left : left + side]
    image = resize(image, size)
    if spec.flip and rng.random() < 0.5:
        image = image.flip(-1)
    if spec.cutout:
        image = cutout(image, round(spec.cutout * size), rng)
    if spec.randaugment:
        # torchvision draws from torch's global generator: lend it this image's numbers, and put it back
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(int(rng.integers(2**62)))
        image = _randaugment(spec.randaugment, spec.randaugment_magnitude)(image)
        torch.set_rng_state(state)
    return image


def cutout(image: Tensor, side: int, rng: np.random.Generator) -> Tensor:
    """A square hole of one random colour, its centre anywhere in the image, cut off at the border.

    Source: DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017 (there the
    hole is zero after normalisation; the method's released code fills it with a random colour, and so do we).
    """
    height, width = image.shape[-2:]
    top, left = int(rng.integers(height)) - side // 2, int(rng.integers(width)) - side // 2
    image = image.clone()
    colour = torch.from_numpy(rng.integers(0, 256, (3, 1, 1), dtype=np.uint8))
    image[:, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = colour
    return image


@lru_cache
def _randaugment(operations: int, magnitude: int) -> v2.RandAugment:
    return v2.RandAugment(num_ops=operations, magnitude=magnitude)


def to_input(images: Tensor) -> Tensor:
    """uint8 (..., 3, height, width) to normalised float32."""
    mean = torch.tensor(MEAN, device=images.device).mul_(255).view(3, 1, 1)
    std = torch.tensor(STD, device=images.device).mul_(255).view(3, 1, 1)
    return images.float().sub_(mean).div_(std)
