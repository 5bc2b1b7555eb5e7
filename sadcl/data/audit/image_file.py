"""One look at each image file: its bytes are hashed, its header is read, and all of it is decoded."""

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
"""Zero bytes on end that the coded pixels of a photograph never have; decoders make grey of them and say nothing."""
_ORIENTATION = 0x0112  # of EXIF; 1 is upright


class ImageFile(NamedTuple):
    """What one file is like."""

    digest: bytes
    """Of its bytes; none where it has none, or they cannot be read."""
    remarks: tuple[tuple[str, str], ...]
    """Kind (a key of ``audit.KINDS``) and detail."""


def inspect_files(paths: Sequence[str]) -> Iterator[ImageFile]:
    """A look at each file, in their order; files are read side by side, each once."""
    pool = ThreadPoolExecutor(THREADS)
    try:
        yield from pool.map(inspect_file, paths)
    finally:  # after Ctrl-C nobody waits for the files that are left
        pool.shutdown(cancel_futures=True)


def inspect_file(path: str) -> ImageFile:
    try:
        data = remote.read(path)
    except OSError as error:
        return ImageFile(b"", (("unreadable", str(error.strerror or error)),))
    if not data:
        return ImageFile(b"", (("empty", "0 bytes"),))
    digest = hashlib.blake2b(data, digest_size=16).digest()
    remarks: list[tuple[str, str]] = []
    try:
        with Image.open(io.BytesIO(data)) as image:
            remarks += _header(image, Path(path).suffix.lower())
            whole = image.format in _JPEG
            if whole:
                # an eighth of the size: all bytes are decoded, but few pixels are computed, in half of the time
                image.draft(None, (max(image.width // 8, 1), max(image.height // 8, 1)))
                image.load()
                remarks += _hole(data)
    except Exception:  # Pillow's readers raise many kinds for damaged files
        whole = False
    if not whole:  # what training reads with decides, and tells
        try:
            decode(data, path)
        except UserError as error:
            remarks.append(("corrupt", str(error)))
    return ImageFile(digest, tuple(remarks))


def _header(image: Image.Image, suffix: str) -> Iterator[tuple[str, str]]:
    if image.mode[:1] in "1LIF" and image.mode != "LAB":
        yield "grayscale", f"mode {image.mode}"
    elif image.mode == "CMYK":
        yield "CMYK", "printing colours; they are converted to red, green and blue"
    named = Image.registered_extensions().get(suffix)
    if named is not None and named != image.format and not {named, image.format} <= set(_JPEG):
        yield "misnamed", f"{image.format} by its content"
    turn = image.getexif().get(_ORIENTATION, 1)
    if turn in range(2, 9):
        yield "rotated", f"EXIF orientation {turn}"


def _hole(data: bytes) -> Iterator[tuple[str, str]]:
    """In a JPEG file, between its first scan and its end: other segments, and what follows, may have such bytes."""
    at = 2
    while data[at] == 0xFF and data[at + 1] != 0xDA:
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    if (found := data.find(bytes(HOLE_BYTES), at, data.find(b"\xff\xd9", at))) >= 0:
        yield "hole", f"from byte {found:,} of {len(data):,}"
