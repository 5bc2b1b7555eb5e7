"""Bytes under one root, local or s3:// or gs://; what appears there appears whole."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from pyarrow import fs

from sadcl.errors import DISK_FULL, UserError

PATIENCE = 60.0
"""Seconds for which a run tries again what its storage refuses: a shared disk or an object store may be away for a while."""
_FINAL = {
    *DISK_FULL,
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
}

T = TypeVar("T")


def patiently(action: Callable[[], T]) -> T:
    """Do it, and where the storage fails do it again, at growing distances, for :data:`PATIENCE` seconds.

    Raises:
        OSError: what it failed with at last; at once where waiting does not help, as on a full disk.
    """
    until, wait = time.monotonic() + PATIENCE, 0.5
    while True:
        try:
            return action()
        except OSError as error:
            if error.errno in _FINAL or time.monotonic() + wait > until:
                raise
        time.sleep(wait)
        wait = min(2 * wait, 8.0)


def settled(root: str) -> None:
    """Wait until a root is there that somebody has locked something in: its disk may not be mounted here at present.

    Raises:
        OSError: where it does not come within :data:`PATIENCE` seconds.
    """

    if isinstance(resolve(root)[0], fs.LocalFileSystem):
        _appears(
            join(root, "studies"),
            f"{root!r} is not there, or empty: is its disk mounted on this node?",
        )


def appears(uri: str) -> None:
    """Wait for a file that another node has seen: a network disk may show it late.

    Raises:
        OSError: where it does not come within :data:`PATIENCE` seconds.
    """
    _appears(
        uri,
        f"{uri!r} is not there, but another worker has seen it: do all nodes share the storage?",
    )


def _appears(uri: str, otherwise: str) -> None:
    def look() -> None:
        if not exists(uri):
            raise OSError(otherwise)

    patiently(look)


def resolve(root: str | os.PathLike[str]) -> tuple[fs.FileSystem, str]:
    """File system and path of a root; a plain path is a local one.

    Raises:
        UserError: for a scheme that pyarrow does not know or a file system that cannot be opened.
    """
    text = os.fspath(root)
    if not text.strip():
        raise UserError(
            "The storage is an empty text: give a folder, s3://... or gs://... (is a shell variable unset?)"
        )
    if re.match(r"[^/]+://[^/]*@", text):
        raise UserError(
            "The storage has a key or a password in it, which tables would show: give it in the environment instead."
        )
    try:
        if "://" in text:
            return fs.FileSystem.from_uri(text)
        return fs.LocalFileSystem(), str(local(text))
    except (OSError, ValueError) as error:
        raise UserError(
            f"The storage {text!r} cannot be opened: {error}. Use a folder, s3://... or gs://..."
        ) from None


_started_in: Path | None = None
"""The folder that this process was started in, once it has left it."""


def leave_start_folder() -> None:
    """Stop depending on the folder that this process was started in: Ray unpacks a job's package anew, others clean up.

    The process then stands in ``/``, which nobody replaces. A relative path that is given to :func:`local` still means one
    below the folder of the start, and so does an empty entry of ``sys.path``.
    """
    global _started_in
    if _started_in is None:
        try:
            _started_in = Path.cwd()
        except (
            OSError
        ):  # it is gone already; the shell that started this process wrote down where it was
            _started_in = Path(os.environ.get("PWD", "/"))
        sys.path[:] = [entry or str(_started_in) for entry in sys.path]
        os.chdir("/")


@contextlib.contextmanager
def away_from_start_folder() -> Iterator[None]:
    """As :func:`leave_start_folder`, for as long as the block runs."""
    global _started_in
    if _started_in is not None:
        yield
        return
    empty = [i for i, entry in enumerate(sys.path) if not entry]
    leave_start_folder()
    here = str(_started_in)
    try:
        yield
    finally:
        _started_in = None
        for i in empty:
            if sys.path[i : i + 1] == [here]:
                sys.path[i] = ""
        with contextlib.suppress(OSError):  # it is gone
            os.chdir(here)


@contextlib.contextmanager
def back_in_start_folder() -> Iterator[None]:
    """Back in the folder that was left, where it is still there, for as long as the block runs."""
    if _started_in is None:
        yield
        return
    with contextlib.suppress(OSError):
        os.chdir(_started_in)
    try:
        yield
    finally:
        os.chdir("/")


def local(path: str | os.PathLike[str]) -> Path:
    """The absolute path, links as they are: on another machine they may lead elsewhere.

    Raises:
        UserError: for the home folder of a user who has none.
    """
    try:
        return (_started_in or Path()).joinpath(Path(path).expanduser()).absolute()
    except RuntimeError:
        raise UserError(
            f"{os.fspath(path)!r} is in a home folder that this machine does not know."
        ) from None


def join(root: str | os.PathLike[str], *parts: str) -> str:
    return "/".join([os.fspath(root).rstrip("/"), *parts])


def make(uri: str | os.PathLike[str]) -> None:
    """A folder, with those above it; nothing happens where it is there, or in an object store."""
    system, path = resolve(uri)
    if isinstance(system, fs.LocalFileSystem):
        Path(path).mkdir(parents=True, exist_ok=True)


def write(uri: str | os.PathLike[str], data: bytes | memoryview, *, anew: bool = True) -> None:
    """Write a file whole or not at all: a reader, or a crash, never sees half of it.

    Args:
        anew: make its folder where there is none; otherwise that is an error, which tells a disk that is no longer mounted
            from a new place.
    """
    system, path = resolve(uri)
    if not isinstance(system, fs.LocalFileSystem):
        with system.open_output_stream(
            path
        ) as stream:  # an object appears when its upload is closed
            stream.write(data)
        return
    target = Path(path)
    if anew:
        target.parent.mkdir(parents=True, exist_ok=True)
    elif not target.parent.is_dir():
        raise OSError(f"{str(target.parent)!r} is gone: is its disk still mounted?")
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a full disk does not say whose
            error.filename = str(target)
        raise
    finally:
        with contextlib.suppress(OSError):  # the first error counts
            part.unlink(missing_ok=True)


def sweep(folder: str | os.PathLike[str], name: str = "") -> None:
    """Remove what writers that were killed have left of files directly below a folder, where nobody writes them now.

    Args:
        name: of the one file; empty is all of them.
    """
    system, path = resolve(folder)
    if isinstance(system, fs.LocalFileSystem):  # elsewhere half an object is none
        for part in Path(path).glob(".*.part"):
            if part.name.startswith(f".{name}." if name else "."):
                part.unlink(missing_ok=True)


def absolute(uri: str) -> str:
    """The same place from any working directory; a URI is that already."""
    return uri if "://" in uri else str(local(uri))


def check_new(uri: str) -> None:
    """Find out before hours of work whether its result can be written; of object stores nothing is asked.

    Raises:
        UserError: where it cannot.
    """
    system, path = resolve(uri)
    if not isinstance(system, fs.LocalFileSystem):
        return
    folder = next(parent for parent in Path(path).parents if parent.exists())
    if Path(path).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        what = "is a folder" if Path(path).is_dir() else f"cannot be written in {str(folder)!r}"
        raise UserError(f"The file to be written, {uri!r}, {what}: give another place.")


def read(uri: str | os.PathLike[str]) -> bytes:
    """The bytes of a file; FileNotFoundError where there is none."""
    system, path = resolve(uri)
    with system.open_input_file(path) as stream:
        data: bytes = stream.read()
    return data


def exists(uri: str | os.PathLike[str]) -> bool:
    system, path = resolve(uri)
    return bool(system.get_file_info(path).type != fs.FileType.NotFound)


def listing(uri: str | os.PathLike[str], suffix: str = "") -> list[str]:
    """Names of the files directly below a folder, sorted; none where it is missing. Half-written ones are hidden."""
    system, path = resolve(uri)
    infos = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
    names = [i.base_name for i in infos if i.type == fs.FileType.File]
    return sorted(n for n in names if n.endswith(suffix) and not n.startswith("."))


def names(uri: str | os.PathLike[str], suffix: str = "") -> set[str]:
    """The same as :func:`listing` as a set, of a local folder without a look at each file."""
    system, path = resolve(uri)
    if not isinstance(system, fs.LocalFileSystem):
        return set(listing(uri, suffix))
    try:
        return {
            name for name in os.listdir(path) if name.endswith(suffix) and not name.startswith(".")
        }
    except FileNotFoundError:
        return set()


def marks(uri: str | os.PathLike[str], suffix: str = "") -> dict[str, tuple[int, int]]:
    """Of each file that :func:`listing` names, bytes and nanoseconds of its last change."""
    system, path = resolve(uri)
    infos = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
    names = ((i.base_name, i) for i in infos if i.type == fs.FileType.File)
    return {
        name: (i.size, i.mtime_ns)
        for name, i in names
        if name.endswith(suffix) and not name.startswith(".")
    }


def mark(uri: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Bytes and nanoseconds of a file's last change, which tell it from what was there before; None where there is none."""
    system, path = resolve(uri)
    info = system.get_file_info(path)
    return (info.size, info.mtime_ns) if info.type == fs.FileType.File else None


def sizes(uri: str | os.PathLike[str]) -> dict[str, int]:
    """Bytes of each file below a folder, by its path there; none where it is missing."""
    system, path = resolve(uri)
    infos = system.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    return {
        i.path.removeprefix(path).lstrip("/"): i.size for i in infos if i.type == fs.FileType.File
    }


@contextlib.contextmanager
def exclusive(uri: str | os.PathLike[str], *, wait: bool) -> Iterator[bool]:
    """Hold the lock of that name while the block runs; object stores have no locks, and everybody holds them.

    Args:
        wait: wait for whoever holds it, or go on at once.

    Returns:
        Whether it is held.
    """
    system, path = resolve(uri)
    if not isinstance(system, fs.LocalFileSystem):
        yield True
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def delete(uri: str | os.PathLike[str]) -> None:
    """Remove a file or a folder with all in it, also while others write there; nothing happens where there is none."""
    system, path = resolve(uri)
    kind = system.get_file_info(path).type
    if kind == fs.FileType.Directory:
        for again in (True, True, True, True, False):
            try:
                system.delete_dir(path)
            except OSError:
                if not again:
                    raise
                time.sleep(0.2)
            if system.get_file_info(path).type == fs.FileType.NotFound:
                break
    elif kind == fs.FileType.File:
        with contextlib.suppress(FileNotFoundError):  # somebody else was first
            system.delete_file(path)


def free_bytes(uri: str | os.PathLike[str]) -> int | None:
    """Bytes that are free on the disk of a place that need not be there yet; None for an object store."""
    system, path = resolve(uri)
    if not isinstance(system, fs.LocalFileSystem):
        return None
    return shutil.disk_usage(
        next(folder for folder in (Path(path), *Path(path).parents) if folder.exists())
    ).free
