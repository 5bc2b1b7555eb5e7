"""The tables for other programs: plain Parquet files in which each row is there once.

``tables/TABLE/STUDY.rows.parquet`` has the rows of one study (of predictions, those of one run). A
row never changes its file, and a file is replaced whole, so whoever reads ``tables/TABLE`` sees
each row once at any moment, without any rule to apply. All files of a table have the same columns
in the same order, each with its type.

They are copies: nothing here is read by this package, and they can be made again at any time.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from sadcl import storage
from sadcl.errors import UserError
from sadcl.results import compact, files, schema, store, table_file

INTERVAL = 10.0
"""Least seconds between two publications of a study that runs."""
SHARE = 0.05
"""Most of the driver's time that publishing may take while a study runs."""
LEAST_MERGED = 64
"""Files of a table that are merged when a study ends; fewer are read as quickly as they are."""
MANY = 512
"""Files of a table that are merged while a study runs, so that looking for one stays quick."""


def publish(root: str, studies: Iterable[str | None] | None = None) -> None:
    """Write the tables of some studies, or of all, for other programs.

    Args:
        root: of the store.
        studies: None is all; then the files of studies that are gone are removed too.

    Raises:
        BadFile: for a file that does not belong to the tables.
        UserError: if the root is not a store.
    """
    store.check_store(root)
    # Under the lock the rows are read and written, so that older ones never replace newer ones.
    lock = storage.join(root, files.TABLES_FOLDER, ".publishing.lock")
    with storage.exclusive(lock, wait=True):
        trials = store.read(root, "trials")
        all_studies = set(trials["study"].to_pylist())
        names = all_studies if studies is None else {*studies, *_unpublished(root, all_studies)}
        losing = files.retry_if_vanished(lambda: _studies_that_lost_runs(root, trials, names))
        keys = {
            name: trials["key"].filter(_is_of(trials, name)).to_pylist()
            for name in (*losing, *sorted(names, key=str))
        }
        for table in ("trials", "epochs", "labels"):
            has_old_places = bool(_stems_in_old_place(root, table))
            for name, own_keys in keys.items():
                rows = (
                    trials.filter(_is_of(trials, name))
                    if table == "trials"
                    else store.read(root, table, keys=own_keys)
                )
                if has_old_places:
                    rows = _not_in_old_place(root, table, rows)
                _write_study(root, table, name, rows)
            if studies is None:
                _remove_others(root, table, {_study_file(name) for name in keys})
        all_keys = {key for own in keys.values() for key in own}
        files.retry_if_vanished(lambda: _publish_predictions(root, all_keys, studies is None))


def _unpublished(root: str, studies: set[str | None]) -> set[str | None]:
    """Return the studies without any file, as all are in the storage of an older version."""
    present = storage.names(files.table_folder(root, "trials"), files.PUBLISHED_SUFFIX)
    return {study for study in studies if _study_file(study) not in present}


def _not_in_old_place(root: str, table: str, rows: pa.Table) -> pa.Table:
    """Return the rows without those that other programs read from a run's own file.

    An older version writes such a file while the run is active, and merging moves it afterwards.
    """
    old = _stems_in_old_place(root, table)
    keys = rows["key"].unique().to_pylist()
    return table_file.without_keys(rows, [key for key in keys if files.file_stem(key) in old])


def _stems_in_old_place(root: str, table: str) -> set[str]:
    listed = files.list_table(root, table)
    return {stem for stem, one in listed.run_files.items() if files.is_old_place(one.file)}


def _studies_that_lost_runs(
    root: str, trials: pa.Table, names: set[str | None]
) -> list[str | None]:
    """Return the other studies whose files have a run that is now of one of these studies.

    That is a stage 1 that failed in one study and was trained again by the next. It leaves the one
    file before it comes into the other.
    """
    study_of = dict(zip(trials["key"].to_pylist(), trials["study"].to_pylist(), strict=True))
    folder, own_files = files.table_folder(root, "trials"), {_study_file(name) for name in names}
    lost: set[str | None] = set()
    for file, stamp in storage.stamps(folder, files.PUBLISHED_SUFFIX).items():
        if file not in own_files:
            for key, study in _published_runs(storage.join(folder, file), stamp):
                if study_of.get(key, study) != study and study_of[key] in names:
                    lost.add(study)
    return sorted(lost, key=str)


_runs_of_files: dict[str, tuple[tuple[int, int], list[tuple[str, str | None]]]] = {}
"""Key and study of each row of a published file that was read, with the stamp it had then."""


def _published_runs(uri: str, stamp: tuple[int, int]) -> list[tuple[str, str | None]]:
    """Return key and study of each row of a published file; while it stays as it is, read once.

    Other studies' files hardly change while a study runs, and it publishes every ten seconds.
    """
    if uri not in _runs_of_files or _runs_of_files[uri][0] != stamp:
        rows = table_file.read_file(uri, ["key", "study"])
        pairs = zip(rows["key"].to_pylist(), rows["study"].to_pylist(), strict=True)
        _runs_of_files[uri] = stamp, list(pairs)
    return _runs_of_files[uri][1]


def _is_of(trials: pa.Table, study: str | None) -> pa.ChunkedArray:
    if study is None:
        return pc.is_null(trials["study"])
    return pc.fill_null(pc.equal(trials["study"], pa.scalar(study, pa.string())), False)


def _study_file(study: str | None) -> str:
    # No study's name gives a stem with ~.
    stem = "no-study~" if study is None else files.file_stem(study)
    return f"{stem}{files.PUBLISHED_SUFFIX}"


def _write_study(root: str, table: str, study: str | None, rows: pa.Table) -> None:
    uri = storage.join(files.table_folder(root, table), _study_file(study))
    if not len(rows):
        storage.delete(uri)
        return
    order = [(name, "ascending") for name in schema.KEYS[table] if name in rows.column_names]
    rows = conform(rows.sort_by(order), table)
    storage.write(uri, table_file.encode_parquet(rows, large=True))


def conform(rows: pa.Table, table: str) -> pa.Table:
    """Give a table's rows all of its columns, in order and typed, then the columns of one's own.

    A column of another type that cannot be converted stays as it is.
    """
    columns: dict[str, pa.ChunkedArray] = {}
    for name, (kind, _) in schema.columns_of(table).items():
        column = rows[name] if name in rows.column_names else None
        if column is None or pa.types.is_null(column.type):
            column = pa.chunked_array([pa.nulls(len(rows), kind)])
        with contextlib.suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):
            column = column.cast(kind)
        columns[name] = column
    for name in sorted(set(rows.column_names) - columns.keys()):
        if not pa.types.is_null(rows[name].type):
            columns[name] = rows[name]
    return pa.table(columns).replace_schema_metadata(schema.metadata())


def _remove_others(root: str, table: str, expected: set[str]) -> None:
    folder = files.table_folder(root, table)
    for name in storage.listing(folder, files.PUBLISHED_SUFFIX):
        if name not in expected:
            storage.delete(storage.join(folder, name))


def _publish_predictions(root: str, keys: set[str], everything: bool) -> None:
    """Publish the file of each run, which is large: on a disk both names are one file."""
    folder = files.table_folder(root, "predictions")
    published = storage.stamps(folder, files.PUBLISHED_SUFFIX)
    listed = files.list_table(root, "predictions")
    expected = set()
    for stem in map(files.file_stem, keys):
        run_file = listed.run_files.get(stem)
        if run_file is None or files.is_old_place(run_file.file):  # it is read where it is
            continue
        name = f"{stem}{files.PUBLISHED_SUFFIX}"
        if run_file.number and table_file.open_file(listed.uri(run_file)).metadata.num_rows == 0:
            continue
        expected.add(name)
        size, changed = published.get(name, (-1, 0))
        if size != run_file.mark[0] or changed < run_file.mark[1]:
            table_file.copy(listed.uri(run_file), storage.join(folder, name))
    if everything:
        _remove_others(root, "predictions", expected)


@contextlib.contextmanager
def kept_up_to_date(root: str, study: str) -> Iterator[None]:
    """Publish a study's tables while the block runs, and merge and publish them at its end.

    What fails here fails no study: the tables themselves are not touched by publishing.
    """
    stop = threading.Event()
    thread = threading.Thread(target=_publish_repeatedly, args=(root, study, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        finish(root, [study])


def _publish_repeatedly(root: str, study: str, stop: threading.Event) -> None:
    wait, before = INTERVAL, None
    while not stop.wait(wait):
        start = time.perf_counter()
        with contextlib.suppress(OSError, UserError):
            now = [files.list_table(root, table) for table in schema.TRIAL_TABLES]
            if now != before:
                _merge_and_publish(root, [study], MANY)
                before = now
        wait = max(INTERVAL, (time.perf_counter() - start) / SHARE)


def finish(root: str, studies: Sequence[str]) -> None:
    """Merge the files of ended runs if they are many, and publish the tables of some studies."""
    with contextlib.suppress(OSError, UserError):
        _merge_and_publish(root, studies, LEAST_MERGED)


def _merge_and_publish(root: str, studies: Sequence[str], least: int) -> None:
    merged = compact.compact(root, least=least)
    # What was moved from an old place may be of any study, and is read nowhere until published.
    publish(root, None if any(one.moved for one in merged) else studies)
