"""Which files hold a table now, and which of their rows count; readers take no lock.

Each run writes a file of its own in each table, ``NAME.parquet``, and replaces it while it runs. A
file of a run that has ended is never changed. Whatever changes such a run's rows writes
``NAME~1.parquet``, then ``NAME~2.parquet``: the highest number counts, and a file without rows says
that the rows were removed.

A merged file (``merged/ID.parquet``) has the rows of many runs; ``merged/ID.index.parquet`` lists
the names and numbers of the files that it stands for. Its rows of a run count unless there is a
higher number anywhere, or a file of the run's own with the same number. A merged file appears
before its index, and both before anything that they stand for is removed. So whoever lists the same
merged files before and after listing the others has seen the table at one moment.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from sadcl import storage
from sadcl.errors import UserError
from sadcl.results.errors import FileVanished
from sadcl.results.table_file import read_bytes

TABLES_FOLDER, MERGED_FOLDER, INDEX_SUFFIX = "tables", "merged", ".index.parquet"
MAX_RETRIES = 100
T = TypeVar("T")


@dataclass(frozen=True)
class RunFile:
    """A run's own file in a table.

    Attributes:
        file: its name.
        number: how often the rows were replaced after the run had ended.
        mark: its size in bytes, and the time of its last change in nanoseconds.
    """

    file: str
    number: int
    mark: tuple[int, int]


@dataclass(frozen=True)
class TableFiles:
    """The files of a table at one moment.

    Attributes:
        folder: URI of the table's folder.
        run_files: the runs' own files that count, by the name that :func:`file_stem` gives the run.
        merged: the superseded keys of each merged file, by its URI: their rows in it do not count.
        replaced: runs' own files that a higher number has replaced.
    """

    folder: str
    run_files: Mapping[str, RunFile] = field(default_factory=dict)
    merged: Mapping[str, Sequence[str]] = field(default_factory=dict)
    replaced: Sequence[RunFile] = ()

    def uri(self, run_file: RunFile) -> str:
        """Return the URI of a run's own file."""
        return storage.join(self.folder, run_file.file)


@dataclass(frozen=True)
class RunLocation:
    """Where the rows of one run are.

    Attributes:
        number: of the newest file that has them; -1 if there is none.
        uri: of that file; None if there is none.
        run_files: names of the run's own files.
        in_merged: whether any merged file has rows of the run, counted or not.
    """

    number: int
    uri: str | None
    run_files: Sequence[str]
    in_merged: bool


def table_folder(root: str, table: str) -> str:
    """Return the URI of a table's folder."""
    return storage.join(root, TABLES_FOLDER, table)


def file_stem(key: str) -> str:
    """Return a safe file name, without suffix, that no other key has."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", key).lstrip(".")[:120]
    return plain if plain == key else f"{plain}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def file_name(stem: str, number: int) -> str:
    """Return the name of a run's file of that number."""
    return f"{stem}~{number}.parquet" if number else f"{stem}.parquet"


def split_file_name(file: str) -> tuple[str, int]:
    """Split a file name into a run's stem and the number; any other name has the number 0."""
    stem, _, number = file.removesuffix(".parquet").partition("~")
    return (stem, int(number)) if number.isdecimal() else (file.removesuffix(".parquet"), 0)


def retry_if_vanished(attempt: Callable[[], T]) -> T:
    """Repeat an attempt as long as a file vanishes between listing and reading; return its result.

    Raises:
        UserError: after a hundred attempts.
        OSError: if the storage fails for longer than :func:`sadcl.storage.retry` waits.
    """
    for _ in range(MAX_RETRIES):
        try:
            return storage.retry(attempt)
        except FileVanished:
            continue
    raise UserError(
        "The tables change faster than they can be read. Try again when fewer processes write or "
        "compact them."
    )


def list_table(root: str, table: str) -> TableFiles:
    """List the files of a table at one moment."""
    return retry_if_vanished(lambda: _list_once(table_folder(root, table)))


def _list_once(folder: str) -> TableFiles:
    merged = storage.join(folder, MERGED_FOLDER)
    indices = storage.listing(merged, INDEX_SUFFIX)
    marks = storage.stamps(folder, ".parquet")
    # A listing is not of one moment: while it runs, one file may take the place of another, and
    # neither be in it.
    if (
        storage.listing(merged, INDEX_SUFFIX) != indices
        or storage.names(folder, ".parquet") != marks.keys()
    ):
        raise FileVanished
    run_files: dict[str, RunFile] = {}
    replaced = []
    for file, mark in marks.items():
        stem, number = split_file_name(file)
        newest, other = RunFile(file, number, mark), run_files.get(stem)
        if other is not None:
            newest, older = (newest, other) if number > other.number else (other, newest)
            replaced.append(older)
        run_files[stem] = newest
    uris = [
        storage.join(merged, index.removesuffix(INDEX_SUFFIX) + ".parquet") for index in indices
    ]
    if not uris or (len(uris) == 1 and not run_files):
        return TableFiles(folder, run_files, dict.fromkeys(uris, ()), replaced)
    return _choose_newest(TableFiles(folder, run_files, {}, replaced), uris)


def _choose_newest(files: TableFiles, uris: Sequence[str]) -> TableFiles:
    """Decide for each run that is in several places which place counts."""
    run_files, replaced = dict(files.run_files), [*files.replaced]
    superseded: dict[str, list[str]] = {uri: [] for uri in uris}
    newest: dict[str, tuple[int, str, str]] = {}
    for uri, stem, number, key in _contested_entries(files, uris):
        run_file, candidate, other = run_files.get(stem), (number, uri, key), newest.get(stem)
        if run_file is not None and run_file.number >= number:
            superseded[uri].append(key)
            continue
        if run_file is not None:
            replaced.append(run_files.pop(stem))
        if other is not None:
            superseded[min(candidate, other)[1]].append(key)
        newest[stem] = candidate if other is None else max(candidate, other)
    return TableFiles(files.folder, run_files, superseded, replaced)


def _contested_entries(
    files: TableFiles, uris: Sequence[str]
) -> Iterator[tuple[str, str, int, str]]:
    """Yield URI, stem, number and key of each merged run that is in several places.

    Such a run is in another merged file too, or has a file of its own.
    """
    import pyarrow.compute as pc

    indices = [read_index(uri) for uri in uris]
    contested = list(files.run_files)
    if len(uris) > 1:
        stems = pa.chunked_array(
            [chunk for index in indices for chunk in index["name"].chunks], pa.string()
        )
        counts = pc.value_counts(stems)
        several = pc.greater(counts.field("counts"), pa.scalar(1, pa.int64()))
        contested += counts.field("values").filter(several).to_pylist()
    for uri, index in zip(uris, indices, strict=True):
        for row in _entries_of(index, contested):
            yield uri, row["name"], row["number"], row["key"]


def _entries_of(index: pa.Table, stems: Sequence[str]) -> list[dict[str, Any]]:
    import pyarrow.compute as pc  # takes a tenth of a query's time, and most queries do not need it

    return index.filter(pc.is_in(index["name"], value_set=pa.array(stems, pa.string()))).to_pylist()


def locate(root: str, table: str, key: str) -> RunLocation:
    """Find where one run's rows are, without a look at the files of other runs."""
    return locate_all(root, table, [key])[0]


def locate_all(root: str, table: str, keys: Sequence[str]) -> list[RunLocation]:
    """Find where the rows of several runs are, in the order of the keys."""
    return retry_if_vanished(
        lambda: _locate_once(table_folder(root, table), [file_stem(key) for key in keys])
    )


def _locate_once(folder: str, stems: Sequence[str]) -> list[RunLocation]:
    def list_run_files() -> dict[str, list[str]]:
        run_files: dict[str, list[str]] = {stem: [] for stem in stems}
        for file in sorted(storage.names(folder, ".parquet")):
            run_files.get(split_file_name(file)[0], []).append(file)
        return run_files

    merged = storage.join(folder, MERGED_FOLDER)
    run_files, indices = list_run_files(), storage.listing(merged, INDEX_SUFFIX)
    if list_run_files() != run_files or storage.listing(merged, INDEX_SUFFIX) != indices:
        raise FileVanished
    # Number, whether it is the run's own file, URI: of equal numbers the run's own file counts.
    newest = {
        stem: max(
            ((split_file_name(file)[1], 1, storage.join(folder, file)) for file in files),
            default=(-1, 0, ""),
        )
        for stem, files in run_files.items()
    }
    merged_stems = set()
    for index in indices:
        uri = storage.join(merged, index.removesuffix(INDEX_SUFFIX) + ".parquet")
        for row in _entries_of(read_index(uri), stems):
            merged_stems.add(row["name"])
            newest[row["name"]] = max(newest[row["name"]], (row["number"], 0, uri))
    return [
        RunLocation(newest[stem][0], newest[stem][2] or None, run_files[stem], stem in merged_stems)
        for stem in stems
    ]


@functools.lru_cache(maxsize=256)
def read_index(uri: str) -> pa.Table:
    """Read the index of a merged file: ``name``, ``number`` and ``key`` of each run in it.

    Args:
        uri: of the merged file; neither it nor its index ever changes.
    """
    content = read_bytes(index_uri(uri))
    return pq.ParquetFile(pa.BufferReader(content)).read()


def index_uri(uri: str) -> str:
    """Return the URI of a merged file's index."""
    return uri.removesuffix(".parquet") + INDEX_SUFFIX
