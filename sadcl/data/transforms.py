"""Decode, resize and normalise images.

Images are uint8 tensors (3, height, width) until the end: sizes and colours change in whole bytes,
and a batch is normalised to float at once, on its device.
"""

from __future__ import annotations

import io
import re
import socket
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from sadcl.data import remote
from sadcl.data.augment import resize
from sadcl.errors import UserError

try:
    from torchvision.io import ImageReadMode, decode_image
except ImportError:  # torchvision has deprecated it since 0.29; it is 1.5 times as fast as Pillow
    decode_image = None

_PIXMAP = b"P6\n%d %d\n255\n"
_PIXMAP_HEADER = re.compile(rb"P6\n(\d{1,5}) (\d{1,5})\n255\n")


class Normalisation(NamedTuple):
    """What is subtracted from an image and what it is divided by then.

    Both are for red, green and blue from 0 to 1. A network only works with the values that it was
    trained with.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet, with which the published backbones were trained."""


def read_image(path: str | Path, side: int) -> Tensor:
    """Decode a file and resize it to a square, whatever its proportions; raises as
    :func:`read_photo`.

    Returns:
        uint8 (3, side, side).
    """
    return resize(read_photo(path), side)


def read_photo(path: str | Path) -> Tensor:
    """Decode a file, local or s3:// or gs://, and turn it upright.

    Returns:
        uint8 (3, height, width).

    Raises:
        UserError: for a file that is missing, is not an image, or is damaged or cut short.
    """
    try:
        data = remote.read_bytes(path)
    except OSError as error:
        # one of many machines may be the only one without the file
        machine = f"on the machine {socket.gethostname()!r}"
        raise UserError(
            f"The image {str(path)!r} cannot be read: {error.strerror or error} ({machine})."
        ) from None
    return decode(data, str(path))


def decode(data: bytes, name: str) -> Tensor:
    """Decode an image to red, green and blue, and turn it upright by its EXIF orientation.

    Args:
        data: the content of the file.
        name: of the file, for messages.

    Returns:
        uint8 (3, height, width).

    Raises:
        UserError: for bytes that are not a whole image.
    """
    if not data:
        raise UserError(
            f"The image {name!r} is empty (0 bytes): it was not copied whole; fetch it again."
        )
    if (pixels := _decode_pixmap(data)) is not None:
        return pixels
    if decode_image is not None:
        try:
            encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            image = decode_image(encoded, mode=ImageReadMode.RGB, apply_exif_orientation=True)
            if image.ndim == 3 and image.dtype == torch.uint8:
                return image
        except RuntimeError:
            pass  # a format that torchvision does not know, or damage: Pillow knows which
    return _decode_with_pillow(data, name)


def _decode_pixmap(data: bytes) -> Tensor | None:
    """Return the pixels of a portable pixmap as :func:`encode_pixmap` writes it, else None."""
    if data.startswith(_PIXMAP[:3]) and (header := _PIXMAP_HEADER.match(data)):
        height, width = int(header[2]), int(header[1])
        if len(data) == header.end() + 3 * height * width:
            content = bytearray(memoryview(data)[header.end() :])
            pixels = torch.frombuffer(content, dtype=torch.uint8)
            return pixels.view(height, width, 3).permute(2, 0, 1)
    return None


def _decode_with_pillow(data: bytes, name: str) -> Tensor:
    try:
        with Image.open(io.BytesIO(data)) as opened:
            upright = ImageOps.exif_transpose(opened)
            # Pillow would clip 16 bits; the picture is in the upper byte
            if upright.mode.startswith("I"):
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            upright = upright.convert("RGB")
    except Exception as error:  # Pillow's readers raise many kinds for damaged files
        reason = (
            "no known image format"
            if isinstance(error, Image.UnidentifiedImageError)
            else str(error)
        )
        raise UserError(
            f"The image {name!r} ({len(data):,} bytes) cannot be decoded: {reason}. It is damaged, "
            "cut short or not an image; fetch it again or leave it out."
        ) from None
    return torch.from_numpy(np.array(upright)).permute(2, 0, 1).contiguous()


def encode_pixmap(image: Tensor) -> bytes:
    """Return the content of a file without compression (a portable pixmap), which needs no
    decoding.

    Args:
        image: uint8 (3, height, width).
    """
    _, height, width = image.shape
    return _PIXMAP % (width, height) + image.permute(1, 2, 0).contiguous().numpy().tobytes()


def pixmap_bytes(side: int) -> int:
    """Return the length in bytes of the portable pixmap of a square."""
    return len(_PIXMAP % (side, side)) + 3 * side * side


def to_input(images: Tensor, normalisation: Normalisation) -> Tensor:
    """Normalise uint8 images (..., 3, height, width) to float32.

    On a CPU the result is contiguous; on a GPU it keeps the memory format, which is channels last.
    """
    constants = torch.tensor(normalisation).mul_(255).view(2, 3, 1, 1)
    if images.device.type == "cuda":  # the host does not wait for a copy from pinned memory
        constants = constants.pin_memory()
    mean, std = constants.to(images.device, non_blocking=True)
    if images.device.type == "cpu":
        images = images.contiguous()
    return images.float().sub_(mean).div_(std)
