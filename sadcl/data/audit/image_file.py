"""Inspect one image file: hash its bytes, read its header, and decode all of it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from sadcl.data import remote
from sadcl.data.image_check import THREADS
from sadcl.data.transforms import decode
from sadcl.errors import UserError

_JPEG = ("JPEG", "MPO")
HOLE_BYTES = 512
"""Length of a run of zero bytes that the coded pixels of a photograph never have; decoders make
grey of it without an error."""
_ORIENTATION = 0x0112  # of EXIF; 1 is upright


class ImageFile(NamedTuple):
    """What was found in one file."""

    digest: bytes
    """Of its bytes; empty if there are none, or they cannot be read."""
    remarks: tuple[tuple[str, str], ...]
    """Kind (a key of :data:`sadcl.data.audit.findings.KINDS`) and detail."""


def inspect_files(paths: Sequence[str]) -> Iterator[ImageFile]:
    """Inspect files in their order; several are read at the same time, and each once."""
    pool = ThreadPoolExecutor(THREADS)
    try:
        yield from pool.map(inspect_file, paths)
    finally:  # after Ctrl-C the remaining files are not read
        pool.shutdown(cancel_futures=True)


def inspect_file(path: str) -> ImageFile:
    """Inspect one file."""
    try:
        data = remote.read_bytes(path)
    except OSError as error:
        return ImageFile(b"", (("unreadable", str(error.strerror or error)),))
    if not data:
        return ImageFile(b"", (("empty", "0 bytes"),))
    digest = hashlib.blake2b(data, digest_size=16).digest()
    remarks: list[tuple[str, str]] = []
    try:
        with Image.open(io.BytesIO(data)) as image:
            remarks += _header(image, Path(path).suffix.lower())
            is_whole = image.format in _JPEG
            if is_whole:
                # at an eighth of the size all bytes are decoded but few pixels computed, which
                # takes half of the time
                image.draft(None, (max(image.width // 8, 1), max(image.height // 8, 1)))
                image.load()
                remarks += _hole(data)
    except Exception:  # Pillow's readers raise many kinds for damaged files
        is_whole = False
    if not is_whole:  # the decoder of the training decides, and its error is the detail
        try:
            decode(data, path)
        except UserError as error:
            remarks.append(("corrupt", str(error)))
    return ImageFile(digest, tuple(remarks))


def _header(image: Image.Image, suffix: str) -> Iterator[tuple[str, str]]:
    """Yield remarks about colours, format and orientation."""
    if image.mode[:1] in "1LIF" and image.mode != "LAB":
        yield "grayscale", f"mode {image.mode}"
    elif image.mode == "CMYK":
        yield "CMYK", "printing colours; they are converted to red, green and blue"
    named = Image.registered_extensions().get(suffix)
    if named is not None and named != image.format and not {named, image.format} <= set(_JPEG):
        yield "misnamed", f"{image.format} by its content"
    orientation = image.getexif().get(_ORIENTATION, 1)
    if orientation in range(2, 9):
        yield "rotated", f"EXIF orientation {orientation}"


def _hole(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield a remark about zero bytes between the first scan of a JPEG file and its end.

    Other segments, and bytes after the end, may have such runs.
    """
    at = 2
    while data[at] == 0xFF and data[at + 1] != 0xDA:
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    if (start := data.find(bytes(HOLE_BYTES), at, data.find(b"\xff\xd9", at))) >= 0:
        yield "hole", f"from byte {start:,} of {len(data):,}"
