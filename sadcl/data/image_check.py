"""A quick check of all image files before anything trains."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sadcl.data.base import ImageSet, Progress
from sadcl.data.transforms import decode
from sadcl.errors import UserError

THREADS = 16
"""Number of files that are opened at the same time: a network disk answers each of them late."""


def check_files(sets: Sequence[ImageSet], progress: Progress | None = None) -> None:
    """Find files that are missing, empty, cut short or no images.

    A JPEG file that begins and ends as one is taken to be whole, without decoding it; any other
    file is decoded. Damage in the middle of a file is found by ``sadcl data check``.

    Args:
        sets: the images.
        progress: called with the number of checked files and of all files.

    Raises:
        UserError: with the number of damaged files, and the first of them with its cause.
    """
    paths = [images.path(i) for images in sets for i in range(len(images))]
    errors = []
    with ThreadPoolExecutor(THREADS) as pool:
        for done, error in enumerate(pool.map(_check, paths), start=1):
            if error is not None:
                errors.append(error)
            if progress is not None and (done % 64 == 0 or done == len(paths)):
                progress(done, len(paths))
    if errors:
        raise UserError(
            f"{len(errors):,} of {len(paths):,} image files cannot be used. The first: {errors[0]}"
        )


def _check(path: str) -> str | None:
    """Return what is wrong with a file, or None."""
    try:
        with open(path, "rb") as file:
            start = file.read(2)
            if start == b"\xff\xd8" and file.seek(0, 2) > 64:
                file.seek(-2, 2)
                if file.read(2) == b"\xff\xd9":
                    return None
        decode(Path(path).read_bytes(), path)
    except OSError as error:
        return f"The image {path!r} cannot be read: {error.strerror or error}."
    except UserError as error:
        return str(error)
    return None
