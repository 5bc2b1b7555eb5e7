"""One file of a table, Parquet or Arrow IPC: its bytes, its schema, its rows."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from sadcl import storage
from sadcl.results import schema
from sadcl.results.errors import BadFile, FileVanished
from sadcl.results.remedies import TAKE_COPY

_UNREADABLE = (
    *(pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError),
    *(EOFError, UnicodeDecodeError),  # a file that ends early, a damaged name of a column
)


def open_file(uri: str) -> pq.ParquetFile:
    """Open a file of a table; the content of a local file is not read yet.

    Raises:
        FileVanished: if it is gone.
        BadFile: if it is damaged, not a file of the tables, or written by a newer version.
    """
    system, path = storage.resolve(uri)
    try:
        local = isinstance(system, fs.LocalFileSystem)
        source = pa.OSFile(path) if local else pa.BufferReader(storage.read(uri))
        file = pq.ParquetFile(source, pre_buffer=False)
    except FileNotFoundError:
        raise FileVanished from None
    except _UNREADABLE as error:
        raise _damage_or_disk_error(uri, error) from None
    _check_version(uri, file.schema_arrow)
    return file


def read_file(uri: str, columns: Iterable[str] | None = None) -> pa.Table:
    """Read a file, or those of the columns that it has.

    Raises:
        FileVanished, BadFile: as :func:`open_file`.
    """
    if uri.endswith(".arrow"):
        return _read_arrow(uri, columns)
    file = open_file(uri)
    try:
        present = None if columns is None else [c for c in columns if c in file.schema_arrow.names]
        return file.read(columns=present, use_threads=False)
    except _UNREADABLE as error:
        raise _damage_or_disk_error(uri, error) from None


def _read_arrow(uri: str, columns: Iterable[str] | None) -> pa.Table:
    file_schema, batches = _read_arrow_batches(uri, None)
    rows = pa.Table.from_batches(batches, file_schema)
    if columns is None:
        return rows
    return rows.select([name for name in columns if name in rows.column_names])


def _read_arrow_batches(uri: str, fields: _Fields | None) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    try:
        content = _read_local(uri) if uri.startswith("/") else read_bytes(uri)
        buffer = pa.py_buffer(content)
        reader = pa.ipc.open_file(buffer) if fields is None else fields.open(buffer)
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        for batch in batches:
            batch.validate()
    except _UNREADABLE as error:
        raise _damage_or_disk_error(uri, error) from None
    _check_version(uri, reader.schema)
    return reader.schema, batches


class _Fields:
    """Opens Arrow files for the columns of some names.

    Args:
        names: Of the columns, in lower case; what a file lacks is left out.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._schema: pa.Buffer | None = None
        self._places: list[int] = []

    def open(self, buffer: pa.Buffer) -> pa.ipc.RecordBatchFileReader:
        """Open the content of a file.

        It begins with eight bytes of the format's name and the message with the schema. That is
        compared with the one before, and seldom has to be understood.
        """
        file_schema = pa.ipc.read_message(buffer.slice(min(8, buffer.size))).metadata
        if self._schema is None or not file_schema.equals(self._schema):
            columns = pa.ipc.open_file(buffer).schema.names
            self._places = [i for i, name in enumerate(columns) if name.lower() in self._names]
            self._schema = file_schema
        options = pa.ipc.IpcReadOptions(included_fields=self._places)
        return pa.ipc.open_file(buffer, options=options)


def read_joined(
    uris: Sequence[str], names: Collection[str] | None = None
) -> tuple[pa.Table, list[str | None]]:
    """Read files of one run each, and join their rows.

    Of many small files with all columns, that takes half the time of :func:`read_file` and
    :func:`concatenate`; with few columns, a fifth of it.

    Args:
        uris: At least one.
        names: Of the columns to read, in lower case, with ``key`` among them; None is all.

    Returns:
        The rows, and the key of each file; None for a file without rows.

    Raises:
        FileVanished: As :func:`open_file`.
        BadFile: As :func:`open_file`, and for a file without keys.
    """
    fields = None if names is None else _Fields(names)
    parts: list[tuple[pa.Schema, list[pa.RecordBatch]]] = []
    keys: list[str | None] = []
    for uri in uris:
        if uri.endswith(".arrow"):
            file_schema, batches = _read_arrow_batches(uri, fields)
        else:
            rows = read_file(uri)
            if names is not None:
                rows = rows.select([name for name in rows.column_names if name.lower() in names])
            file_schema, batches = rows.schema, rows.to_batches()
        position = file_schema.get_field_index("key")
        if position < 0:
            raise damaged(uri, "it has no column 'key'")
        parts.append((file_schema, batches))
        keys.append(next((b.column(position)[0].as_py() for b in batches if len(b)), None))
    batches = [batch for _, several in parts for batch in several]
    with contextlib.suppress(pa.ArrowInvalid):  # that is quick if all have the same columns
        return pa.Table.from_batches(batches, parts[0][0]).combine_chunks(), keys
    tables = [pa.Table.from_batches(several, one) for one, several in parts]
    return concatenate(tables).combine_chunks(), keys


def _read_local(path: str) -> bytes:
    """Read a file of this machine; of thousands, each is read in half the time of read_bytes."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except FileNotFoundError:
        raise FileVanished from None


def read_rows_of(uri: str, *keys: str) -> pa.Table:
    """Read the rows of some keys; row groups whose statistics exclude them are skipped.

    Raises:
        FileVanished, BadFile: as :func:`open_file`.
    """
    import pyarrow.compute as pc

    wanted = pa.array(keys, pa.string())
    if uri.endswith(".arrow"):
        rows = _read_arrow(uri, None)
        return rows.filter(pc.is_in(rows["key"], wanted))
    file = open_file(uri)
    position = file.schema_arrow.names.index("key")
    groups = []
    try:
        for i in range(file.num_row_groups):
            statistics = file.metadata.row_group(i).column(position).statistics
            if (
                statistics is None
                or not statistics.has_min_max
                or any(statistics.min <= key <= statistics.max for key in keys)
            ):
                groups.append(i)
        rows = file.read_row_groups(groups, use_threads=False)
    except _UNREADABLE as error:
        raise _damage_or_disk_error(uri, error) from None
    return rows.filter(pc.is_in(rows["key"], wanted))


def read_bytes(uri: str) -> bytes:
    """Read the bytes of a listed file.

    Raises:
        FileVanished: if it is gone.
    """
    try:
        return storage.read(uri)
    except FileNotFoundError:
        raise FileVanished from None


def copy(source: str, target: str) -> None:
    """Give a file a second name, or copy it where that is not possible.

    Raises:
        FileVanished: if it is gone.
    """
    system, path = storage.resolve(target)
    if isinstance(system, fs.LocalFileSystem):
        part = Path(path).with_name(f".{Path(path).name}.part")
        with contextlib.suppress(OSError):
            part.parent.mkdir(parents=True, exist_ok=True)
            part.unlink(missing_ok=True)
            os.link(storage.resolve(source)[1], part)
            os.replace(part, path)
            return
    storage.write(target, read_bytes(source))


def encode_parquet(rows: pa.Table, *, large: bool = False, quick: bool = False) -> memoryview:
    """Return the bytes of a Parquet file.

    Args:
        large: compress, and write statistics and row groups of 25,000 rows: DuckDB takes whole row
            groups into memory, so they are no larger than its speed needs. A small file is plain,
            which halves the time to write and read it.
        quick: write a large file in a quarter of the time, for a copy that others can make again.
    """
    buffer = io.BytesIO()
    options: dict[str, Any] = (
        {"compression": "zstd", "row_group_size": 25_000}
        if large
        else {"compression": "none", "use_dictionary": False, "write_statistics": False}
    )
    if quick:
        texts = [column.name for column in rows.schema if pa.types.is_string(column.type)]
        options |= {"compression": "lz4", "use_dictionary": texts}
    pq.write_table(rows, buffer, **options)
    return buffer.getbuffer()


def encode(rows: pa.Table, uri: str) -> memoryview:
    """Return the bytes of a run's own file: Arrow IPC, or Parquet if its name says so.

    With the 180 columns of a trial, Arrow IPC is read in a fortieth of the time of Parquet.
    """
    if uri.endswith(".parquet"):
        return encode_parquet(rows, large=True)
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, rows.schema) as writer:
        writer.write_table(rows)
    return buffer.getbuffer()


def damaged(uri: str, reason: object) -> BadFile:
    """Return the error for a file whose content is at fault."""
    lines = str(reason).strip().splitlines()
    first = lines[0] if lines else type(reason).__name__
    return BadFile(
        uri,
        f"is damaged or not a table of results: {first.rstrip('.')}",
        TAKE_COPY,
    )


def without_keys(rows: pa.Table, keys: Sequence[str]) -> pa.Table:
    """Return the rows of all other keys."""
    if not keys:
        return rows
    import pyarrow.compute as pc

    return rows.filter(pc.invert(pc.is_in(rows["key"], value_set=pa.array(keys, pa.string()))))


def concatenate(parts: Sequence[pa.Table]) -> pa.Table:
    """Join the rows of several tables.

    Where a table lacks a column it is null, and a column whose types differ becomes text.
    """
    with contextlib.suppress(pa.ArrowInvalid):
        return pa.concat_tables(parts)  # that is quick if all have the same columns
    as_text = conflicting_columns(part.schema for part in parts)

    def convert(part: pa.Table) -> pa.Table:
        for i, column in enumerate(part.schema):
            if column.name in as_text and column.type != pa.string():
                part = part.set_column(i, column.name, part[column.name].cast(pa.string()))
        return part

    return pa.concat_tables([convert(part) for part in parts], promote_options="permissive")


def conflicting_columns(schemas: Iterable[pa.Schema]) -> set[str]:
    """Return the columns that have different types in different schemas.

    Null types are not counted, because they fit any other, nor are nested ones.
    """
    different: list[pa.Schema] = []
    for one in schemas:  # thousands of files have few schemas between them
        if not any(one.equals(other) for other in different):
            different.append(one)
    types: dict[str, set[pa.DataType]] = {}
    for column in (column for one in different for column in one):
        if not pa.types.is_null(column.type) and not pa.types.is_nested(column.type):
            types.setdefault(column.name, set()).add(column.type)
    return {name for name, kinds in types.items() if len(kinds) > 1}


def _damage_or_disk_error(uri: str, error: Exception) -> Exception:
    """Blame the file, unless the error has an error number: then it is the disk's."""
    return error if getattr(error, "errno", None) else damaged(uri, error)


def _check_version(uri: str, file_schema: pa.Schema) -> None:
    version = (file_schema.metadata or {}).get(b"sadcl", b"")
    if not version.isdigit():
        raise BadFile(
            uri,
            "has no version of the schema, so it is not a file of the tables",
            TAKE_COPY,
        )
    if int(version) > schema.VERSION:
        raise BadFile(
            uri,
            f"has version {int(version)} of the schema; this program reads up to {schema.VERSION}",
            "Install a newer version of sadcl.",
        )
