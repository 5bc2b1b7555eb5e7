"""What a run sets in its process, and puts back at its end."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from sadcl import storage

LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""Environment variable by which PyTorch asks the kernel for huge pages."""


@contextlib.contextmanager
def large_pages() -> Iterator[None]:
    """Let PyTorch allocate large CPU tensors on huge pages.

    The page faults of a batch of floats then cost a third. PyTorch reads the variable once in a
    process, at its first CPU tensor. A program that has made one before decides for itself, as does
    one that sets the variable. Processes that start inside the block inherit it.
    """
    if LARGE_PAGES in os.environ:
        yield
        return
    os.environ[LARGE_PAGES] = "1"
    try:
        yield
    finally:
        os.environ.pop(LARGE_PAGES, None)


PATH_VARIABLES = (
    *("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "XDG_CACHE_HOME", "TMPDIR", "RAY_AUTH_TOKEN_PATH"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR"),
)
"""Environment variables with a path that libraries read, each at a time of its own."""


def leave_start_folder() -> None:
    """Stop depending on the folder that this process was started in.

    Ray unpacks the package of a job anew, and other tools clean up, so that the folder may vanish.
    The process then stands in ``/``, which nobody replaces. A relative path that is given to
    :func:`sadcl.storage.local` still means one below the start folder, and so do relative entries
    of ``sys.path`` and of :data:`PATH_VARIABLES`. :func:`away_from_start_folder` undoes this.
    """
    if storage.start_folder is not None:
        return
    try:
        folder = Path.cwd()
    except OSError:  # it has vanished already; the shell wrote down where it was
        folder = Path(os.environ.get("PWD", "/"))
    storage.start_folder = folder
    sys.path[:] = [e if os.path.isabs(e) else str(folder / e) for e in sys.path]
    os.environ.update(_absolute_variables(folder))
    os.chdir("/")


def _absolute_variables(folder: Path) -> dict[str, str]:
    values = {name: os.environ[name] for name in PATH_VARIABLES if os.environ.get(name)}
    return {
        name: str(folder / value)
        for name, value in values.items()
        if not value.startswith(("/", "~"))
    }


@contextlib.contextmanager
def away_from_start_folder() -> Iterator[None]:
    """Do as :func:`leave_start_folder` while the block runs, and undo it afterwards."""
    if storage.start_folder is not None:
        yield
        return
    relative = {i: entry for i, entry in enumerate(sys.path) if not os.path.isabs(entry)}
    variables = {name: os.environ.get(name) for name in PATH_VARIABLES}
    leave_start_folder()
    folder = Path(storage.start_folder or "/")
    try:
        yield
    finally:
        storage.start_folder = None
        for i, entry in relative.items():
            if sys.path[i : i + 1] == [str(folder / entry)]:
                sys.path[i] = entry
        for name, value in variables.items():
            if value is not None and os.environ.get(name) == str(folder / value):
                os.environ[name] = value
        with contextlib.suppress(OSError):  # the folder has vanished
            os.chdir(folder)


@contextlib.contextmanager
def back_in_start_folder() -> Iterator[None]:
    """Return to the start folder, if it was left and still exists, while the block runs."""
    if storage.start_folder is None:
        yield
        return
    with contextlib.suppress(OSError):
        os.chdir(storage.start_folder)
    try:
        yield
    finally:
        os.chdir("/")
