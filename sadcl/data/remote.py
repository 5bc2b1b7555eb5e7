"""Data roots on another machine: s3://, gs:// and the other schemes that pyarrow opens.

Readers look into folders and read annotations as local files. So a remote root gets a mirror in the
user's cache: annotations with their content, images as empty files of the same name. Images are
then read from the remote root, one by one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from pyarrow import fs

from sadcl import storage
from sadcl.data.bad_rows import BadRows
from sadcl.data.base import ImageSet, Progress, digest_of
from sadcl.errors import UserError

ANNOTATIONS = (".csv", ".json", ".jsonl", ".parquet", ".txt", ".xml")
"""Endings of the files that are mirrored with their content."""
THREADS = 16
"""Number of requests at the same time, because each is answered late."""


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a URI."""
    return "://" in os.fspath(path)


def read_bytes(uri: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a local or remote file.

    Raises:
        OSError: if it cannot be read.
    """
    if not is_remote(uri):
        return Path(uri).read_bytes()
    system, path = _resolve(os.fspath(uri))
    with system.open_input_file(path) as stream:
        data: bytes = stream.read()
    return data


def _resolve(uri: str) -> tuple[fs.FileSystem, str]:
    """Return file system and path of a URI.

    Names are taken literally, with blanks and characters that a proper URI would have to escape.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, path = rest.partition("/")
    system, base = _open_bucket(f"{scheme}://{bucket}")
    return system, f"{base.rstrip('/')}/{path}"


@lru_cache(maxsize=64)
def _open_bucket(uri: str) -> tuple[fs.FileSystem, str]:
    """Open a bucket once in each process: a new file system is a new connection."""
    return storage.resolve(f"{uri}/")


def with_root(images: ImageSet, mirror: Path, root: str | Path) -> ImageSet:
    """Return the same images with a remote root as their folder, instead of its mirror."""
    if not is_remote(root):
        return images
    folder = str(root).rstrip("/") + images.folder.removeprefix(str(mirror))
    remote_images = replace(images, folder=folder, reopen=None)
    # the digest does not depend on the folder, and takes a while to compute
    remote_images.__dict__["digest"] = images.digest
    return remote_images


_MIRRORS: dict[tuple[str, Path], Path] = {}
"""Mirrors that this process has brought up to date, by root and cache."""


def mirror_of(root: str, cache: Path, progress: Progress | None = None) -> Path:
    """Return the mirror of a remote root, brought up to date once in each process.

    Args:
        root: a URI without an ending slash.
        cache: the user's cache folder.
        progress: called with the number of fetched annotation files and of all to be fetched.

    Raises:
        UserError: for a root that cannot be listed or is empty, or an annotation file that cannot
            be fetched.
    """
    if (root, cache) in _MIRRORS:
        return _MIRRORS[root, cache]
    if "?" in root:
        raise UserError(
            f"The data root {root!r} has options after '?'. Give them as environment variables, "
            "such as AWS_ENDPOINT_URL, AWS_REGION and AWS_PROFILE, on every machine."
        )
    system, path = _resolve(root)
    try:
        infos = system.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    except OSError as error:
        raise UserError(
            f"The data root {root!r} cannot be listed: {str(error).splitlines()[0]} Check the name "
            "of the bucket, the network and the credentials of this machine."
        ) from None
    remote_files = {
        info.path[len(path) :].lstrip("/"): info for info in infos if info.type == fs.FileType.File
    }
    if not remote_files:
        raise UserError(
            f"The data root {root!r} holds nothing, or there is no such bucket: is there a mistake "
            "in the name?"
        )
    mirror = cache / "mirrors" / digest_of(root)
    with storage.exclusive(mirror.with_suffix(".lock"), wait=True):
        _fetch(mirror, root, remote_files, _update_names(mirror, remote_files), progress)
    _MIRRORS[root, cache] = mirror
    return mirror


@contextlib.contextmanager
def errors_name_root(root: str | Path, mirror: Path) -> Iterator[None]:
    """Let errors of readers in the block name a remote root instead of its mirror."""
    try:
        yield
    except UserError as error:
        if not is_remote(root):
            raise
        place, name = str(mirror), str(root).rstrip("/")
        if isinstance(error, BadRows):
            raise error.with_root(place, name) from None
        raise UserError(str(error).replace(place, name)) from None


def _update_names(mirror: Path, remote_files: Mapping[str, fs.FileInfo]) -> list[str]:
    """Remove and add files of a mirror; return the annotation files that have to be fetched."""
    local_files = (
        {str(p.relative_to(mirror)) for p in mirror.rglob("*") if p.is_file()}
        if mirror.is_dir()
        else set()
    )
    for name in local_files - remote_files.keys():
        (mirror / name).unlink()
    for folder in {(mirror / name).parent for name in remote_files}:
        folder.mkdir(parents=True, exist_ok=True)
    to_fetch = []
    for name, info in remote_files.items():
        if name.lower().endswith(ANNOTATIONS):
            state = (mirror / name).stat() if name in local_files else None
            remote_state = (info.size, info.mtime_ns or 0)
            if state is None or (state.st_size, state.st_mtime_ns) != remote_state:
                to_fetch.append(name)
        elif name not in local_files:
            (mirror / name).touch()
    return to_fetch


def _fetch(
    mirror: Path,
    root: str,
    remote_files: Mapping[str, fs.FileInfo],
    names: list[str],
    progress: Progress | None,
) -> None:
    """Fetch annotation files into a mirror, each with the time of its last change."""

    def fetch(name: str) -> None:
        try:
            storage.write(mirror / name, read_bytes(f"{root}/{name}"))
        except OSError as error:
            raise UserError(
                f"{f'{root}/{name}'!r} cannot be read: {str(error).splitlines()[0]}"
            ) from None
        time = remote_files[name].mtime_ns or 0
        os.utime(mirror / name, ns=(time, time))

    with ThreadPoolExecutor(THREADS) as pool:
        for done, _ in enumerate(pool.map(fetch, names), start=1):
            if progress is not None:
                progress(done, len(names))
