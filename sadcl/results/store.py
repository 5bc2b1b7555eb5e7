"""The tables of one storage root: read tables and rows; change, reopen and delete a trial's rows.

A store is a folder, local or in an object store, with Parquet files below ``tables/`` (see
``files``) and a description of each study in ``studies/NAME.json``. It needs no server: each run
writes files of its own, which are replaced whole.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import fs

from sadcl import storage
from sadcl.errors import UserError
from sadcl.results import benchmarks, cache, files, schema, table_file
from sadcl.results.errors import BadFile, UnknownName
from sadcl.results.files import TABLES_FOLDER
from sadcl.results.status import Status

SEE_SCHEMA = "`sadcl results schema` prints all tables and columns."


def read(
    storage: str,
    table: str,
    columns: Iterable[str] | None = None,
    *,
    keys: Iterable[str] | None = None,
    progress: cache.Progress | None = None,
) -> pa.Table:
    """Read a table, or some of its columns or trials; what a file lacks is null.

    Args:
        storage: root of the tables: a folder, s3://... or gs://...
        table: ``trials``, ``epochs``, ``labels``, ``predictions``, ``studies``, ``benchmarks`` or
            ``published``.
        columns: those to read; None is all.
        keys: of the trials whose rows to read; None is all. Tables whose rows are not by trial
            ignore it.
        progress: called while many files are read for the first time.

    Returns:
        The rows; those of ``trials`` are sorted by key.

    Raises:
        UnknownName: for a table or column that does not exist.
        BadFile: for a file that does not belong to the tables.
        UserError: if the storage holds no tables.
    """
    names = None if columns is None else list(columns)
    if table not in schema.TRIAL_TABLES:
        rows = _read_other_table(storage, table)
        if names is None:
            return rows
        _check_columns(table, names, rows.column_names)
        return rows.select(names)
    check_store(storage)
    key_array = None if keys is None else pa.array(list(keys), pa.string())

    def attempt() -> pa.Table:
        needed = None if names is None else {name.lower() for name in names}
        parts = cache.table_parts(storage, table, progress, needed)
        if names is not None:
            existing = {column for one in parts.schemas() for column in one.names}
            if not existing.issuperset(names):  # the nearest name may be one that is not needed
                parts = cache.table_parts(storage, table, progress)
                _check_columns(table, names, [c for one in parts.schemas() for c in one.names])
        return _read_parts(parts, names, key_array)

    rows = files.retry_if_vanished(attempt)
    if table == "trials":
        rows = rows.sort_by("key")
    return rows if names is None else rows.select(names)


def _read_parts(
    parts: cache.TableParts, columns: list[str] | None, keys: pa.Array | None
) -> pa.Table:
    """Read the rows that count.

    The tables in memory come first, because the first of them has the schema's columns in order.
    """
    needed = None if columns is None else list(dict.fromkeys([*columns, "key"]))

    def select(rows: pa.Table) -> pa.Table:
        if needed is not None:
            rows = rows.select([name for name in needed if name in rows.column_names])
        if keys is None:
            return rows
        import pyarrow.compute as pc

        return rows.filter(pc.is_in(rows["key"], value_set=keys))

    on_disk = [
        select(table_file.without_keys(table_file.read_file(path, needed), superseded))
        for path, superseded in parts.paths.items()
    ]
    return table_file.concatenate([*map(select, parts.rows), *on_disk])


def _read_other_table(root: str, table: str) -> pa.Table:
    if table not in table_names():
        raise UnknownName("table", table, table_names(), remedy=SEE_SCHEMA)
    if table == "published":
        from sadcl.results import published

        return published.table()
    check_store(root)
    return benchmarks.read_benchmarks(root) if table == "benchmarks" else studies_table(root)


def _check_columns(table: str, columns: list[str], existing: Iterable[str]) -> None:
    names = dict.fromkeys(existing)
    for column in columns:
        if column not in names:
            raise UnknownName("column", column, names, f"the table {table}", SEE_SCHEMA)


def check_folders(root: str) -> None:
    """Check that no file stands where a storage, or a folder of it, is to be.

    Raises:
        UserError: if one does.
    """
    for folder in (TABLES_FOLDER, "studies"):
        storage.check_folder(storage.join(root, folder))


def is_store(root: str) -> bool:
    """Return whether a place holds tables.

    Raises:
        UserError: if a file stands where they are to be.
    """
    check_folders(root)
    return storage.exists(storage.join(root, TABLES_FOLDER))


def check_store(root: str) -> None:
    """Check that a place holds tables.

    Raises:
        UserError: if it does not.
    """
    if is_store(root):
        return
    if not storage.exists(root):
        reason = "there is no such folder. Give the --storage of a run, or start a run first."
    elif storage.exists(storage.join(root, "studies")):
        reason = "a study was started there, and none of its runs has written a row yet."
    else:
        reason = f"it has no folder {TABLES_FOLDER!r}. Give the --storage of a run."
    raise UserError(f"{str(root)!r} holds no results: {reason}")


def table_names() -> list[str]:
    """Return the names of all tables."""
    return [*schema.TABLES, "published"]


def studies_table(root: str) -> pa.Table:
    """Make the studies table: a row for each study that has a description or trials."""
    from_trials = _studies_of_trials(root)
    rows = []
    for name in sorted({*recorded_studies(root), *from_trials}):
        record, trials = study_record(root, name), from_trials.get(name, {})
        datasets = record.get("datasets") or {}
        digests = {
            what: [dataset.get(what) for dataset in datasets.values()] or [record.get(what)]
            for what in ("base", "data")
        }
        rows.append(
            {
                "study": name,
                "kind": record.get("kind"),
                "question": record.get("question"),
                "scale": record.get("scale") or trials.get("scale"),
                "datasets": sorted({*datasets, *trials.get("datasets", ())}),
                "base_digest": " ".join(str(d) for d in digests["base"] if d) or None,
                "data_digest": " ".join(str(d) for d in digests["data"] if d) or None,
                "created": trials.get("started"),
                "about": json.dumps(record, sort_keys=True) if record else None,
            }
        )
    return pa.Table.from_pylist(
        rows, schema=pa.schema([(name, kind) for name, (kind, _) in schema.STUDIES.items()])
    )


def _studies_of_trials(root: str) -> dict[str, dict[str, Any]]:
    """Return data sets, scale and first start of each study that has trials."""
    studies: dict[str, dict[str, Any]] = {}
    for trial in read(root, "trials", ["study", "dataset", "scale", "started"]).to_pylist():
        if trial["study"] is None:
            continue
        study = studies.setdefault(
            trial["study"],
            {"datasets": set(), "scale": trial["scale"], "started": trial["started"]},
        )
        study["datasets"] |= {trial["dataset"]} - {None}
        starts = filter(None, (study["started"], trial["started"]))
        study["started"] = min(starts, default=None)
    return studies


def recorded_studies(root: str) -> list[str]:
    """Return the names of the studies that have a description, sorted."""
    return [
        name.removesuffix(".json")
        for name in storage.listing(storage.join(root, "studies"), ".json")
    ]


def study_record(root: str, study: str) -> dict[str, Any]:
    """Read a study's description from ``studies/NAME.json``; empty if there is none.

    Raises:
        BadFile: if the file is damaged or cannot be read.
    """
    remedy = "Move it away; running the study again writes it anew."
    uri = storage.join(root, "studies", f"{study}.json")
    try:
        record = json.loads(storage.read(uri))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BadFile(uri, f"is damaged: {str(error).rstrip('.')}", remedy) from None
    except OSError as error:
        reason = error.strerror or str(error).rstrip(".")
        raise BadFile(uri, f"cannot be read: {reason}", remedy) from None
    return record if isinstance(record, dict) else {}


def row_of(root: str, key: str) -> dict[str, Any] | None:
    """Return a trial's row of the trials table; None if there is none."""
    rows = newest_rows(root, "trials", key)[1]
    return rows[0] if rows else None


def trials_of(root: str, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of the trials table of some keys, in their order.

    Only these trials' files are read. All rows have the same columns. A key that is gone by now is
    left out.
    """

    def attempt() -> list[dict[str, Any]]:
        keys_by_file: dict[str, list[str]] = {}
        for place, key in zip(files.locate_all(root, "trials", keys), keys, strict=True):
            if place.uri is not None:
                keys_by_file.setdefault(place.uri, []).append(key)
        found = [table_file.read_rows_of(uri, *some) for uri, some in keys_by_file.items()]
        rows = table_file.concatenate([schema.empty_table("trials"), *found]).to_pylist()
        by_key: dict[str, dict[str, Any]] = {row["key"]: row for row in rows}
        return [by_key[key] for key in keys if key in by_key]

    return files.retry_if_vanished(attempt)


def epochs_of(root: str, key: str) -> list[dict[str, Any]]:
    """Return a trial's rows of the epochs table, in order."""
    return newest_rows(root, "epochs", key)[1]


def rows_of(root: str, table: str, key: str) -> list[dict[str, Any]]:
    """Return a trial's rows of a table."""
    return newest_rows(root, table, key)[1]


def arrow_rows_of(root: str, table: str, key: str) -> pa.Table:
    """Return a trial's rows of a table as an Arrow table."""

    def attempt() -> pa.Table:
        uri = files.locate(root, table, key).uri
        if uri is None:
            return schema.empty_table(table)
        return table_file.read_rows_of(uri, key)

    return files.retry_if_vanished(attempt)


def curve(root: str, key: str) -> dict[int, float]:
    """Return the held-out mAP in percent of each epoch of a trial's last stage."""
    epochs = epochs_of(root, key)
    last_stage = max((epoch["stage"] for epoch in epochs), default=0)
    return {
        epoch["epoch"]: epoch["val_mAP"]
        for epoch in epochs
        if epoch["stage"] == last_stage and epoch["val_mAP"] is not None
    }


def amend(root: str, key: str, **columns: Any) -> None:
    """Change columns of a trial's row; without such a row nothing happens."""
    location, rows = newest_rows(root, "trials", key)
    for row in rows:
        is_open = row["status"] == Status.RUNNING and not files.is_old_place(location.uri or "")
        next_number = location.number if is_open else location.number + 1
        content = schema.to_table("trials", [{**row, **columns}])
        write_run_file(root, "trials", key, next_number, content)


def reopen(root: str, key: str) -> None:
    """Turn an ended trial into an interrupted one, to be resumed from its last checkpoint."""
    amend(root, key, status=Status.RUNNING.value, cause=None, ended=None)


def delete(root: str, *keys: str) -> None:
    """Delete the rows of trials from all tables.

    The rows of the trials table go last, so that a deletion that was interrupted can be repeated.
    """
    with compaction_lock(root) as locked:
        for table in reversed(schema.TRIAL_TABLES):
            for key, location in zip(keys, files.locate_all(root, table, keys), strict=True):
                if location.number < 0:
                    continue
                # An empty file of a higher number outranks rows in a merged file, also in one that
                # another process is writing right now to a store without locks.
                if not locked or location.in_merged:
                    write_run_file(root, table, key, location.number + 1, schema.empty_table(table))
                for uri in location.run_files:
                    storage.delete(uri)


@contextlib.contextmanager
def compaction_lock(root: str) -> Iterator[bool]:
    """Hold the lock under which files are merged and rows deleted.

    Yields:
        Whether it is held; False on an object store, which has no locks.
    """
    local = isinstance(storage.resolve(root)[0], fs.LocalFileSystem)
    with storage.exclusive(storage.join(root, TABLES_FOLDER, ".merging.lock"), wait=True):
        yield local


def write_run_file(root: str, table: str, key: str, number: int, rows: pa.Table) -> None:
    """Write a run's own file of a table, and delete the one that it replaces."""
    uri = files.run_uri(root, table, key, number)
    storage.write(uri, table_file.encode(rows, uri))
    for folder, suffix in files.run_folders(root, table).items() if number else ():
        file = files.file_name(files.file_stem(key), number - 1, suffix)
        storage.delete(storage.join(folder, file))


def newest_rows(root: str, table: str, key: str) -> tuple[files.RunLocation, list[dict[str, Any]]]:
    """Return where the newest rows of a trial are, and the rows."""

    def attempt() -> tuple[files.RunLocation, list[dict[str, Any]]]:
        location = files.locate(root, table, key)
        if location.uri is None:
            return location, []
        return location, table_file.read_rows_of(location.uri, key).to_pylist()

    return files.retry_if_vanished(attempt)
