"""Which files hold a table now, and which of their rows count; readers take no lock.

Each run writes a file of its own in each table, ``NAME.arrow``, and replaces it while it runs (of
predictions it is ``NAME.parquet``, because they are large). A file of a run that has ended is never
changed. Whatever changes such a run's rows writes ``NAME~1.arrow``, then ``NAME~2.arrow``: the
highest number counts, and a file without rows says that the rows were removed.

A merged file (``ID.parquet``) has the rows of many runs; ``ID.index.parquet`` lists the names and
numbers of the files that it stands for. Its rows of a run count unless there is a higher number
anywhere, or a file of the run's own with the same number. A merged file appears before its index,
and both before anything that they stand for is removed. So whoever lists the same merged files
before and after listing the others has seen the table at one moment.

All of them are below ``tables/_runs`` and ``tables/_merged``, where no other program looks for
data. Those programs read the files of ``published_tables``, which this module leaves out. Versions
before the third wrote ``tables/TABLE/NAME.parquet`` and ``tables/TABLE/merged/ID.parquet``: the
same rules hold for them, and of equal numbers the newer place counts.
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

TABLES_FOLDER, INDEX_SUFFIX = "tables", ".index.parquet"
RUNS_FOLDER, MERGED_FOLDER, OLD_MERGED_FOLDER = "_runs", "_merged", "merged"
PUBLISHED_SUFFIX = ".rows.parquet"
"""Of the files for other programs, which have a place but no say among the others."""
MAX_RETRIES = 100
T = TypeVar("T")


@dataclass(frozen=True)
class RunFile:
    """A run's own file in a table.

    Attributes:
        file: its path below ``tables/``.
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
        folder: URI of the folder of all tables.
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
        run_files: URIs of the run's own files.
        in_merged: whether any merged file has rows of the run, counted or not.
    """

    number: int
    uri: str | None
    run_files: Sequence[str]
    in_merged: bool


def table_folder(root: str, table: str) -> str:
    """Return the URI of a table's folder."""
    return storage.join(root, TABLES_FOLDER, table)


def run_folders(root: str, table: str) -> dict[str, str]:
    """Return the suffix of runs' own files by their folder's URI: where they are written, first."""
    return {
        storage.join(root, TABLES_FOLDER, RUNS_FOLDER, table): (
            ".parquet" if table == "predictions" else ".arrow"
        ),
        table_folder(root, table): ".parquet",
    }


def merged_folders(root: str, table: str) -> tuple[str, str]:
    """Return the URIs of the folders of merged files: where they are written, first."""
    new = storage.join(root, TABLES_FOLDER, MERGED_FOLDER, table)
    return new, storage.join(table_folder(root, table), OLD_MERGED_FOLDER)


def file_stem(key: str) -> str:
    """Return a safe file name, without suffix, that no other key has."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", key).lstrip(".")[:120]
    return plain if plain == key else f"{plain}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def run_uri(root: str, table: str, key: str, number: int) -> str:
    """Return where a run's file of that number is written."""
    folder, suffix = next(iter(run_folders(root, table).items()))
    return storage.join(folder, file_name(file_stem(key), number, suffix))


def file_name(stem: str, number: int, suffix: str) -> str:
    """Return the name of a run's file of that number."""
    return f"{stem}~{number}{suffix}" if number else f"{stem}{suffix}"


def split_file_name(file: str) -> tuple[str, int]:
    """Split a file's name or URI into a run's stem and the number; other names have number 0."""
    name = file.rpartition("/")[2].removesuffix(".arrow").removesuffix(".parquet")
    stem, _, number = name.partition("~")
    return (stem, int(number)) if number.isdecimal() else (name, 0)


def is_old_place(file: str) -> bool:
    """Return whether a file, by path or URI, is where versions before the third wrote it."""
    return not {RUNS_FOLDER, MERGED_FOLDER} & set(file.split("/")[-3:-2])


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
    return retry_if_vanished(lambda: _list_once(root, table))


def _list_once(root: str, table: str) -> TableFiles:
    uris = _merged_uris(root, table)
    marks: dict[str, tuple[int, int]] = {}
    for folder, suffix in run_folders(root, table).items():
        below = folder.removeprefix(storage.join(root, TABLES_FOLDER)).lstrip("/")
        for file, mark in storage.stamps(folder, suffix).items():
            if not file.endswith(PUBLISHED_SUFFIX):
                marks[f"{below}/{file}"] = mark
    # A listing is not of one moment: while it runs, one file may take the place of another, and
    # neither be in it.
    tables = storage.join(root, TABLES_FOLDER)
    if _merged_uris(root, table) != uris or _run_uris(root, table) != {
        storage.join(tables, file) for file in marks
    }:
        raise FileVanished
    run_files: dict[str, RunFile] = {}
    replaced = []
    for file, mark in marks.items():
        stem, number = split_file_name(file)
        newest, other = RunFile(file, number, mark), run_files.get(stem)
        if other is not None:
            is_newer = (number, is_old_place(other.file)) > (other.number, is_old_place(file))
            newest, older = (newest, other) if is_newer else (other, newest)
            replaced.append(older)
        run_files[stem] = newest
    if not uris or (len(uris) == 1 and not run_files):
        return TableFiles(tables, run_files, dict.fromkeys(uris, ()), replaced)
    return _choose_newest(TableFiles(tables, run_files, {}, replaced), uris)


def _merged_uris(root: str, table: str) -> list[str]:
    return [
        storage.join(folder, index.removesuffix(INDEX_SUFFIX) + ".parquet")
        for folder in merged_folders(root, table)
        for index in storage.listing(folder, INDEX_SUFFIX)
    ]


def _run_uris(root: str, table: str, prefixes: tuple[str, ...] = ("",)) -> set[str]:
    return {
        storage.join(folder, file)
        for folder, suffix in run_folders(root, table).items()
        for file in storage.names(folder, suffix)
        if file.startswith(prefixes) and not file.endswith(PUBLISHED_SUFFIX)
    }


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
    return retry_if_vanished(lambda: _locate_once(root, table, [file_stem(key) for key in keys]))


def _locate_once(root: str, table: str, stems: Sequence[str]) -> list[RunLocation]:
    def list_run_files() -> dict[str, list[str]]:
        run_files: dict[str, list[str]] = {stem: [] for stem in stems}
        few = tuple(stems) if len(stems) < 10 else ("",)  # the others are not looked at
        for uri in sorted(_run_uris(root, table, few)):
            run_files.get(split_file_name(uri)[0], []).append(uri)
        return run_files

    run_files, merged = list_run_files(), _merged_uris(root, table)
    if list_run_files() != run_files or _merged_uris(root, table) != merged:
        raise FileVanished
    # Number, place, URI: of equal numbers the run's own file counts, and of two the newer place.
    newest = {
        stem: max(
            ((split_file_name(uri)[1], 2 - is_old_place(uri), uri) for uri in uris),
            default=(-1, 0, ""),
        )
        for stem, uris in run_files.items()
    }
    merged_stems = set()
    for uri in merged:
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
