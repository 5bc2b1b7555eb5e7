"""What a reader looks at on disk, recorded, so that a manifest's key is made of exactly that.

Readers open files, list folders and ask whether something exists through the functions of this
module alone. A reader that opens a file in another way is not told that it changed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import IO

_states: ContextVar[dict[Path, str] | None] = ContextVar("what a reader looked at", default=None)


@contextlib.contextmanager
def recording() -> Iterator[dict[Path, str]]:
    """Record what is looked at while the block runs.

    Yields:
        The state (:func:`state_of`) of each path just before it was first looked at, in that order.
    """
    states: dict[Path, str] = {}
    token = _states.set(states)
    try:
        yield states
    finally:
        _states.reset(token)


def state_of(path: Path) -> str:
    """Return what changes with a file or folder: inode, size and times; or that it is not there.

    The inode's time of change counts as well as the file's, because copying a file preserves the
    latter.
    """
    try:
        state = path.stat()
    except OSError:
        return "is not there"
    return f"{state.st_ino} {state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}"


def read_bytes(path: Path) -> bytes:
    """Return the content of a file; OSError if it cannot be read."""
    _record(path)
    return path.read_bytes()


def open_text(path: Path) -> IO[str]:
    """Open a file of UTF-8 text; OSError if it cannot be read."""
    _record(path)
    return path.open(encoding="utf-8")


def local(path: Path) -> Path:
    """Return the path of a file that a library is about to open by its name."""
    _record(path)
    return path


def is_file(path: Path) -> bool:
    """Return whether there is such a file."""
    _record(path)
    return path.is_file()


def is_dir(path: Path) -> bool:
    """Return whether there is such a folder."""
    _record(path)
    return path.is_dir()


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder that are UTF-8; none if it does not exist."""
    _record(folder)
    return list(filter(is_utf8, os.listdir(folder))) if folder.is_dir() else []


def is_utf8(name: str) -> bool:
    """Return False for names on disk that are not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _record(path: Path) -> None:
    states = _states.get()
    if states is not None and path not in states:
        states[path] = state_of(path)
