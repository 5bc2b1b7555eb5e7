"""Labels and paths derived once, kept in an Arrow file, and mapped: a second opening reads no annotations.

All processes of a machine that open the same manifest share its pages. Axes: N images, L labels.
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
"""Raise it with every change to what a reader derives: older manifests are then not opened."""
DAYS = 30
"""What nobody has opened for so long is removed when something new is kept."""
_CHECK = 4  # bytes of the checksum that follows the Arrow file


def cache() -> Path:
    """The user's cache folder."""
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # a container's user without a home
        return Path(tempfile.gettempdir()) / f"sadcl-{os.getuid()}"
    return storage.local(home) / "sadcl"


def cached(
    key: str, derive: Callable[[], Sequence[ImageSet]], key_now: Callable[[], str] | None = None
) -> list[ImageSet]:
    """The sets that ``derive`` gives, from the cache where they are there under this key.

    A file that is missing or damaged is derived anew; where the cache cannot be written, the sets stay in memory.

    Args:
        key: hexadecimal digits; whatever the sets depend on has to be in them.
        derive: reads the sets, all with the same labels.
        key_now: the key anew; where it has become another while the sets were read, they are not kept.
    """
    path = cache() / "manifests" / f"{key}.arrow"
    try:
        sets = _open(path)
        with contextlib.suppress(OSError):  # another user's
            os.utime(path)
        return sets
    except (OSError, ValueError):  # of which Arrow's errors are
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
    """Whoever has mapped a file that is removed here keeps its pages."""
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):  # another process was faster
            if entry.stat().st_mtime < time.time() - DAYS * 86_400:
                os.unlink(entry.path)


def key_of(root: Path, sources: Iterable[Path], *words: str) -> str:
    """Of what a reader is about to read: which file each source is, its size and when it was changed, and the words.

    The time of the inode counts too, because copies keep the other one.
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
    about = [
        {"name": s.name, "folder": s.folder, "listed": s.listed, "digest": s.digest} for s in sets
    ]
    labels = sets[0].labels
    schema = pa.schema(
        [("file", pa.string()), ("targets", pa.binary(len(labels)))],
        {"sadcl": json.dumps({"labels": labels, "sets": about})},
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
            file.write(zlib.crc32(content).to_bytes(_CHECK, "little"))
        os.replace(part, path)
    except OSError:
        os.unlink(part)
        raise


def _open(path: Path, *, verify: bool = True) -> list[ImageSet]:
    with path.open("rb") as file:
        # a private mapping: shared until somebody writes to it, and torch warns of arrays that it may not write to
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    whole = pa.py_buffer(pages)
    content = whole.slice(0, max(len(pages) - _CHECK, 0))
    if verify and zlib.crc32(content) != int.from_bytes(pages[-_CHECK:], "little"):
        raise ValueError(f"{path} is damaged")
    reader = pa.ipc.open_file(content)
    about = json.loads(reader.schema.metadata[b"sadcl"])
    sets = []
    for i, one in enumerate(about["sets"]):
        batch, digest = reader.get_batch(i), one.pop("digest")
        shape = (batch.num_rows, len(about["labels"]))
        start = batch["targets"].buffers()[1].address - whole.address if batch.num_rows else 0
        targets = np.frombuffer(pages, np.int8, shape[0] * shape[1], start).reshape(shape)
        again = partial(_again, path, i)
        labels = tuple(about["labels"])
        images = ImageSet(
            files=batch["file"],
            targets=targets,
            labels=labels,
            again=again,
            kept_in=str(path),
            **one,
        )
        images.__dict__["digest"] = digest  # where a cached property keeps it
        sets.append(images)
    return sets


def _again(path: Path, index: int) -> ImageSet:
    return _open(path, verify=False)[index]
