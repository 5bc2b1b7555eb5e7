"""Manifests: what a reader derived once, kept in an Arrow file that later runs map into memory.

A second opening reads no annotations, and all processes of a machine that open the same manifest
share its pages.

Axes: N images, L labels.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from sadcl import storage
from sadcl.data.base import ImageSet, digest_of

VERSION = "2"
"""Raise it with every change to what a reader derives; older manifests are then not opened."""
DAYS = 30
"""A manifest that nobody has opened for so many days is removed when another one is written."""
_CHECKSUM_BYTES = 4
"""Length of the checksum that follows the Arrow file."""


def cache_folder() -> Path:
    """Return the user's cache folder; a container's user without a home has one in /tmp."""
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # the user has no home
        return Path(tempfile.gettempdir()) / f"sadcl-{os.getuid()}"
    return storage.local(home) / "sadcl"


def open_or_derive(
    key: str, derive: Callable[[], Sequence[ImageSet]], key_now: Callable[[], str] | None = None
) -> list[ImageSet]:
    """Open the sets of a key from the cache, or derive and keep them.

    A manifest that is missing or damaged is derived again. If the cache cannot be written, the sets
    stay in memory.

    Args:
        key: hexadecimal digits; they must depend on everything that the sets depend on.
        derive: reads the sets, which all have the same labels.
        key_now: computes the key again. If it changed while the sets were read, they are not kept.
    """
    path = cache_folder() / "manifests" / f"{key}.arrow"
    try:
        sets = _open(path)
        with contextlib.suppress(OSError):  # the file may belong to another user
            os.utime(path)
        return sets
    except (OSError, ValueError):  # Arrow's errors are of these kinds
        pass
    sets = list(derive())
    if key_now is not None and key_now() != key:
        return sets
    try:
        _write(path, sets)
        _prune(path.parent)
        return _open(path)
    except OSError:
        return sets


def _prune(folder: Path) -> None:
    """Remove old manifests; a process that has mapped one keeps its pages."""
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):  # another process was faster
            if entry.stat().st_mtime < time.time() - DAYS * 86_400:
                os.unlink(entry.path)


def key_of(root: Path, sources: Iterable[Path], *words: str) -> str:
    """Return the key of what a reader is about to read.

    It depends on the words and on the inode, size and times of each source. The inode's time of
    change counts as well as the file's, because copying a file preserves the latter.
    """
    states = []
    for path in sources:
        try:
            state = path.stat()
            times = f"{state.st_mtime_ns} {state.st_ctime_ns}"
            states.append(
                f"{path.relative_to(root).as_posix()} {state.st_ino} {state.st_size} {times}"
            )
        except OSError:
            states.append(f"{path.relative_to(root).as_posix()} is not there")
    return digest_of(VERSION, str(root), *words, "", *states)


def _write(path: Path, sets: Sequence[ImageSet]) -> None:
    descriptions = [
        {"name": s.name, "folder": s.folder, "listed": s.list_name, "digest": s.digest}
        for s in sets
    ]
    labels = sets[0].labels
    schema = pa.schema(
        [("file", pa.string()), ("targets", pa.binary(len(labels)))],
        {"sadcl": json.dumps({"labels": labels, "sets": descriptions})},
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for images in sets:
            rows = pa.py_buffer(np.ascontiguousarray(images.targets))
            targets = pa.FixedSizeBinaryArray.from_buffers(
                schema.field("targets").type, len(images), [None, rows]
            )
            writer.write_batch(pa.record_batch([images.files, targets], schema=schema))
    content = sink.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.write(zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "little"))
        os.replace(part, path)
    except OSError:
        os.unlink(part)
        raise


def _open(path: Path, *, verify: bool = True) -> list[ImageSet]:
    """Map a manifest; OSError or ValueError if it is missing or damaged."""
    with path.open("rb") as file:
        # A private mapping is shared until somebody writes to it. A read-only one would do, but
        # torch warns of arrays that it may not write to.
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    whole = pa.py_buffer(pages)
    content = whole.slice(0, max(len(pages) - _CHECKSUM_BYTES, 0))
    if verify and zlib.crc32(content) != int.from_bytes(pages[-_CHECKSUM_BYTES:], "little"):
        raise ValueError(f"{path} is damaged")
    reader = pa.ipc.open_file(content)
    description = json.loads(reader.schema.metadata[b"sadcl"])
    labels = tuple(description["labels"])
    sets = []
    for i, one in enumerate(description["sets"]):
        batch = reader.get_batch(i)
        shape = (batch.num_rows, len(labels))
        start = batch["targets"].buffers()[1].address - whole.address if batch.num_rows else 0
        targets = np.frombuffer(pages, np.int8, shape[0] * shape[1], start).reshape(shape)
        images = ImageSet(
            name=one["name"],
            folder=one["folder"],
            files=batch["file"],
            targets=targets,
            labels=labels,
            list_name=one["listed"],
            reopen=partial(_open_set, path, i),
            manifest_file=str(path),
        )
        images.__dict__["digest"] = one["digest"]  # where the cached property keeps its value
        sets.append(images)
    return sets


def _open_set(path: Path, index: int) -> ImageSet:
    return _open(path, verify=False)[index]
