"""Inspect one image file: hash its bytes, read its header, and decode all of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sadcl.data import remote
from sadcl.data.audit.jpeg_scans import missing_scans
from sadcl.data.image_check import THREADS
from sadcl.data.transforms import decode, open_image, orientation_of
from sadcl.errors import UserError

_JPEG = ("JPEG", "MPO")
_WITHOUT_CHECKSUM = ("WEBP", "AVIF")
"""Formats whose decoders make a picture of zero bytes as well; those of others complain."""
HOLE_BYTES = 512
"""Length of a run of zero bytes that the coded pixels of a photograph never have; decoders make
grey of it without an error."""
PROGRESSIVE_HOLE_BYTES = 4096
"""The same of a progressive JPEG file, whose later scans have long runs for a plain background."""
_BATCH = 128
"""Number of files during which the decoder's complaints are collected together."""
_COMPLAINTS = ("Corrupt JPEG data", "Premature end of JPEG", "Inconsistent progression")
FLAT = 0.2
"""Share of the rows above which one colour at the lower end of a picture is remarked on."""

DARK, EVEN = 32, 8
"""Largest value, and difference of two values, below which a picture is remarked on."""


class ImageFile(NamedTuple):
    """What was found in one file."""

    digest: bytes
    """Of its bytes; empty if there are none, or they cannot be read."""
    remarks: tuple[tuple[str, str], ...]
    """Kind (a key of :data:`sadcl.data.audit.findings.KINDS`) and detail."""


def inspect_files(
    paths: Sequence[str], max_pixels: Sequence[int | None] | None = None
) -> Iterator[ImageFile]:
    """Inspect files in their order; several are read at the same time, and each once.

    Args:
        paths: of the files.
        max_pixels: limit for each (:func:`sadcl.data.transforms.decode`); None is the same for all.
    """
    limits = max_pixels or [None] * len(paths)
    pool = ThreadPoolExecutor(THREADS)
    try:
        for start in range(0, len(paths), _BATCH):
            batch = slice(start, start + _BATCH)
            with _complaints() as complaints:
                found = list(pool.map(inspect_file, paths[batch], limits[batch]))
            if complaints:  # of one of these files: each is inspected again on its own
                found = list(map(_inspect_alone, paths[batch], limits[batch]))
            yield from found
    finally:  # after Ctrl-C the remaining files are not read
        pool.shutdown(cancel_futures=True)


def _inspect_alone(path: str, max_pixels: int | None) -> ImageFile:
    with _complaints() as complaints:
        found = inspect_file(path, max_pixels)
    if not complaints:
        return found
    others = (remark for remark in found.remarks if remark[0] != "damaged")
    return found._replace(remarks=(*others, ("damaged", complaints[0])))


@contextlib.contextmanager
def _complaints() -> Iterator[list[str]]:
    """Collect what the decoder of JPEG complains of while it makes a picture all the same.

    It writes that to the process's standard error alone, without the name of the file.

    Yields:
        A list that has the complaints of all threads when the block has ended.
    """
    complaints: list[str] = []
    try:
        stderr = os.dup(2)
    except OSError:  # it is closed
        yield complaints
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield complaints
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        file.seek(0)
        for line in file.read().decode(errors="replace").splitlines():
            if line.startswith(_COMPLAINTS):
                complaints.append(line)
            else:  # somebody else's
                print(line, file=sys.stderr)


def inspect_file(path: str, max_pixels: int | None = None) -> ImageFile:
    """Inspect one file."""
    try:
        data = remote.read_bytes(path)
    except OSError as error:
        return ImageFile(b"", (("unreadable", str(error.strerror or error)),))
    if not data:
        return ImageFile(b"", (("empty", "0 bytes"),))
    digest = hashlib.blake2b(data, digest_size=16).digest()
    remarks: list[tuple[str, str]] = []
    is_bottom_up = False
    try:
        with open_image(data, path, max_pixels) as image:
            remarks += _header(image, data, Path(path).suffix.lower())
            is_bottom_up = image.format == "BMP"
            if image.format in _JPEG:
                least = PROGRESSIVE_HOLE_BYTES if "progressive" in image.info else HOLE_BYTES
                remarks += _hole(data, _first_scan(data), least)
            elif image.format in _WITHOUT_CHECKSUM:
                remarks += _hole(_without_metadata(image, data))
            elif image.mode[:1] in "IF":
                remarks += _range(np.asarray(image), image.mode)
    except UserError as error:
        return ImageFile(digest, (("large", str(error)),))
    except Exception:  # Pillow's readers raise many kinds for damaged files
        pass
    try:  # the decoder of the training decides, and its error is the detail
        pixels = decode(data, path, max_pixels).permute(1, 2, 0).numpy()
        remarks += missing_scans(data)
        remarks += _flat(pixels[::-1] if is_bottom_up else pixels, is_bottom_up)
        if not {"flat", "range"} & dict(remarks).keys():
            remarks += _contrast(pixels)
    except UserError as error:
        remarks.append(("corrupt", str(error)))
    return ImageFile(digest, tuple(remarks))


def _header(image: Image.Image, data: bytes, suffix: str) -> Iterator[tuple[str, str]]:
    """Yield remarks about colours, format and orientation."""
    if image.mode[:1] in "1LIF" and image.mode != "LAB":
        yield "grayscale", f"mode {image.mode}"
    elif image.mode == "CMYK":
        yield "CMYK", "printing colours; they are converted to red, green and blue"
    named = Image.registered_extensions().get(suffix)
    if named is not None and named != image.format and not {named, image.format} <= set(_JPEG):
        yield "misnamed", f"{image.format} by its content"
    if (orientation := orientation_of(image, data)) > 1:
        yield "rotated", f"EXIF orientation {orientation}"
    if image.format not in _JPEG and (number := getattr(image, "n_frames", 1)) > 1:
        yield "frames", f"the first of {number:,}"
    if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        yield "transparent", "the colours behind it are read"


def _first_scan(data: bytes) -> int:
    """Return where the first scan of a JPEG file begins; other segments may have zero bytes."""
    at = 2
    while data[at] == 0xFF and data[at + 1] != 0xDA:
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return at


def _without_metadata(image: Image.Image, data: bytes) -> bytes:
    """Return a file without what may rightly have runs of zero bytes."""
    for key in ("exif", "xmp", "icc_profile"):
        if isinstance(content := image.info.get(key), bytes) and content:
            data = data.replace(content, b"\1" * len(content))
    return data


def _hole(data: bytes, start: int = 0, least: int = HOLE_BYTES) -> Iterator[tuple[str, str]]:
    """Yield a remark about zero bytes between the first scan of a JPEG file and its end.

    What follows the end may have such runs. Of other formats, ``start`` is 0, all is looked at.
    """
    end = data.find(b"\xff\xd9", start) if start else len(data)
    if (hole := data.find(bytes(least), start, end)) >= 0:
        yield "hole", f"from byte {hole:,} of {len(data):,}"


def _flat(pixels: NDArray[np.uint8], is_bottom_up: bool = False) -> Iterator[tuple[str, str]]:
    """Yield a remark about one colour in all rows at the lower end of a picture.

    Decoders fill so what a file lacks. The same colour at the upper end is a frame, not a lack.

    Args:
        pixels: (height, width, 3).
        is_bottom_up: the rows are in the order of a file that begins with the lowest.
    """
    every_eighth = pixels[:, :: 8 if pixels.shape[1] >= 64 else 1]
    is_flat_H = (every_eighth == pixels[-1, -1]).all(axis=(1, 2))
    below = int(np.argmin(is_flat_H[::-1])) if not is_flat_H.all() else len(pixels)
    above = int(np.argmin(is_flat_H)) if below < len(pixels) else 0
    if below == len(pixels):
        yield "flat", "the whole picture"
    elif below > 2 * above and below / len(pixels) > FLAT:
        yield "flat", f"the {'upper' if is_bottom_up else 'lower'} {below / len(pixels):.0%}"


def _contrast(pixels: NDArray[np.uint8]) -> Iterator[tuple[str, str]]:
    """Yield a remark about a picture that is nearly black, or nearly of one colour.

    Of 16 bits a channel, 12 or 10 may be used; a picture may have been divided by 255 twice.
    """
    low, high = int(pixels.min()), int(pixels.max())
    if high < DARK:
        yield "range", f"no value above {high} of 255: nearly black as it is read"
    elif high - low < EVEN:
        yield "range", f"all values from {low} to {high} of 255: nearly one colour"


def _range(values: NDArray[Any], mode: str) -> Iterator[tuple[str, str]]:
    """Yield a remark about numbers that the 256 steps of a channel do not show well.

    Training takes the upper byte of 16 bits, and floating-point numbers as they are, 0 to 255.
    """
    white = 255.0 if mode == "F" else 65_535.0
    if nan := int(np.isnan(values).sum()):
        yield "range", f"{nan:,} values are NaN, read as black"
        return
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= white):
        yield "range", f"values from {low:,g} to {high:,g}; 0 to {white:,g} are read"
    elif high < white / 8:
        yield "range", f"no value above {high:,g} of {white:,g}: nearly black as it is read"
