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
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from sadcl import storage
from sadcl.data.base import ImageSet, digest_of
from sadcl.data.readers import sources

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


def open_or_read(
    root: Path, read: Callable[[], Sequence[ImageSet]], *words: str
) -> tuple[list[ImageSet], list[Path]]:
    """Open the sets that a reader reads while nothing that it looked at has changed, or read them.

    Which paths it looked at is kept in the cache; their states make the key of the manifest.

    Args:
        root: the folder of the data set.
        read: reads the sets through :mod:`sadcl.data.readers.sources`.
        words: whatever else the sets depend on.

    Returns:
        The sets, and the paths that they were read from.
    """
    paths_file = cache_folder() / "opened" / f"{digest_of(VERSION, str(root), *words)}.json"
    try:
        paths = [root / name for name in json.loads(paths_file.read_bytes())]
        sets = _open(_path(_key_of(root, {path: sources.state_of(path) for path in paths}, words)))
        _touch(paths_file)
        return sets, paths
    except (OSError, ValueError, TypeError):  # Arrow's errors are of the first two kinds
        pass
    with sources.recording() as states:
        sets = list(read())
    paths = list(states)
    if states != {path: sources.state_of(path) for path in paths}:
        return sets, paths  # something changed while it was read
    try:
        names = [_below(root, path) for path in paths]
        _write_file(paths_file, json.dumps(names).encode())
        _prune(paths_file.parent)
    except OSError:
        return sets, paths
    return open_or_derive(_key_of(root, states, words), lambda: sets), paths


def open_or_derive(key: str, derive: Callable[[], Sequence[ImageSet]]) -> list[ImageSet]:
    """Open the sets of a key from the cache, or derive and keep them.

    A manifest that is missing or damaged is derived again. If the cache cannot be written, the sets
    stay in memory.

    Args:
        key: hexadecimal digits; they must depend on everything that the sets depend on.
        derive: returns the sets, which all have the same labels.
    """
    path = _path(key)
    try:
        return _open(path)
    except (OSError, ValueError):  # Arrow's errors are of these kinds
        pass
    sets = list(derive())
    try:
        _write(path, sets)
        _prune(path.parent)
        return _open(path)
    except OSError:
        return sets


def _prune(folder: Path) -> None:
    """Remove old files; a process that has mapped one keeps its pages."""
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):  # another process was faster
            if entry.stat().st_mtime < time.time() - DAYS * 86_400:
                os.unlink(entry.path)


def _path(key: str) -> Path:
    return cache_folder() / "manifests" / f"{key}.arrow"


def _key_of(root: Path, states: Mapping[Path, str], words: Iterable[str]) -> str:
    """Return the key of what was read from paths in these states."""
    lines = [f"{_below(root, path)} {state}" for path, state in states.items()]
    return digest_of(VERSION, str(root), *words, "", *lines)


def _below(root: Path, path: Path) -> str:
    """Return a path relative to the root; one outside, which a list may name, as it is."""
    return path.as_posix().removeprefix(f"{root.as_posix()}/")


def _touch(path: Path) -> None:
    """Note that a file was used today."""
    with contextlib.suppress(OSError):  # the file may belong to another user
        os.utime(path)


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
    _write_file(path, content, zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "little"))


def _write_file(path: Path, *parts: bytes | pa.Buffer) -> None:
    """Write a file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
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
    if verify:
        _touch(path)
    return sets


def _open_set(path: Path, index: int) -> ImageSet:
    return _open(path, verify=False)[index]
