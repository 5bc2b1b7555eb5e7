"""A quick check of all image files before anything trains."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from sadcl.data.base import ImageSet, Progress
from sadcl.data.image_header import read_header
from sadcl.data.transforms import check_size, decode, pixel_limit
from sadcl.errors import UserError

THREADS = 16
"""Number of files that are opened at the same time: a network disk answers each of them late."""
_PIXELS_PER_BYTE = 170
"""More pixels of a JPEG file than a byte can code: 12 bits for a unit of 256 pixels of one
colour."""
_HEAD_BYTES = 1 << 18
"""Enough for the header of nearly every file."""


def check_files(sets: Sequence[ImageSet], progress: Progress | None = None) -> None:
    """Find files that are missing, empty, cut short, too large or no images.

    A JPEG file that begins and ends as one is taken to be whole, without decoding it, and only the
    header of a long one is read, for its number of pixels; any other file is decoded. Damage in the
    middle of a file is found by ``sadcl data check``.

    Args:
        sets: the images.
        progress: called with the number of checked files and of all files.

    Raises:
        UserError: with the number of damaged files, and the first of them with its cause.
    """
    paths = [images.path(i) for images in sets for i in range(len(images))]
    limits = [images.max_pixels for images in sets for _ in range(len(images))]
    errors = []
    with ThreadPoolExecutor(THREADS) as pool:
        for done, error in enumerate(pool.map(_check, paths, limits), start=1):
            if error is not None:
                errors.append(error)
            if progress is not None and (done % 64 == 0 or done == len(paths)):
                progress(done, len(paths))
    if errors:
        raise UserError(
            f"{len(errors):,} of {len(paths):,} image files cannot be used. The first: {errors[0]}"
        )


def _check(path: str, max_pixels: int | None) -> str | None:
    """Return what is wrong with a file, or None."""
    limit = pixel_limit(max_pixels)
    try:
        with open(path, "rb") as file:
            begins = file.read(2) == b"\xff\xd8"
            size = file.seek(0, 2)
            file.seek(-min(size, 2), 2)
            looks_whole = begins and size > 64 and file.read(2) == b"\xff\xd9"
            if looks_whole and (limit is None or size * _PIXELS_PER_BYTE <= limit):
                return None
            file.seek(0)
            data = file.read(_HEAD_BYTES if looks_whole else -1)
            if looks_whole and read_header(data) is None:
                data += file.read()
        if looks_whole:
            check_size(data, path, max_pixels)
        else:
            decode(data, path, max_pixels)
    except OSError as error:
        return f"The image {path!r} cannot be read: {error.strerror or error}."
    except UserError as error:
        return str(error)
    return None
