"""What happens to an image between its file and the network.

Images are uint8 tensors (3, height, width) until the very end: sizes and colours are changed in whole bytes, and the
normalisation to float is done for a batch at once, on its device.
"""

from __future__ import annotations

import io
import re
import socket
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from sadcl.data import remote
from sadcl.data.augment import resize
from sadcl.errors import UserError

try:
    from torchvision.io import ImageReadMode, decode_image
except ImportError:  # deprecated there since 0.29; half as fast again as Pillow while it lasts
    decode_image = None

_RAW = b"P6\n%d %d\n255\n"
_RAW_HEADER = re.compile(rb"P6\n(\d{1,5}) (\d{1,5})\n255\n")
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet, which the published backbones were trained with; channels red, green, blue in 0 to 1."""


def read_image(path: str | Path, side: int) -> Tensor:
    """Decode a file and resize it to a square, whatever its proportions; uint8 (3, side, side). Raises as read_photo."""
    return resize(read_photo(path), side)


def read_photo(path: str | Path) -> Tensor:
    """Decode a file, local or s3:// or gs://, and turn it upright; uint8 (3, height, width).

    Raises:
        UserError: for a file that is missing, is not an image, or is damaged or cut short.
    """
    try:
        data = remote.read(path)
    except OSError as error:
        here = f"on the machine {socket.gethostname()!r}"  # of many, it may be the only one without the file
        raise UserError(
            f"The image {str(path)!r} cannot be read: {error.strerror or error} ({here})."
        ) from None
    return decode(data, str(path))


def decode(data: bytes, name: str) -> Tensor:
    """Red, green and blue of an encoded image, turned upright by its EXIF orientation; uint8 (3, height, width).

    Raises:
        UserError: naming ``name``, for bytes that are not a whole image.
    """
    if not data:
        raise UserError(
            f"The image {name!r} is empty (0 bytes): it was not copied whole; fetch it again."
        )
    if data.startswith(_RAW[:3]):
        found = _RAW_HEADER.match(data)
        height, width = (int(found[2]), int(found[1])) if found else (0, 0)
        if found and len(data) == found.end() + 3 * height * width:
            pixels = torch.frombuffer(bytearray(memoryview(data)[found.end() :]), dtype=torch.uint8)
            return pixels.view(height, width, 3).permute(2, 0, 1)
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
            if upright.mode.startswith(
                "I"
            ):  # 16 bits, which Pillow would clip: the upper byte is the picture
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            upright = upright.convert("RGB")
    except Exception as error:  # Pillow's readers raise many kinds for damaged files
        reason = (
            "no known image format"
            if isinstance(error, Image.UnidentifiedImageError)
            else str(error)
        )
        raise UserError(
            f"The image {name!r} ({len(data):,} bytes) cannot be decoded: {reason}. It is damaged, cut short or not an "
            "image; fetch it again or leave it out."
        ) from None
    return torch.from_numpy(np.array(upright)).permute(2, 0, 1).contiguous()


def raw(image: Tensor) -> bytes:
    """uint8 (3, height, width) as a file without compression (portable pixmap), which needs no decoding."""
    _, height, width = image.shape
    return _RAW % (width, height) + image.permute(1, 2, 0).contiguous().numpy().tobytes()


def raw_length(side: int) -> int:
    """Bytes of that file for a square."""
    return len(_RAW % (side, side)) + 3 * side * side


def to_input(images: Tensor) -> Tensor:
    """uint8 (..., 3, height, width) to normalised float32; rows of memory on a CPU, channels last on a GPU."""
    mean = torch.tensor(MEAN, device=images.device).mul_(255).view(3, 1, 1)
    std = torch.tensor(STD, device=images.device).mul_(255).view(3, 1, 1)
    if images.device.type == "cpu":
        images = images.contiguous()
    return images.float().sub_(mean).div_(std)
