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
from PIL import Image
from torch import Tensor

from sadcl.data import remote
from sadcl.data.augment import resize
from sadcl.data.image_header import PNG, Header, essential_png, read_header
from sadcl.errors import UserError

try:
    from torchvision.io import ImageReadMode, decode_image
except ImportError:  # torchvision has deprecated it since 0.29; it is 1.5 times as fast as Pillow
    decode_image = None

_ORIENTATION = 0x0112  # of EXIF
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


def read_image(path: str | Path, side: int, max_pixels: int | None = None) -> Tensor:
    """Decode a file and resize it to a square, whatever its proportions; arguments and errors as
    for :func:`read_photo`.

    Returns:
        uint8 (3, side, side).
    """
    return resize(read_photo(path, max_pixels), side)


def read_photo(path: str | Path, max_pixels: int | None = None) -> Tensor:
    """Decode a file, local or s3:// or gs://, and turn it upright.

    Args:
        path: of the file.
        max_pixels: as for :func:`decode`.

    Returns:
        uint8 (3, height, width).

    Raises:
        UserError: for a file that is missing, is not an image, is damaged or cut short, or is too
            large.
    """
    try:
        data = remote.read_bytes(path)
    except OSError as error:
        # one of many machines may be the only one without the file
        machine = f"on the machine {socket.gethostname()!r}"
        raise UserError(
            f"The image {str(path)!r} cannot be read: {error.strerror or error} ({machine})."
        ) from None
    return decode(data, str(path), max_pixels)


def decode(data: bytes, name: str, max_pixels: int | None = None) -> Tensor:
    """Decode an image to red, green and blue, and turn it upright (:func:`orientation_of`).

    Args:
        data: the content of the file.
        name: of the file, for messages.
        max_pixels: an image with more is refused before memory for its pixels is taken; None is
            Pillow's limit (:func:`pixel_limit`).

    Returns:
        uint8 (3, height, width).

    Raises:
        UserError: for bytes that are not a whole image, or an image that is too large.
    """
    if not data:
        raise UserError(
            f"The image {name!r} is empty (0 bytes): it was not copied whole; fetch it again."
        )
    if (pixels := _decode_pixmap(data)) is not None:
        return pixels
    if (header := read_header(data)) is not None:
        _check_size(header, name, max_pixels)
        pixels = _decode_with_torchvision(data)
        if pixels is not None and header.orientation is not None:
            return turn_upright(pixels, header.orientation)
    try:
        with open_image(data, name, max_pixels) as image:
            if pixels is None:
                pixels = _decode_with_torchvision(data)
            if pixels is None:
                pixels = _to_tensor(image)  # Pillow turns some formats by itself, and says so then
            return turn_upright(pixels, orientation_of(image, data))
    except UserError:
        raise
    except Exception as error:  # Pillow's readers raise many kinds for damaged files
        # Pillow is stricter than others about what no pixel depends on
        if pixels is not None or (pixels := _decode_essential(data)) is not None:
            return pixels
        reason = (
            "no known image format"
            if isinstance(error, Image.UnidentifiedImageError)
            else str(error)
        )
        raise UserError(
            f"The image {name!r} ({len(data):,} bytes) cannot be decoded: {reason}. It is damaged, "
            "cut short or not an image; fetch it again or leave it out."
        ) from None


def pixel_limit(max_pixels: int | None) -> int | None:
    """Return the largest number of pixels that is read, or None if there is no limit.

    Pillow's own limit is twice ``Image.MAX_IMAGE_PIXELS``, 178,956,970 pixels, or none if the user
    has set that to None.
    """
    if max_pixels is None and Image.MAX_IMAGE_PIXELS is not None:
        return 2 * Image.MAX_IMAGE_PIXELS
    return max_pixels


def check_size(data: bytes, name: str, max_pixels: int | None) -> None:
    """Raise UserError if the header of a file says that it has more pixels than ``max_pixels``."""
    if (header := read_header(data)) is not None:
        _check_size(header, name, max_pixels)


def _check_size(header: Header, name: str, max_pixels: int | None) -> None:
    limit = pixel_limit(max_pixels)
    if limit is not None and header.width * header.height > limit:
        raise _too_large(name, f"{header.width:,} x {header.height:,} pixels exceed {limit:,}")


def open_image(data: bytes, name: str, max_pixels: int | None = None) -> Image.Image:
    """Open an image with Pillow, which reads its header and no pixel; the caller closes it.

    Raises:
        UserError: for more pixels than ``max_pixels`` (:func:`pixel_limit`).
        Exception: of many kinds, for bytes that are no image.
    """
    limit = pixel_limit(max_pixels)
    if max_pixels is not None and Image.MAX_IMAGE_PIXELS is not None:
        # Pillow warns of more than its limit and refuses twice as many; a user has raised it
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise _too_large(name, str(error)) from None
    if limit is not None and image.width * image.height > limit:
        image.close()
        raise _too_large(name, f"{image.width:,} x {image.height:,} pixels exceed {limit:,}")
    return image


def _too_large(name: str, reason: str) -> UserError:
    return UserError(
        f"The image {name!r} is too large ({reason}): its pixels could take all memory. Shrink it "
        "or leave it out, or raise data.max_pixels if the file is what you expect."
    )


_UPRIGHT = 1  # of EXIF's orientations, 1 to 8


def orientation_of(image: Image.Image, data: bytes) -> int:
    """Return the orientation of an image that Pillow has opened: 1 (upright) to 8, as EXIF has it.

    It is what EXIF says or, without that, XMP, in every format. EXIF that is damaged counts as
    none.

    Args:
        image: as :func:`open_image` returns it.
        data: the content of the file.
    """
    header = read_header(data)
    if header is not None and header.orientation is not None:
        return header.orientation  # for Pillow's, a PNG file is decoded first
    try:
        orientation = image.getexif().get(_ORIENTATION, _UPRIGHT)
    except Exception:  # the readers of EXIF raise many kinds
        return _UPRIGHT
    return orientation if orientation in range(2, 9) else _UPRIGHT


def turn_upright(image: Tensor, orientation: int) -> Tensor:
    """Turn an image (3, height, width) that is stored in one of EXIF's eight orientations."""
    if orientation >= 5:
        image = image.transpose(-1, -2)
    # which axes of the result run against those of the stored image
    axes = {2: (-1,), 3: (-2, -1), 4: (-2,), 6: (-1,), 7: (-2, -1), 8: (-2,)}.get(orientation)
    return image if axes is None else image.flip(axes)


def _decode_pixmap(data: bytes) -> Tensor | None:
    """Return the pixels of a portable pixmap as :func:`encode_pixmap` writes it, else None."""
    if data.startswith(_PIXMAP[:3]) and (header := _PIXMAP_HEADER.match(data)):
        height, width = int(header[2]), int(header[1])
        if len(data) == header.end() + 3 * height * width:
            content = bytearray(memoryview(data)[header.end() :])
            pixels = torch.frombuffer(content, dtype=torch.uint8)
            return pixels.view(height, width, 3).permute(2, 0, 1)
    return None


def _decode_essential(data: bytes) -> Tensor | None:
    """Return the pixels of a PNG file whose pixels are whole; None for others."""
    if not data.startswith(PNG):
        return None
    try:
        with Image.open(io.BytesIO(essential_png(data))) as image:
            return _to_tensor(image)
    except Exception:  # Pillow's readers raise many kinds
        return None


def _decode_with_torchvision(data: bytes) -> Tensor | None:
    """Return pixels as they are stored; None for what torchvision does not know, or damage."""
    if decode_image is None or data.startswith(PNG):
        return None  # a damaged PNG file ends the process there; Pillow's pixels are the same
    try:
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        image = decode_image(encoded, mode=ImageReadMode.RGB)
    except RuntimeError:
        return None  # Pillow knows which
    return image if image.ndim == 3 and image.dtype == torch.uint8 else None


def _to_tensor(image: Image.Image) -> Tensor:
    """Return the pixels of an image that Pillow has opened, as they are stored."""
    if image.mode.startswith("I"):  # Pillow would clip 16 bits; the picture is in the upper byte
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


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
