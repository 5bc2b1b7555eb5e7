"""The rows of many small files, read by several threads and joined."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa

from sadcl.results import schema, table_file
from sadcl.results.files import RunFile, TableFiles

READ_AHEAD = 64
"""Files whose content is in memory at once, if they are yielded one by one."""
GROUP_FILES, GROUP_BYTES = 64, 16 << 20
"""Up to so many new files, with up to so many bytes, are read and joined by one thread."""
READERS = 4
"""Threads that read files."""
MAX_PENDING = 512
"""Small tables that wait to be joined; more would take more memory, and time, than one table."""
MAX_ESTIMATED_ROWS = 1000
"""Up to so many rows take as many bytes each as those before: to count them takes long."""
Progress = Callable[[int, int], None]
"""Called with how many files were handled, and of how many."""
Entry = dict[str, object]
"""What an index says of one file that a part, or a merged file, has the rows of."""


def read_groups(
    listed: TableFiles,
    new_files: Sequence[RunFile],
    progress: Progress | None,
    names: Collection[str] | None,
) -> Iterator[tuple[pa.Table, list[Entry]]]:
    """Yield the rows of several new files at once, with their entries, in the order of the files.

    Threads read and join them: Arrow works without the lock of Python.

    Args:
        names: of the columns to read, as :func:`sadcl.results.table_file.read_joined` takes them.
    """

    def read(group: Sequence[RunFile]) -> tuple[pa.Table, list[Entry]]:
        rows, keys = table_file.read_joined([listed.uri(one) for one in group], names)
        entries: list[Entry] = [
            {"file": one.file, "size": one.mark[0], "time": one.mark[1], "key": key}
            for one, key in zip(group, keys, strict=True)
        ]
        return rows, entries

    done, waiting = 0, deque[Future[tuple[pa.Table, list[Entry]]]]()
    with ThreadPoolExecutor(READERS) as pool:
        for group in itertools.chain(_groups(new_files), [None] * READERS):
            if group is not None:
                waiting.append(pool.submit(read, group))
            if waiting and (group is None or len(waiting) > READERS):
                rows, entries = waiting.popleft().result()
                yield rows, entries
                done += len(entries)
                if progress is not None:
                    progress(done, len(new_files))


def _groups(new_files: Sequence[RunFile]) -> Iterator[list[RunFile]]:
    """Split files into groups of at most :data:`GROUP_FILES` and about :data:`GROUP_BYTES`."""
    group, size = list[RunFile](), 0
    for one in new_files:
        group.append(one)
        size += one.mark[0]
        if len(group) == GROUP_FILES or size > GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def read_run_files(
    listed: TableFiles,
    run_files: Sequence[RunFile],
    progress: Progress | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[pa.Table]:
    """Yield the content of runs' own files in their order, few of them in memory at once.

    Args:
        columns: those to read; None is all.
    """
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(run_files), READ_AHEAD):
            yield from pool.map(
                lambda one: table_file.read_file(listed.uri(one), columns),
                run_files[start : start + READ_AHEAD],
            )
            if progress is not None:
                progress(min(start + READ_AHEAD, len(run_files)), len(run_files))


def batches(
    source: Iterable[tuple[pa.Table, list[Entry]]], max_bytes: int
) -> Iterator[tuple[pa.Table, list[Entry]]]:
    """Join tables until they have so many bytes.

    Yields:
        Each joined table, sorted by key, with the index entries of the tables in it.
    """
    pending: list[pa.Table] = []
    entries: list[Entry] = []
    size = bytes_per_row = 0.0
    for rows, row_entries in source:
        pending.append(rows)
        entries += row_entries
        if not bytes_per_row or len(pending) == 1 or len(rows) > MAX_ESTIMATED_ROWS:
            bytes_per_row = rows.nbytes / max(len(rows), 1)
        size += len(rows) * bytes_per_row
        if len(pending) >= MAX_PENDING:
            pending = [table_file.concatenate(pending).combine_chunks()]
        if size >= max_bytes:
            yield _join_sorted(pending), entries
            pending, entries, size = [], [], 0.0
    if entries:
        yield _join_sorted(pending), entries


def _join_sorted(parts: Sequence[pa.Table]) -> pa.Table:
    import pyarrow.compute as pc

    joined = table_file.concatenate(parts)
    keys = joined["key"]
    if pc.any(pc.greater(keys[:-1], keys[1:])).as_py() is not False:
        joined = joined.sort_by("key")
    return joined.replace_schema_metadata(schema.metadata())
