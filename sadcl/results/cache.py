"""A table as few local files that can be queried at once, with copies in the user's cache folder.

Large files are read where they are. Many small ones are copied into few large ones, each once: a
copy is recognised by the file's name, size and time. So a store of ten thousand files answers
quickly. The first queries copy only the columns that they use. Nothing depends on the cache, and
its folder may be removed at any time.

For each table the folder has ``index.parquet``, which lists what was copied, and parts
``ID.parquet`` with the rows; ``columns/HASH/`` has the same of some of the columns.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from sadcl import storage
from sadcl.errors import UserError
from sadcl.results import files, joined_rows, schema, table_file
from sadcl.results.errors import FileVanished
from sadcl.results.files import RunFile, TableFiles
from sadcl.results.joined_rows import Entry, Progress

MAX_UNCACHED_FILES = 64
"""Up to so many new files, with up to so many bytes, are read where they are."""
MAX_UNCACHED_BYTES = 32 << 20
SETTLE_SECONDS = 3.0
"""Only a file that is unchanged for so long is copied.

Its time then tells it from an earlier file of the same name."""
PART_BYTES = 256 << 20
"""Bytes of Arrow data after which a part is full."""
MAX_PARTS = 8
"""Parts after which their rows that still count are gathered in new ones."""
MAX_NARROW = 4
"""Sets of columns of which there are copies, before all columns are copied."""
_NARROW = "columns"
"""The folder of these copies below that of a table: one for each set, named by its hash."""
_COMMON = {
    *("key", "study", "phase", "arm", "seed", "dataset", "scale", "status"),
    *("val_map", "test_map", "started", "ended", "seconds", "params", "stage", "epoch", "label"),
}
UNUSED_SECONDS = 600.0
"""Age at which an unused copy is removed; queries that started before may still read it."""
_INDEX = pa.schema(
    [
        ("file", pa.string()),
        ("size", pa.int64()),
        ("time", pa.int64()),
        ("key", pa.string()),
        ("part", pa.string()),
    ]
)


@dataclass(frozen=True)
class TableParts:
    """A table as files on this machine, and rows in memory.

    Attributes:
        paths: the superseded keys of each local file, by its path: their rows in it do not count.
        rows: tables with the rest of the rows.
    """

    paths: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rows: Sequence[pa.Table] = ()

    def schemas(self) -> list[pa.Schema]:
        """Return the schema of each file, then of each table in memory."""
        return [table_file.open_file(path).schema_arrow for path in self.paths] + [
            part.schema for part in self.rows
        ]


def table_parts(
    root: str,
    table: str,
    progress: Progress | None = None,
    columns: Collection[str] | None = None,
) -> TableParts:
    """Return a table as it is at one moment.

    Merged files of an object store are copied to the cache first.

    Args:
        progress: called while many files are read for the first time.
        columns: the only ones that are needed, in lower case; others may be missing. None is all.

    Raises:
        BadFile: for a file that does not belong to the tables.
        UserError: if there is no room for a copy of an object store's files.
    """
    return files.retry_if_vanished(lambda: _table_parts_once(root, table, progress, columns))


def _table_parts_once(
    root: str, table: str, progress: Progress | None, columns: Collection[str] | None
) -> TableParts:
    listed = files.list_table(storage.absolute(os.fspath(root)), table)
    folder = _table_cache(root, table)
    remote = not isinstance(storage.resolve(root)[0], fs.LocalFileSystem)
    if remote:
        mirror = folder / files.MERGED_FOLDER
        merged = {_mirror_object(mirror, uri): keys for uri, keys in listed.merged.items()}
        _remove_unused(mirror, set(merged))
    else:
        merged = {storage.resolve(uri)[1]: keys for uri, keys in listed.merged.items()}
    empty = schema.empty_table(table)
    if table == "predictions" and not remote:  # its files are large, and their columns all alike
        uncopied = {storage.resolve(listed.uri(one))[1]: () for one in listed.run_files.values()}
        return TableParts({**merged, **uncopied}, [empty])
    copies, new_files, names = _copy_small_files(listed, folder, progress, columns)
    if names is not None:  # a column that is asked for all the same is missing, and not null
        empty = empty.select([name for name in empty.column_names if name.lower() in names])
    return TableParts({**merged, **copies}, [empty, *joined_rows.read_run_files(listed, new_files)])


def cache_folder() -> Path:
    """Return the folder of all copies in the user's cache."""
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # a container's user may have no home
        return Path(tempfile.gettempdir()) / f"sadcl-{os.getuid()}" / "tables"
    return storage.local(home) / "sadcl" / "tables"


def _table_cache(root: str, table: str) -> Path:
    store = storage.absolute(os.fspath(root))
    return cache_folder() / hashlib.sha256(store.encode()).hexdigest()[:16] / table


def _copy_small_files(
    listed: TableFiles, folder: Path, progress: Progress | None, columns: Collection[str] | None
) -> tuple[dict[str, list[str]], list[RunFile], set[str] | None]:
    """Copy new files if they are many.

    Returns:
        The superseded keys of each part that is of use, by its path; the files that have no copy;
        and the columns of the parts in lower case, None for all.
    """
    run_files = {one.file: one for one in listed.run_files.values()}
    index = _read_index(folder)
    copies, new_files = _match_copies(folder, index, run_files)
    names = None
    if not _are_many(new_files):
        return copies, new_files, names
    if columns is not None and len(new_files) > len(run_files) / 2:
        folder, names = _narrow_copy(folder, columns)
        index = _read_index(folder)
        copies, new_files = _match_copies(folder, index, run_files)
    settled = [one for one in new_files if time.time() - one.mark[1] / 1e9 > SETTLE_SECONDS]
    if not settled or not _are_many(new_files):
        return copies, new_files, names
    with contextlib.suppress(
        OSError
    ):  # the cache may be read-only or full: then all is read in place
        folder.mkdir(parents=True, exist_ok=True)
        # In the order of their names the rows are in the order of keys too, and not to be sorted.
        settled.sort(key=lambda one: one.file)
        source = joined_rows.read_groups(listed, settled, progress, names)
        index = _add_copies(folder, index, run_files, source)
        copies, new_files = _match_copies(folder, index, run_files)
        if names is None:
            shutil.rmtree(folder / _NARROW, ignore_errors=True)
    return copies, new_files, names


def _narrow_copy(folder: Path, columns: Collection[str]) -> tuple[Path, set[str] | None]:
    """Choose the folder for a copy of some columns, and the names of these in lower case.

    Those that a table is asked for most often are always among them. After a few sets of columns,
    all are copied: then it is the table's own folder, and None.
    """
    others = {path.parent: _read_names(path) for path in folder.glob(f"{_NARROW}/*/names.json")}
    for narrow, names in others.items():
        if names and names.issuperset(columns):
            return narrow, names
    if len(others) >= MAX_NARROW:
        return folder, None
    names = {*_COMMON, *columns}
    narrow = folder / _NARROW / hashlib.sha256(repr(sorted(names)).encode()).hexdigest()[:16]
    with contextlib.suppress(OSError):  # as where the copy is written
        storage.write(narrow / "names.json", json.dumps(sorted(names)).encode())
    return narrow, names


def _read_names(path: Path) -> set[str]:
    """Read the columns of a copy; none if they cannot be read, or if it was just removed."""
    try:
        return set(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return set()


def _are_many(new_files: Sequence[RunFile]) -> bool:
    size = sum(one.mark[0] for one in new_files)
    return len(new_files) > MAX_UNCACHED_FILES or size > MAX_UNCACHED_BYTES


def _read_index(folder: Path) -> pa.Table | None:
    """Read what was copied; None if nothing was, or if the index or a part is damaged or gone."""
    try:
        index = pq.ParquetFile(pa.OSFile(str(folder / "index.parquet"))).read()
        for part in index["part"].unique().to_pylist():
            pq.read_schema(folder / f"{part}.parquet")
    except (OSError, pa.ArrowInvalid):
        return None
    return index


def _match_copies(
    folder: Path, index: pa.Table | None, run_files: Mapping[str, RunFile]
) -> tuple[dict[str, list[str]], list[RunFile]]:
    """Compare the index with the files as they are; returns as :func:`_copy_small_files` does."""
    if index is None:
        return {}, list(run_files.values())
    columns = [index[name].to_pylist() for name in ("file", "size", "time", "key", "part")]
    superseded: dict[str, list[str]] = {}
    uncopied, useful = dict(run_files), set()
    for file, size, changed, key, part in zip(*columns, strict=True):
        path = str(folder / f"{part}.parquet")
        keys = superseded.setdefault(path, [])
        if file in uncopied and uncopied[file].mark == (size, changed):
            del uncopied[file]
            useful.add(path)
        elif key is not None:
            keys.append(key)
    copies = {path: keys for path, keys in superseded.items() if path in useful}
    return copies, list(uncopied.values())


def _add_copies(
    folder: Path,
    index: pa.Table | None,
    run_files: Mapping[str, RunFile],
    source: Iterator[tuple[pa.Table, list[Entry]]],
) -> pa.Table:
    """Write new parts and a new index, and return the index.

    If there are many parts, all of them are written anew.
    """
    entries: list[Entry] = [] if index is None else index.to_pylist()
    valid = [
        entry
        for entry in entries
        if entry["file"] in run_files
        and run_files[str(entry["file"])].mark == (entry["size"], entry["time"])
    ]
    useful = {str(entry["part"]) for entry in valid}
    if len(useful) >= MAX_PARTS:
        copies, _ = _match_copies(folder, index, run_files)
        source = itertools.chain(_read_parts(folder, copies, valid), source)
        entries = []
    else:  # of a part that stays, the index also has to name the rows that do not count
        entries = [entry for entry in entries if entry["part"] in useful]
    for rows, new_entries in joined_rows.batches(source, PART_BYTES):
        part = uuid.uuid4().hex
        content = table_file.encode_parquet(rows, large=True, quick=True)
        storage.write(folder / f"{part}.parquet", content)
        entries += [{**entry, "part": part} for entry in new_entries]
    table = pa.Table.from_pylist(entries, schema=_INDEX)
    storage.write(folder / "index.parquet", table_file.encode_parquet(table, large=True))
    parts = table["part"].unique().to_pylist()
    _remove_unused(folder, {str(folder / f"{part}.parquet") for part in parts})
    return table


def _read_parts(
    folder: Path, copies: Mapping[str, Sequence[str]], entries: Iterable[Entry]
) -> Iterator[tuple[pa.Table, list[Entry]]]:
    """Yield the rows of each part that still count, with their entries."""
    by_path: dict[str, list[Entry]] = {}
    for entry in entries:
        by_path.setdefault(str(folder / f"{entry['part']}.parquet"), []).append(entry)
    for path, part_entries in by_path.items():
        yield table_file.without_keys(table_file.read_file(path), copies[path]), part_entries


def _mirror_object(folder: Path, uri: str) -> str:
    """Copy a merged file of an object store to this machine, and return the copy's path.

    A merged file never changes, so each is copied once.
    """
    path = folder / uri.rsplit("/", 1)[-1]
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
            system, source = storage.resolve(uri)
            with system.open_input_stream(source) as stream, open(unfinished, "wb") as file:
                shutil.copyfileobj(stream, file, 1 << 20)
            unfinished.replace(path)
        except FileNotFoundError:
            raise FileVanished from None
        except OSError as error:
            raise UserError(
                f"{uri!r} cannot be copied to {str(folder)!r}: {error}. Set XDG_CACHE_HOME to a "
                "folder on a disk with room."
            ) from None
    return str(path)


def _remove_unused(folder: Path, used: set[str]) -> None:
    """Remove old copies that are not used; a query that still reads one lists the files again."""
    with contextlib.suppress(OSError):
        needed = used | {str(folder / "index.parquet")}
        for path in folder.glob("*.parquet"):
            if str(path) not in needed and time.time() - path.stat().st_mtime > UNUSED_SECONDS:
                path.unlink(missing_ok=True)
