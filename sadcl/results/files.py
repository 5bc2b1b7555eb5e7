"""Which files hold a table now, and which of their rows count; readers take no lock.

A run writes a file of its own in each table, ``NAME.parquet``, again and again while it runs. A file of a run that has ended
is never changed: what changes such a run's rows writes ``NAME~1.parquet``, then ``NAME~2.parquet``, and the highest number
counts; a file without rows says that they were removed. Merged files (``merged/ID.parquet``, with the names and numbers
that they stand for in ``merged/ID.index.parquet``) count where no higher number, and no file of the run's own with the same
number, is there. They appear, index last, before anything that they stand for is removed, so that whoever sees the same
merged files before and after looking at the others has seen the table as it was at one moment.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from sadcl import storage
from sadcl.errors import UserError
from sadcl.results import schema

FOLDER, MERGED, INDEX = "tables", "merged", ".index.parquet"
T = TypeVar("T")


@dataclass(frozen=True)
class Single:
    """A run's own file."""

    file: str
    number: int
    mark: tuple[int, int]
    """Bytes, and nanoseconds of its last change."""


@dataclass(frozen=True)
class Files:
    """A table at one moment.

    Attributes:
        folder: URI.
        single: the files of runs, by name, that count.
        merged: URI of each merged file, with the keys whose rows in it do not count.
        old: files of runs that a higher number has replaced.
    """

    folder: str
    single: Mapping[str, Single] = field(default_factory=dict)
    merged: Mapping[str, Sequence[str]] = field(default_factory=dict)
    old: Sequence[Single] = ()

    def uri(self, single: Single) -> str:
        return storage.join(self.folder, single.file)


def folder(root: str, table: str) -> str:
    return storage.join(root, FOLDER, table)


def stem(key: str) -> str:
    """A file name that is safe and of its key alone, whatever the key holds."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", key).lstrip(".")[:120]
    return plain if plain == key else f"{plain}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def name(of: str, number: int) -> str:
    return f"{of}~{number}.parquet" if number else f"{of}.parquet"


def parse(file: str) -> tuple[str, int]:
    """Name and number of a run's file; a file that no run has written is one by itself."""
    of, _, number = file.removesuffix(".parquet").partition("~")
    return (of, int(number)) if number.isdecimal() else (file.removesuffix(".parquet"), 0)


def steady(attempt: Callable[[], T]) -> T:
    """What comes of an attempt in which no file that it had found was gone when it came to read it.

    Raises:
        OSError: where the storage fails for longer than it is waited for.
    """
    for _ in range(100):
        try:
            return storage.retry(attempt)
        except Vanished:
            continue
    raise UserError(
        "The tables change faster than they can be read: try again when fewer processes write or compact them."
    )


class Vanished(Exception):
    """A file that was found is not there any more: look again."""


def look(root: str, table: str) -> Files:
    """The files of a table at one moment."""
    return steady(lambda: _look(folder(root, table)))


def _look(where: str) -> Files:
    merged = storage.join(where, MERGED)
    before = storage.listing(merged, INDEX)
    marks = storage.stamps(where, ".parquet")
    if storage.listing(merged, INDEX) != before or storage.names(where, ".parquet") != marks.keys():
        raise Vanished  # a listing is not of one moment: what took the place of another may be in neither half of it
    single: dict[str, Single] = {}
    old = []
    for file, mark in marks.items():
        of, number = parse(file)
        one, other = Single(file, number, mark), single.get(of)
        if other is not None:
            one, less = (one, other) if number > other.number else (other, one)
            old.append(less)
        single[of] = one
    uris = [storage.join(merged, found.removesuffix(INDEX) + ".parquet") for found in before]
    if not uris or (len(uris) == 1 and not single):
        return Files(where, single, dict.fromkeys(uris, ()), old)
    return _resolved(Files(where, single, {}, old), uris)


@dataclass(frozen=True)
class Found:
    """Where the rows of one run are.

    Attributes:
        number: of the newest file that has them, and its URI; -1 and None where there is none.
        own: names of the run's own files.
        merged: whether merged files have rows of it, also such that do not count.
    """

    number: int
    uri: str | None
    own: Sequence[str]
    merged: bool


def find(root: str, table: str, key: str) -> Found:
    """What :func:`look` finds of one run, without a look at the files of the others."""
    return find_all(root, table, [key])[0]


def find_all(root: str, table: str, keys: Sequence[str]) -> list[Found]:
    """The same of several, in their order."""
    return steady(lambda: _find(folder(root, table), [stem(key) for key in keys]))


def _find(where: str, stems: Sequence[str]) -> list[Found]:
    import pyarrow.compute as pc  # a tenth of what a question takes, and most of them need none of it

    def own() -> dict[str, list[str]]:
        files: dict[str, list[str]] = {of: [] for of in stems}
        for file in sorted(storage.names(where, ".parquet")):
            files.get(parse(file)[0], []).append(file)
        return files

    merged = storage.join(where, MERGED)
    files, before = own(), storage.listing(merged, INDEX)
    if own() != files or storage.listing(merged, INDEX) != before:
        raise Vanished
    best = {
        of: max(
            ((parse(file)[1], 1, storage.join(where, file)) for file in found), default=(-1, 0, "")
        )
        for of, found in files.items()
    }
    there = set()
    for found in before:
        uri = storage.join(merged, found.removesuffix(INDEX) + ".parquet")
        listed = index(uri)
        for row in listed.filter(
            pc.is_in(listed["name"], value_set=pa.array(stems, pa.string()))
        ).to_pylist():
            there.add(row["name"])
            best[row["name"]] = max(best[row["name"]], (row["number"], 0, uri))
    return [Found(best[of][0], best[of][2] or None, files[of], of in there) for of in stems]


def _resolved(files: Files, uris: Sequence[str]) -> Files:
    """Of the runs that are in several places, the one that counts."""
    import pyarrow.compute as pc

    indices = [index(uri) for uri in uris]
    names = pa.chunked_array(
        [chunk for part in indices for chunk in part["name"].chunks], pa.string()
    )
    contested = list(files.single)
    if len(uris) > 1:
        counts = pc.value_counts(names)
        contested += (
            counts.field("values")
            .filter(pc.greater(counts.field("counts"), pa.scalar(1, pa.int64())))
            .to_pylist()
        )
    wanted, single = pa.array(contested, pa.string()), dict(files.single)
    without: dict[str, list[str]] = {uri: [] for uri in uris}
    best: dict[str, tuple[int, str, str]] = {}
    lost = [*files.old]
    for uri, part in zip(uris, indices, strict=True):
        for row in part.filter(pc.is_in(part["name"], value_set=wanted)).to_pylist():
            of, mine = row["name"], (row["number"], uri, row["key"])
            own = single.get(of)
            if own is not None and own.number >= row["number"]:
                without[uri].append(row["key"])
                continue
            if own is not None:
                lost.append(single.pop(of))
            other = best.get(of)
            if other is not None:
                without[min(mine, other)[1]].append(row["key"])
            best[of] = mine if other is None else max(mine, other)
    return Files(files.folder, single, without, lost)


@functools.lru_cache(maxsize=256)
def index(uri: str) -> pa.Table:
    """Of a merged file: ``name``, ``number`` and ``key`` of each run whose rows it has."""
    found = read_bytes(uri.removesuffix(".parquet") + INDEX)
    return pq.ParquetFile(pa.BufferReader(found)).read()


def read_bytes(uri: str) -> bytes:
    """The bytes of a file that was found.

    Raises:
        Vanished: where it is gone.
    """
    try:
        return storage.read(uri)
    except FileNotFoundError:
        raise Vanished from None


def opened(uri: str, data: bytes | None = None) -> pq.ParquetFile:
    """A file of a table, its content not read yet where it is local.

    Raises:
        Vanished: where it is gone.
        UserError: where it is no table of ours.
    """
    system, path = storage.resolve(uri)
    try:
        local = isinstance(system, fs.LocalFileSystem) and data is None
        source = (
            pa.OSFile(path)
            if local
            else pa.BufferReader(data if data is not None else storage.read(uri))
        )
        found = pq.ParquetFile(source, pre_buffer=False)
    except FileNotFoundError:
        raise Vanished from None
    except _UNREADABLE as error:
        raise _as_damage(uri, error) from None
    check(uri, found.schema_arrow)
    return found


_UNREADABLE = (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError)


def _as_damage(uri: str, error: Exception) -> Exception:
    """What a file's content is at fault for; an error with a number is the disk's."""
    return error if getattr(error, "errno", None) else UserError(damaged(uri, error))


def damaged(uri: str, error: object) -> str:
    said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{uri!r} is damaged or not a table of results: {said}. Move it away and run again."


def check(uri: str, found: pa.Schema) -> None:
    """Find out whether a file's schema is of ours, and not of a later program.

    Raises:
        UserError: where it is not.
    """
    version = (found.metadata or {}).get(b"sadcl", b"")
    if not version.isdigit() or int(version) > schema.VERSION:
        what = f"version {int(version)}" if version.isdigit() else "no version"
        raise UserError(
            f"{uri!r} has {what} of the schema; this program reads up to {schema.VERSION}."
        )


def read(uri: str, columns: Iterable[str] | None = None) -> pa.Table:
    """One file of a table, or those of its columns that are asked for; raises as :func:`opened` does."""
    file = opened(uri)
    try:
        there = None if columns is None else [c for c in columns if c in file.schema_arrow.names]
        return file.read(columns=there, use_threads=False)
    except _UNREADABLE as error:
        raise _as_damage(uri, error) from None


def rows_of(uri: str, key: str) -> pa.Table:
    """The rows of one key in a file, of which no more is read than what may have them."""
    import pyarrow.compute as pc

    file = opened(uri)
    at = file.schema_arrow.names.index("key")
    groups = []
    try:
        for i in range(file.num_row_groups):
            found = file.metadata.row_group(i).column(at).statistics
            if found is None or not found.has_min_max or found.min <= key <= found.max:
                groups.append(i)
        rows = file.read_row_groups(groups, use_threads=False)
    except _UNREADABLE as error:
        raise _as_damage(uri, error) from None
    return rows.filter(pc.equal(rows["key"], pa.scalar(key, pa.string())))


def kept(part: pa.Table, without: Sequence[str]) -> pa.Table:
    """The rows of other keys."""
    if not without:
        return part
    import pyarrow.compute as pc

    return part.filter(pc.invert(pc.is_in(part["key"], value_set=pa.array(without, pa.string()))))


def together(parts: Sequence[pa.Table]) -> pa.Table:
    """One table; a column of different kinds in different parts becomes words, and is null where a part lacks it."""
    words = mixed(part.schema for part in parts)

    def alike(part: pa.Table) -> pa.Table:
        for i, column in enumerate(part.schema):
            if column.name in words and column.type != pa.string():
                part = part.set_column(i, column.name, part[column.name].cast(pa.string()))
        return part

    return pa.concat_tables([alike(part) for part in parts], promote_options="permissive")


def mixed(schemas: Iterable[pa.Schema]) -> set[str]:
    """Columns that have different kinds in different parts."""
    kinds: dict[str, set[pa.DataType]] = {}
    for column in (column for one in schemas for column in one):
        if not pa.types.is_null(column.type) and not pa.types.is_nested(column.type):
            kinds.setdefault(column.name, set()).add(column.type)
    return {name for name, found in kinds.items() if len(found) > 1}


def encode(rows: pa.Table, *, large: bool = False) -> memoryview:
    """A file's bytes: small ones plain, which are read and written in half the time; large ones compressed.

    DuckDB takes whole groups of rows into memory, so these are not larger than it needs to be quick.
    """
    buffer = io.BytesIO()
    plain: dict[str, Any] = {
        "compression": "none",
        "use_dictionary": False,
        "write_statistics": False,
    }
    pq.write_table(
        rows, buffer, **({"compression": "zstd", "row_group_size": 25_000} if large else plain)
    )
    return buffer.getbuffer()


def cache() -> Path:
    """The user's cache folder."""
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # a container's user without a home
        return Path(tempfile.gettempdir()) / f"sadcl-{os.getuid()}" / "tables"
    return storage.local(home) / "sadcl" / "tables"
