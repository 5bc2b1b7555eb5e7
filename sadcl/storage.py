"""Files below one root, local or s3:// or gs://; each file appears whole or not at all.

Every function takes a URI or a path. A path without a scheme is a local one, relative to the folder
that the process was started in.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TypeVar

from pyarrow import fs

from sadcl.errors import DISK_FULL, UserError

PATIENCE = 60.0
"""Seconds for which a failed access is tried again: a shared disk may be away for a while."""
_FINAL = {
    *DISK_FULL,
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EEXIST),
    *(errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG),
}
"""Error numbers of failures that waiting does not cure."""

T = TypeVar("T")


def retry(action: Callable[[], T]) -> T:
    """Call ``action``, and repeat it at growing intervals for :data:`PATIENCE` seconds if it fails.

    Raises:
        OSError: the last failure; at once if waiting does not help, as with a full disk.
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


def wait_for_root(root: str) -> None:
    """Wait until the root of a study is visible; its disk may not be mounted on this machine yet.

    A root that holds a study has a folder ``studies``. Object stores are not waited for.

    Raises:
        OSError: if it does not appear within :data:`PATIENCE` seconds.
    """
    if isinstance(resolve(root)[0], fs.LocalFileSystem):
        message = f"{root!r} does not exist or is empty: is its disk mounted on this node?"
        _wait_for(join(root, "studies"), message)


def wait_for_file(uri: str) -> None:
    """Wait for a file that another node has seen, which a network disk may show late.

    Raises:
        OSError: if it does not appear within :data:`PATIENCE` seconds.
    """
    message = f"{uri!r} does not exist, but another worker has seen it: do nodes share the storage?"
    _wait_for(uri, message)


def _wait_for(uri: str, message: str) -> None:
    def check() -> None:
        if not exists(uri):
            raise OSError(message)

    retry(check)


def resolve(root: str | os.PathLike[str]) -> tuple[fs.FileSystem, str]:
    """Return the file system of a URI or local path, and the path within it.

    Raises:
        UserError: for an empty text, a URI with a password in it, a scheme that pyarrow does not
            know, or a file system that cannot be opened.
    """
    text = os.fspath(root)
    if not text.strip():
        raise UserError(
            "The storage is an empty text: give a folder, s3://... or gs://... "
            "(is a shell variable unset?)"
        )
    if re.match(r"[^/]+://[^/]*@", text):
        raise UserError(
            "The storage has a key or a password in it, which tables would show: "
            "give it in the environment instead."
        )
    try:
        if "://" in text:
            return fs.FileSystem.from_uri(text)
        return fs.LocalFileSystem(), str(local(text))
    except (OSError, ValueError) as error:
        raise UserError(
            f"The storage {text!r} cannot be opened: {error}. Use a folder, s3://... or gs://..."
        ) from None


start_folder: Path | None = None
"""What relative paths are below, once :mod:`sadcl.study.process` has left the working folder."""


def local(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path without following links, which may lead elsewhere on other machines.

    Raises:
        UserError: for the home folder of a user who has none.
    """
    try:
        return (start_folder or Path()).joinpath(Path(path).expanduser()).absolute()
    except RuntimeError:
        raise UserError(
            f"{os.fspath(path)!r} is in a home folder that this machine does not know."
        ) from None


def join(root: str | os.PathLike[str], *parts: str) -> str:
    """Return the URI of a file or folder below a root."""
    return "/".join([os.fspath(root).rstrip("/"), *parts])


def make(uri: str | os.PathLike[str]) -> None:
    """Make a folder and those above it; do nothing if it exists, or in an object store."""
    system, path = resolve(uri)
    if isinstance(system, fs.LocalFileSystem):
        Path(path).mkdir(parents=True, exist_ok=True)


def write(
    uri: str | os.PathLike[str], data: bytes | memoryview, *, make_folder: bool = True
) -> None:
    """Write a file whole or not at all: neither a reader nor a crash leaves half of it visible.

    Args:
        uri: the file; one that exists is replaced.
        data: its content.
        make_folder: make the folder if there is none. With False a missing folder is an error; this
            distinguishes a disk that is no longer mounted from a new place.

    Raises:
        OSError: if the file cannot be written, or the folder is missing and is not to be made.
    """
    with new_file(uri, make_folder=make_folder) as file:
        file.write(data)


@contextlib.contextmanager
def new_file(uri: str | os.PathLike[str], *, make_folder: bool = True) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name when the block ends, and not if the block raises.

    An object store gets the content at the end of the block; until then it is in memory.

    Args:
        uri: the file; one that exists is replaced.
        make_folder: as for :func:`write`.

    Yields:
        The file, open for writing.

    Raises:
        OSError: if the file cannot be written, or the folder is missing and is not to be made.
    """
    system, path = resolve(uri)
    if not isinstance(system, fs.LocalFileSystem):
        buffer = io.BytesIO()
        yield buffer
        # an object appears when its upload is closed
        with system.open_output_stream(path) as stream:
            stream.write(buffer.getbuffer())
        return
    target = Path(path)
    if make_folder:
        target.parent.mkdir(parents=True, exist_ok=True)
    elif not target.parent.is_dir():
        raise OSError(f"{str(target.parent)!r} has vanished: is its disk still mounted?")
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except OSError as error:
        # the error of a full disk does not name the file
        if error.errno is not None and error.filename is None:
            error.filename = str(target)
        raise
    finally:
        with contextlib.suppress(OSError):  # the first error counts
            part.unlink(missing_ok=True)


def sweep(folder: str | os.PathLike[str], name: str = "") -> None:
    """Remove the partial files that killed writers left directly below a folder.

    Nobody may be writing there at the same time.

    Args:
        folder: where to look; in an object store there are no partial files.
        name: of the one file whose partial files are removed; empty means all files.
    """
    system, path = resolve(folder)
    if isinstance(system, fs.LocalFileSystem):
        for part in Path(path).glob(".*.part"):
            if part.name.startswith(f".{name}." if name else "."):
                part.unlink(missing_ok=True)


def absolute(uri: str) -> str:
    """Return a URI that means the same place from any working directory."""
    return uri if "://" in uri else str(local(uri))


def check_new(uri: str) -> None:
    """Check before hours of work that a result can be written; object stores are not asked.

    Raises:
        UserError: if it is a folder, or its folder cannot be written.
    """
    system, path = resolve(uri)
    if not isinstance(system, fs.LocalFileSystem):
        return
    folder = next(parent for parent in Path(path).parents if parent.exists())
    if Path(path).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        what = "is a folder" if Path(path).is_dir() else f"cannot be written in {str(folder)!r}"
        raise UserError(f"The file to be written, {uri!r}, {what}: give another place.")


def check_folder(uri: str | os.PathLike[str]) -> None:
    """Check that a folder of this name is there or can be made; object stores are not asked.

    Raises:
        UserError: if it, or a folder above it, is a file.
    """
    system, path = resolve(uri)
    if not isinstance(system, fs.LocalFileSystem):
        return
    nearest = next(place for place in (Path(path), *Path(path).parents) if place.exists())
    if not nearest.is_dir():
        raise UserError(
            f"The storage cannot be used: {str(nearest)!r} is a file, not a folder. Give another "
            "--storage."
        )


def read(uri: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a file.

    Raises:
        FileNotFoundError: if there is none.
    """
    system, path = resolve(uri)
    with system.open_input_file(path) as stream:
        data: bytes = stream.read()
    return data


def exists(uri: str | os.PathLike[str]) -> bool:
    """Return whether there is a file or folder of this name."""
    system, path = resolve(uri)
    return bool(system.get_file_info(path).type != fs.FileType.NotFound)


def listing(uri: str | os.PathLike[str], suffix: str = "") -> list[str]:
    """Return the sorted names of the files directly below a folder; none if it does not exist.

    Partial files, and others whose name begins with a dot, are left out.
    """
    return sorted(info.base_name for info in _visible_files(uri, suffix))


def names(uri: str | os.PathLike[str], suffix: str = "") -> set[str]:
    """Return the same names as :func:`listing`, without a look at each file of a local folder."""
    system, path = resolve(uri)
    if not isinstance(system, fs.LocalFileSystem):
        return set(listing(uri, suffix))
    try:
        return {name for name in os.listdir(path) if _is_visible(name, suffix)}
    except FileNotFoundError:
        return set()


def stamps(uri: str | os.PathLike[str], suffix: str = "") -> dict[str, tuple[int, int]]:
    """Return the :func:`stamp` of each file that :func:`listing` names."""
    return {info.base_name: (info.size, info.mtime_ns) for info in _visible_files(uri, suffix)}


def _visible_files(uri: str | os.PathLike[str], suffix: str) -> list[fs.FileInfo]:
    system, path = resolve(uri)
    infos = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return [i for i in infos if i.type == fs.FileType.File and _is_visible(i.base_name, suffix)]


def _is_visible(name: str, suffix: str) -> bool:
    return name.endswith(suffix) and not name.startswith(".")


def stamp(uri: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return size in bytes and time of change in ns, which identify a file's version, or None."""
    system, path = resolve(uri)
    info = system.get_file_info(path)
    return (info.size, info.mtime_ns) if info.type == fs.FileType.File else None


def sizes(uri: str | os.PathLike[str]) -> dict[str, int]:
    """Return the bytes of each file below a folder by its relative path; none if it is missing."""
    system, path = resolve(uri)
    infos = system.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    return {
        i.path.removeprefix(path).lstrip("/"): i.size for i in infos if i.type == fs.FileType.File
    }


@contextlib.contextmanager
def exclusive(uri: str | os.PathLike[str], *, wait: bool) -> Iterator[bool]:
    """Hold the lock of this name while the block runs.

    Object stores have no locks: there the lock is always granted.

    Args:
        uri: the file that is locked; it is made if there is none.
        wait: wait for another holder, or continue at once.

    Yields:
        Whether the lock is held.
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


def is_locked(uri: str | os.PathLike[str]) -> bool:
    """Return whether somebody holds the lock of this name; in an object store nobody does."""
    system, path = resolve(uri)
    if not isinstance(system, fs.LocalFileSystem) or not Path(path).is_file():
        return False
    with open(path) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def delete(uri: str | os.PathLike[str]) -> None:
    """Remove a file, or a folder with everything in it; do nothing if there is none.

    A folder is tried up to five times, because others may write to it at the same time.
    """
    system, path = resolve(uri)
    kind = system.get_file_info(path).type
    if kind == fs.FileType.Directory:
        for retry_allowed in (True, True, True, True, False):
            try:
                system.delete_dir(path)
            except OSError:
                if not retry_allowed:
                    raise
                time.sleep(0.2)
            if system.get_file_info(path).type == fs.FileType.NotFound:
                break
    elif kind == fs.FileType.File:
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            system.delete_file(path)


def free_bytes(uri: str | os.PathLike[str]) -> int | None:
    """Return the free bytes on the disk of a place, existing or not; None for object stores."""
    system, path = resolve(uri)
    if not isinstance(system, fs.LocalFileSystem):
        return None
    folder = next(folder for folder in (Path(path), *Path(path).parents) if folder.exists())
    return shutil.disk_usage(folder).free
