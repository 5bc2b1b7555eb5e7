"""Merge the small files of ended runs into few large ones, while others read and write."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from sadcl import storage
from sadcl.results import files, joined_rows, schema, store, table_file
from sadcl.results.files import RunFile, TableFiles
from sadcl.results.joined_rows import Entry, Progress
from sadcl.results.status import ENDED

PART_BYTES = 256 << 20
"""Bytes of Arrow data after which a merged file is full.

A merged file of at least half of that stays, as long as most of its rows count."""
GRACE_SECONDS = 86400.0
"""Age in seconds at which leftovers are removed from an object store.

It has no locks, so a younger file may belong to a compaction that is at work."""
_INDEX = pa.schema([("name", pa.string()), ("number", pa.int64()), ("key", pa.string())])


@dataclass(frozen=True)
class Compaction:
    """What merging did to one table.

    Attributes:
        before, after: how many files the table had before, and has now.
        moved: whether any of them was in an old place, where other programs had read it.
    """

    table: str
    before: int
    after: int
    moved: bool = False


def compact(
    root: str, progress: Callable[[str], Progress] | None = None, *, least: int = 0
) -> list[Compaction]:
    """Merge the files of runs that have ended; those of predictions are large, and stay single.

    None of them stays in an old place, where other programs would read it beside the published
    rows (see ``published_tables``). Others may read and write meanwhile, and a crash at any moment
    does no harm.

    Args:
        root: of the store.
        least: leave a table alone that has fewer files to merge, and none in an old place.
        progress: takes a table's name, and returns what is called while its files are read.

    Raises:
        UserError: if the root is not a store, or for a file that is damaged.
    """
    store.check_store(root)
    with store.compaction_lock(root) as locked:
        for table in schema.TRIAL_TABLES:
            for folder in files.merged_folders(root, table):
                _remove_unfinished(folder, locked)
        ended = _ended_numbers(root)
        return [
            files.retry_if_vanished(
                lambda table=table: _compact_table(  # type: ignore[misc]
                    root, table, ended, locked, progress, least
                )
            )
            for table in schema.TRIAL_TABLES
        ]


def _ended_numbers(root: str) -> dict[str, int]:
    """Return, by run, the highest number of its files that will not change any more."""

    def attempt() -> dict[str, int]:
        listed = files.list_table(root, "trials")
        ended: dict[str, int] = {}
        for uri in listed.merged:
            index = files.read_index(uri)
            for stem, number in zip(
                index["name"].to_pylist(), index["number"].to_pylist(), strict=True
            ):
                ended[stem] = max(number, ended.get(stem, -1))
        tables = joined_rows.read_run_files(
            listed, list(listed.run_files.values()), columns=["status"]
        )
        for (stem, run_file), rows in zip(listed.run_files.items(), tables, strict=True):
            if not len(rows) or rows["status"][0].as_py() in ENDED:
                ended[stem] = run_file.number
            else:  # the run was started again; what it had before may be merged
                ended[stem] = run_file.number - 1
        return ended

    return files.retry_if_vanished(attempt)


def _compact_table(
    root: str,
    table: str,
    ended: dict[str, int],
    locked: bool,
    progress: Callable[[str], Progress] | None,
    least: int,
) -> Compaction:
    listed = files.list_table(root, table)
    # Replaced files go first: once the file that replaced them is merged, their rows would count.
    for run_file in listed.replaced:
        if run_file.number <= ended.get(files.split_file_name(run_file.file)[0], -1):
            storage.delete(listed.uri(run_file))
    small = {
        stem: run_file
        for stem, run_file in listed.run_files.items()
        if run_file.number <= ended.get(stem, -1)
    }
    before = len(listed.run_files) + len(listed.merged)
    has_old = any(
        map(files.is_old_place, (*listed.merged, *(run_file.file for run_file in small.values())))
    )
    if table == "predictions":
        _split_merged(root, listed)
        for stem, run_file in small.items():
            if files.is_old_place(run_file.file):
                _move(root, table, stem, listed.uri(run_file))
        return Compaction(table, before, _count(root, table), has_old)
    rewritten = [uri for uri, keys in listed.merged.items() if _is_worth_rewriting(uri, len(keys))]
    if len(small) < least and not has_old:
        return Compaction(table, before, before)
    if not small and len(rewritten) < 2 and not any(listed.merged[uri] for uri in rewritten):
        return Compaction(table, before, before)
    inputs = _inputs(listed, rewritten, small, progress and progress(table))
    for rows, entries in joined_rows.batches(inputs, PART_BYTES):
        _write_merged(files.merged_folders(root, table)[0], rows, entries)
    for uri in rewritten:
        storage.delete(
            files.index_uri(uri)
        )  # the index makes a merged file count, so it goes first
        storage.delete(uri)
    _delete_merged_run_files(root, table, listed, rewritten, small, locked)
    return Compaction(table, before, _count(root, table), has_old)


def _count(root: str, table: str) -> int:
    listed = files.list_table(root, table)
    return len(listed.run_files) + len(listed.merged)


def _move(root: str, table: str, stem: str, uri: str) -> None:
    """Move a run's own file from its old place to where it is written today.

    Until the old one is gone both are there, and the new one counts.
    """
    folder, suffix = next(iter(files.run_folders(root, table).items()))
    target = storage.join(folder, files.file_name(stem, files.split_file_name(uri)[1], suffix))
    if uri.endswith(suffix):
        table_file.copy(uri, target)
    else:
        storage.write(target, table_file.encode(table_file.read_file(uri), target))
    storage.delete(uri)


def _split_merged(root: str, listed: TableFiles) -> None:
    """Write the rows of merged predictions as files of their runs, which older versions merged."""
    for uri, superseded in listed.merged.items():
        entries = table_file.without_keys(files.read_index(uri), superseded).to_pylist()
        for entry in entries:
            rows = table_file.read_rows_of(uri, entry["key"])
            own = files.run_uri(root, "predictions", entry["key"], entry["number"])
            storage.write(own, table_file.encode(rows, own))
        storage.delete(files.index_uri(uri))
        storage.delete(uri)


def _delete_merged_run_files(
    root: str,
    table: str,
    listed: TableFiles,
    rewritten: Sequence[str],
    small: dict[str, RunFile],
    locked: bool,
) -> None:
    """Delete files whose rows are merged now.

    A file that says that rows were removed stays as long as a merged file has these rows, or may
    come to have them.
    """
    remaining = [
        set(files.read_index(uri)["name"].to_pylist())
        for uri in listed.merged
        if uri not in rewritten
    ]
    for stem, run_file in small.items():
        young = not locked and time.time() - run_file.mark[1] / 1e9 < GRACE_SECONDS
        needed = run_file.number and (young or any(stem in stems for stems in remaining))
        if needed and _is_empty(listed.uri(run_file)):
            if files.is_old_place(run_file.file):
                _move(root, table, stem, listed.uri(run_file))
            continue
        storage.delete(listed.uri(run_file))


def _is_empty(uri: str) -> bool:
    return len(table_file.read_file(uri, ["key"])) == 0


def _is_worth_rewriting(uri: str, superseded: int) -> bool:
    """Whether a merged file is small, in an old place, or a quarter of its runs are superseded."""
    if files.is_old_place(uri):
        return True
    metadata = table_file.open_file(uri).metadata
    size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    return size < PART_BYTES // 2 or superseded > len(files.read_index(uri)) / 4


def _inputs(
    listed: TableFiles,
    rewritten: Sequence[str],
    small: dict[str, RunFile],
    progress: Progress | None,
) -> Iterator[tuple[pa.Table, list[Entry]]]:
    """Yield the rows to be merged, with the index entries of their runs: name, number and key."""
    for uri in rewritten:
        superseded = listed.merged[uri]
        yield (
            table_file.without_keys(table_file.read_file(uri), superseded),
            table_file.without_keys(files.read_index(uri), superseded).to_pylist(),
        )
    ordered = sorted(small.items())
    tables = joined_rows.read_run_files(listed, [run_file for _, run_file in ordered], progress)
    for (stem, run_file), rows in zip(ordered, tables, strict=True):
        if len(rows):
            key = rows["key"][0].as_py()
            yield rows, [{"name": stem, "number": run_file.number, "key": key}]
        else:
            yield rows, []


def _remove_unfinished(folder: str, locked: bool) -> None:
    """Remove merged files without an index, which a compaction that was killed has left."""
    marks = storage.stamps(folder, ".parquet")
    for file, mark in marks.items():
        unfinished = not file.endswith(files.INDEX_SUFFIX) and files.index_uri(file) not in marks
        if unfinished and (locked or time.time() - mark[1] / 1e9 > GRACE_SECONDS):
            storage.delete(storage.join(folder, file))


def _write_merged(folder: str, rows: pa.Table, entries: list[Entry]) -> None:
    """Write a merged file, then the index that makes it count."""
    if not entries:
        return
    uri = storage.join(folder, f"{uuid.uuid4().hex}.parquet")
    index = pa.Table.from_pylist(entries, schema=_INDEX)
    index = index.take(pc.sort_indices(index["name"]))
    storage.write(uri, table_file.encode_parquet(rows, large=True))
    storage.write(files.index_uri(uri), table_file.encode_parquet(index, large=True))
