"""Data roots that are no folder of this machine: s3://, gs:// and what else pyarrow opens.

Readers look at folders and read annotations as files, so a root is mirrored in the user's cache: annotations whole, images
as empty files of their names. Images are then read from where they are, one by one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from pyarrow import fs

from sadcl import storage
from sadcl.data.base import ImageSet, Progress, digest_of
from sadcl.errors import UserError

ANNOTATIONS = (".csv", ".json", ".jsonl", ".parquet", ".txt", ".xml")
"""Ends of the names of files that are mirrored whole."""
THREADS = 16
"""Of requests side by side, because each is answered late."""


def elsewhere(path: str | os.PathLike[str]) -> bool:
    return "://" in os.fspath(path)


def read(uri: str | os.PathLike[str]) -> bytes:
    """The bytes of a file, here or elsewhere; OSError where it cannot be read."""
    if not elsewhere(uri):
        return Path(uri).read_bytes()
    system, path = _opened(os.fspath(uri))
    with system.open_input_file(path) as stream:
        data: bytes = stream.read()
    return data


def _opened(uri: str) -> tuple[fs.FileSystem, str]:
    """File system and path; names are taken as they are, with blanks and signs that a URI would have to escape."""
    scheme, _, rest = uri.partition("://")
    bucket, _, path = rest.partition("/")
    system, base = _bucket(f"{scheme}://{bucket}")
    return system, f"{base.rstrip('/')}/{path}"


@lru_cache(maxsize=64)
def _bucket(uri: str) -> tuple[fs.FileSystem, str]:
    """Opened once a process: a new file system is a new connection."""
    return storage.resolve(f"{uri}/")


def moved(images: ImageSet, mirror: Path, root: str | Path) -> ImageSet:
    """The same images read from the root and not from its mirror, where it has one."""
    if not elsewhere(root):
        return images
    other = replace(
        images, folder=str(root).rstrip("/") + images.folder.removeprefix(str(mirror)), again=None
    )
    other.__dict__["digest"] = images.digest  # it does not depend on the place, and takes a while
    return other


_MIRRORED: dict[tuple[str, Path], Path] = {}


def mirrored(root: str, cache: Path, progress: Progress | None = None) -> Path:
    """The folder that stands for a root, brought up to date once in each process.

    Args:
        root: a URI without an ending slash.
        cache: of the user.
        progress: called with annotation files fetched and to be fetched.

    Raises:
        UserError: for a root that cannot be listed or is empty, or an annotation that cannot be fetched.
    """
    if (root, cache) in _MIRRORED:
        return _MIRRORED[root, cache]
    if "?" in root:
        raise UserError(
            f"The data root {root!r} has options after '?'. Give them as environment variables, such as AWS_ENDPOINT_URL, "
            "AWS_REGION and AWS_PROFILE, on every machine."
        )
    system, path = _opened(root)
    try:
        infos = system.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    except OSError as error:
        raise UserError(
            f"The data root {root!r} cannot be listed: {str(error).splitlines()[0]} Check the name of the bucket, the "
            "network and the credentials of this machine."
        ) from None
    there = {
        info.path[len(path) :].lstrip("/"): info for info in infos if info.type == fs.FileType.File
    }
    if not there:
        raise UserError(
            f"The data root {root!r} holds nothing, or there is no such bucket: is there a mistake in the name?"
        )
    mirror = cache / "mirrors" / digest_of(root)
    with storage.exclusive(mirror.with_suffix(".lock"), wait=True):
        _update(mirror, root, there, progress)
    _MIRRORED[root, cache] = mirror
    return mirror


@contextlib.contextmanager
def told(root: str | Path, mirror: Path) -> Iterator[None]:
    """Errors of readers name a root that is elsewhere, not its mirror."""
    try:
        yield
    except UserError as error:
        if not elsewhere(root):
            raise
        raise UserError(str(error).replace(str(mirror), str(root).rstrip("/"))) from None


def _update(
    mirror: Path, root: str, there: dict[str, fs.FileInfo], progress: Progress | None
) -> None:
    here = (
        {str(p.relative_to(mirror)) for p in mirror.rglob("*") if p.is_file()}
        if mirror.is_dir()
        else set()
    )
    for name in here - there.keys():
        (mirror / name).unlink()
    for folder in {(mirror / name).parent for name in there}:
        folder.mkdir(parents=True, exist_ok=True)
    wanted = []
    for name, info in there.items():
        if name.lower().endswith(ANNOTATIONS):
            state = (mirror / name).stat() if name in here else None
            if state is None or (state.st_size, state.st_mtime_ns) != (
                info.size,
                info.mtime_ns or 0,
            ):
                wanted.append(name)
        elif name not in here:
            (mirror / name).touch()

    def fetch(name: str) -> None:
        try:
            storage.write(mirror / name, read(f"{root}/{name}"))
        except OSError as error:
            raise UserError(
                f"{f'{root}/{name}'!r} cannot be read: {str(error).splitlines()[0]}"
            ) from None
        time = there[name].mtime_ns or 0
        os.utime(mirror / name, ns=(time, time))

    with ThreadPoolExecutor(THREADS) as pool:
        for done, _ in enumerate(pool.map(fetch, wanted), start=1):
            if progress is not None:
                progress(done, len(wanted))
