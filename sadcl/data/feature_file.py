"""A file of feature maps, which grows batch by batch and is mapped into memory when it is whole.

It is a safetensors file with one tensor (N, C, H, W) for each of the backbone's maps. Its space is
reserved when it is begun. A second file records how far it is: four bytes for each finished row,
the CRC-32 of its maps. So a kill loses the batch that was being written, and a file that was cut
short, or whose content has changed, is whole up to its first bad row. A third one, written last,
marks the file as whole as long as its size and time of change stay; its rows are not read again to
check them.

Axes: N rows, one for each image, C channels, H, W height and width of a map, B rows of a batch.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import shutil
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sadcl import storage
from sadcl.errors import DISK_FULL, UserError

DTYPES = {
    "fp16": (torch.float16, "F16"),
    "bf16": (torch.bfloat16, "BF16"),
    "fp32": (torch.float32, "F32"),
}
"""torch's type of each number format, and its name in a safetensors file."""
KEEP_FREE = 0.05
"""Share of a disk's free space that is left to others."""
_CRC = np.dtype("<u4")


@dataclass(frozen=True)
class Layout:
    """What a file holds."""

    rows: int
    """N."""
    shapes: tuple[tuple[int, int, int], ...]
    """(C, H, W) of each map."""
    dtype: str
    """A key of :data:`DTYPES`."""

    @property
    def row_bytes(self) -> tuple[int, ...]:
        """Bytes of one row of each map."""
        return tuple(math.prod(shape) * DTYPES[self.dtype][0].itemsize for shape in self.shapes)

    @property
    def total_bytes(self) -> int:
        """Bytes of the whole file."""
        return len(self.header) + self.rows * sum(self.row_bytes)

    @property
    def header(self) -> bytes:
        """The beginning of the file: the header's length and JSON, padded to 64 bytes."""
        tensors, start = {}, 0
        for i, (shape, size) in enumerate(zip(self.shapes, self.row_bytes, strict=True)):
            stop = start + self.rows * size
            tensors[f"map{i}"] = {
                "dtype": DTYPES[self.dtype][1],
                "shape": [self.rows, *shape],
                "data_offsets": [start, stop],
            }
            start = stop
        text = json.dumps(tensors).encode()
        text += b" " * (-(len(text) + 8) % 64)
        return len(text).to_bytes(8, "little") + text

    @property
    def starts(self) -> tuple[int, ...]:
        """Where each map begins in the file."""
        ends = np.cumsum([0, *(self.rows * size for size in self.row_bytes)])
        return tuple(int(len(self.header) + end) for end in ends[:-1])


class FeatureFile:
    """The file of one folder.

    Args:
        folder: of its own, which is made when the file is begun.
        layout: what the file holds.
        batch: rows that are written together; an interrupted file resumes at a multiple of it.
    """

    def __init__(self, folder: Path, layout: Layout, batch: int) -> None:
        self.folder, self.layout, self.batch = folder, layout, batch
        self.path, self.record = folder / "maps.safetensors", folder / "rows.crc32"
        self.mark = folder / "whole"

    @contextlib.contextmanager
    def claimed(self) -> Iterator[bool]:
        """Yield whether this process may write the file now; another one may be doing so."""
        with storage.exclusive(self.folder / ".lock", wait=False) as is_held:
            yield is_held

    def rows_recorded(self) -> int:
        """Return the number of finished rows by the record alone."""
        try:
            return min(self.record.stat().st_size // _CRC.itemsize, self.layout.rows)
        except OSError:
            return 0

    def is_whole(self) -> bool:
        """Return whether the file is marked as whole, and has not changed since.

        No row is read, so this is quick. :meth:`check` and :meth:`begin` mark a file without one.
        """
        if self.rows_recorded() < self.layout.rows or self._size() != self.layout.total_bytes:
            return False
        try:
            return self.mark.read_bytes() == self._state() and self._has_header()
        except OSError:
            return False

    def check(self) -> Iterator[int]:
        """Compare the rows with the record, batch by batch, which may take minutes.

        Yields:
            After each batch, how many rows from the first on are as they were written; nothing for
            a file that is not begun.
        """
        layout, size = self.layout, self._size()
        places = zip(layout.starts, layout.row_bytes, strict=True)
        count = min([self.rows_recorded(), *((size - start) // step for start, step in places)])
        if count <= 0 or not self._has_header():
            return
        recorded = np.frombuffer(self.record.read_bytes(), _CRC, count)
        # one map after the other may be cut short, so the file is read and not mapped
        rows = FeatureRows(self.path, layout, mapped=size == layout.total_bytes)
        for first in range(0, count, self.batch):
            index = np.arange(first, min(first + self.batch, count))
            for row, parts in zip(index, zip(*rows.read_bytes(index), strict=True), strict=True):
                if _crc(parts) != recorded[row]:
                    yield int(row)
                    return
            yield int(index[-1]) + 1

    def touch(self) -> None:
        """Note that the file is in use, so that it is not pruned."""
        with contextlib.suppress(OSError):  # it may belong to another user
            state = self.record.stat()
            os.utime(self.record, ns=(time.time_ns(), state.st_mtime_ns))

    def begin(self, good: int) -> int:
        """Reserve the space of the file, or take up one that was interrupted or is damaged.

        Args:
            good: rows that are as they were written, by :meth:`check`; 0 begins anew.

        Returns:
            The number of rows that are there already: all, or a multiple of the batch.

        Raises:
            UserError: for a disk without room, on which nothing is left.
        """
        if good < self.layout.rows:
            good = good // self.batch * self.batch
        with self._full_disk_leaves_nothing():
            self._check_room()
            self.mark.unlink(missing_ok=True)
            crcs = self.record.read_bytes()[: good * _CRC.itemsize] if good else b""
            storage.write(self.record, crcs)
            with open(self.path, "ab") as file:
                file.truncate(min(self._size(), self.layout.total_bytes))
                _reserve(file.fileno(), self.layout.total_bytes)
            with open(self.path, "r+b") as file:
                file.write(self.layout.header)
            if good == self.layout.rows:
                self._finish()
        return good

    def append(self, first: int, maps: Sequence[Tensor]) -> None:
        """Write the maps of a batch, and record its rows then. The last batch makes the file whole.

        Args:
            first: the first row.
            maps: (B, C, H, W) each, in the format of the file, on the CPU.

        Raises:
            UserError: for a full disk, on which nothing is left.
        """
        parts = [part.contiguous().view(torch.uint8).flatten(1).numpy() for part in maps]
        crcs = [_crc(row) for row in zip(*parts, strict=True)]
        with self._full_disk_leaves_nothing():
            with open(self.path, "r+b") as file:
                places = zip(parts, self.layout.starts, self.layout.row_bytes, strict=True)
                for part, start, size in places:
                    file.seek(start + first * size)
                    file.write(part.data)
            with open(self.record, "ab") as file:
                file.write(np.array(crcs, _CRC).tobytes())
            if first + len(crcs) == self.layout.rows:
                self._finish()

    def rows(self) -> FeatureRows:
        """Open the file for reading."""
        return FeatureRows(self.path, self.layout)

    def remove(self) -> None:
        """Remove the file, its record and its mark."""
        for path in (self.mark, self.path, self.record):
            path.unlink(missing_ok=True)

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def _state(self) -> bytes:
        state = self.path.stat()
        return f"{state.st_size} {state.st_mtime_ns}".encode()

    def _finish(self) -> None:
        """Mark the file as whole, once its rows are on the disk."""
        with open(self.path, "r+b") as file:
            os.fsync(file.fileno())
        storage.write(self.mark, self._state())

    def _has_header(self) -> bool:
        with open(self.path, "rb") as file:
            return file.read(len(self.layout.header)) == self.layout.header

    def _check_room(self) -> None:
        """Raise UserError if the disk has no room for what is missing of the file."""
        needed = self.layout.total_bytes - self.allocated_bytes()
        free = storage.free_bytes(self.folder)
        if free is not None and needed > (1 - KEEP_FREE) * free:
            raise UserError(
                f"The feature maps of {self.layout.rows:,} images need {needed / 1e9:,.2f} GB more "
                f"in {str(self.folder)!r}, but {free / 1e9:,.2f} GB are free, of which "
                f"{KEEP_FREE:.0%} are left to others. Make room, set XDG_CACHE_HOME to a larger "
                "disk, take fewer data.feature_views, or none (0)."
            )

    def allocated_bytes(self) -> int:
        """Return the bytes that the disk holds of the file."""
        try:
            return min(self.path.stat().st_blocks * 512, self.layout.total_bytes)
        except OSError:
            return 0

    @contextlib.contextmanager
    def _full_disk_leaves_nothing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            self.remove()
            raise UserError(
                f"The disk of {str(self.folder)!r} is full: the feature maps need "
                f"{self.layout.total_bytes / 1e9:,.2f} GB there. What was written of them is "
                "removed. Make room, set XDG_CACHE_HOME to a larger disk, or take fewer "
                "data.feature_views, or none (0)."
            ) from None


class FeatureRows:
    """Rows of a file, which processes that map it share in memory.

    Where the file system cannot map a file, each row is read.

    Args:
        path: the file.
        layout: what it holds.
        mapped: False reads each row.
    """

    def __init__(self, path: Path, layout: Layout, *, mapped: bool = True) -> None:
        self.layout = layout
        self._file = open(path, "rb")  # noqa: SIM115 - as long as this object is used
        self._pages: list[NDArray[np.uint8]] = []
        if mapped:
            with contextlib.suppress(OSError, ValueError):
                pages = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
                self._pages = [
                    np.frombuffer(pages, np.uint8, layout.rows * size, start).reshape(-1, size)
                    for start, size in zip(layout.starts, layout.row_bytes, strict=True)
                ]

    def read(self, rows_B: NDArray[np.int64]) -> tuple[Tensor, ...]:
        """Return copies of these rows of each map, (B, C, H, W), in the format of the file."""
        dtype = DTYPES[self.layout.dtype][0]
        return tuple(
            torch.from_numpy(part).view(dtype).view(-1, *shape)
            for part, shape in zip(self.read_bytes(rows_B), self.layout.shapes, strict=True)
        )

    def read_bytes(self, rows_B: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Return the bytes of these rows, (B, bytes of a row) of each map."""
        if self._pages:
            return [part[rows_B] for part in self._pages]
        parts = []
        for start, size in zip(self.layout.starts, self.layout.row_bytes, strict=True):
            part = np.empty((len(rows_B), size), np.uint8)
            for row, place in zip(part, rows_B.tolist(), strict=True):
                self._file.seek(start + place * size)
                if self._file.readinto(row.data) != size:
                    raise OSError(f"{self._file.name!r} was cut short")
            parts.append(part)
        return parts


def prune(folder: Path, days: int) -> None:
    """Remove the folders of files that nobody has used for so many days."""
    for record in folder.glob("*/rows.crc32"):
        with contextlib.suppress(OSError):  # another process was faster
            if record.stat().st_atime < time.time() - days * 86_400:
                shutil.rmtree(record.parent)


def _reserve(descriptor: int, size: int) -> None:
    """Give a file its size, and the space for it where the system can (a Mac cannot)."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.truncate(descriptor, size)


def _crc(parts: Iterable[NDArray[np.uint8]]) -> int:
    crc = 0
    for part in parts:
        crc = zlib.crc32(part.data, crc)
    return crc
