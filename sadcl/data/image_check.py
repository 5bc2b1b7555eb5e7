"""Looks at image files before anything trains."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sadcl.data.base import ImageSet, Progress
from sadcl.data.transforms import decode
from sadcl.errors import UserError

THREADS = 16
"""Files are opened side by side, because a network disk answers each of them late."""


def check_files(sets: Sequence[ImageSet], progress: Progress | None = None) -> None:
    """Find files that are missing, empty, cut short or no images, without decoding those that look whole.

    A JPEG that begins and ends as one is taken for whole; any other file is decoded. Damage in the middle of a file is
    for ``sadcl data check`` to find.

    Raises:
        UserError: naming how many files are damaged, and the first with its cause.
    """
    paths = [images.path(i) for images in sets for i in range(len(images))]
    damaged = []
    with ThreadPoolExecutor(THREADS) as pool:
        for done, error in enumerate(pool.map(_check, paths), start=1):
            if error is not None:
                damaged.append(error)
            if progress is not None and (done % 64 == 0 or done == len(paths)):
                progress(done, len(paths))
    if damaged:
        raise UserError(
            f"{len(damaged):,} of {len(paths):,} image files cannot be used. The first: {damaged[0]}"
        )


def _check(path: str) -> str | None:
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
