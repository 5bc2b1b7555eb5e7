"""The tables as Parquet files below one root: one file a trial and table, replaced whole, one writer each, no server."""

from __future__ import annotations

import difflib
import hashlib
import io
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sadcl import storage
from sadcl.errors import UserError
from sadcl.results import schema

FOLDER = "tables"


class RunWriter:
    """Writes the rows of one trial; opening it for a trial that was interrupted goes on with what is there.

    Every call leaves whole files behind, so that a crash loses at most the row being written.

    Args:
        root: of the store.
        key: of the trial.
        row: its columns of the trials table that are known at the start.
        ends: it will be finished at once, and is not said to be running before; others may do the same.
    """

    def __init__(self, root: str, key: str, row: Mapping[str, Any], *, ends: bool = False) -> None:
        self.root, self.key = root, key
        before = _rows(root, "trials", key)
        now = datetime.now(UTC)
        self.row: dict[str, Any] = {
            **row,
            "key": key,
            "status": "running",
            "cause": None,
            "started": before[0]["started"] if before else now,
            "schema_version": schema.VERSION,
        }
        self._begun = False
        self._epochs = {(e["stage"], e["epoch"]): e for e in _rows(root, "epochs", key)}
        if not ends:
            for table in schema.TABLES:
                storage.sweep(*_place(root, table, key))
            self._write("trials", [self.row])

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Add an epoch; one reported again takes the place of the former."""
        self._epochs[row["stage"], row["epoch"]] = {**row, "key": self.key, "study": self.row.get("study")}
        self._write("epochs", [self._epochs[at] for at in sorted(self._epochs)])

    def finish(
        self,
        status: str,
        *,
        cause: str | None = None,
        metrics: Mapping[str, Any] | None = None,
        labels: list[dict[str, Any]] | None = None,
    ) -> None:
        """End the trial as ``complete``, ``pruned`` or ``failed``; its row appears last, when all else is there."""
        if labels:
            study = self.row.get("study")
            self._write("labels", [{**label, "key": self.key, "study": study} for label in labels])
        self.row.update(metrics or {})
        self.row.update(status=status, cause=cause, ended=datetime.now(UTC), epochs_done=len(self._epochs))
        self._write("trials", [self.row])

    def _write(self, table: str, rows: list[dict[str, Any]]) -> None:
        content = schema.table(table, rows)
        storage.patiently(lambda: self._put(table, content))

    def _put(self, table: str, content: pa.Table) -> None:
        if self._begun and not storage.exists(_uri(self.root, "trials", self.key)):
            raise OSError(f"{self.root!r} no longer holds this run's row: is its disk still mounted?")
        _put(self.root, table, self.key, content)
        self._begun = True


def read(root: str, table: str) -> pa.Table:
    """A whole table: ``trials``, ``epochs`` or ``labels``; columns that a file lacks are null.

    Raises:
        UserError: for another table, a root that holds no tables, or a file that is not one of theirs.
    """
    if table not in schema.TABLES:
        raise UserError(f"There is no table {table!r}{nearest(table, schema.TABLES)}")
    if not storage.exists(storage.join(root, FOLDER)):
        raise UserError(f"{str(root)!r} holds no results: it has no folder {FOLDER!r}. Give the --storage of a run.")
    folder = storage.join(root, FOLDER, table)
    with ThreadPoolExecutor(8) as pool:
        uris = [storage.join(folder, name) for name in storage.listing(folder, ".parquet")]
        parts = [part for part in pool.map(_read_file, uris) if part is not None]
    return _together([schema.table(table, []), *parts])


def _together(parts: list[pa.Table]) -> pa.Table:
    """One table; a column of different kinds in different parts becomes words, and is null where a part lacks it."""
    kinds: dict[str, set[pa.DataType]] = {}
    for field in (field for part in parts for field in part.schema):
        if not pa.types.is_null(field.type):
            kinds.setdefault(field.name, set()).add(field.type)
    mixed = {name for name, found in kinds.items() if len(found) > 1}

    def alike(part: pa.Table) -> pa.Table:
        for i, field in enumerate(part.schema):
            if field.name in mixed:
                part = part.set_column(i, field.name, part[field.name].cast(pa.string()))
        return part

    return pa.concat_tables([alike(part) for part in parts], promote_options="permissive")


def row_of(root: str, key: str) -> dict[str, Any] | None:
    """A trial's row of the trials table; None where there is none."""
    rows = _rows(root, "trials", key)
    return rows[0] if rows else None


def epochs_of(root: str, key: str) -> list[dict[str, Any]]:
    """A trial's rows of the epochs table, in order."""
    return _rows(root, "epochs", key)


def curve(root: str, key: str) -> dict[int, float]:
    """Held-out mAP by epoch of a trial's last stage."""
    rows = epochs_of(root, key)
    last = max((row["stage"] for row in rows), default=0)
    return {row["epoch"]: row["val_mAP"] for row in rows if row["stage"] == last and row["val_mAP"] is not None}


def amend(root: str, key: str, **columns: Any) -> None:
    """Change columns of a trial's row."""
    for row in _rows(root, "trials", key):
        _put(root, "trials", key, schema.table("trials", [{**row, **columns}]))


def reopen(root: str, key: str) -> None:
    """Make a trial that has ended one that was interrupted: it is trained again, from its last checkpoint."""
    amend(root, key, status="running", cause=None, ended=None)


def delete(root: str, key: str) -> None:
    """Remove a trial's rows from all tables."""
    for table in schema.TABLES:
        storage.delete(_uri(root, table, key))


def nearest(name: str, names: Any) -> str:
    """What to say after an unknown name."""
    known = [str(n) for n in names]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    more = f" and {len(known) - 12} more" if len(known) > 12 else ""
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known[:12]) or 'none'}{more}."


def _place(root: str, table: str, key: str) -> tuple[str, str]:
    """Folder, and a file name that is safe and of its key alone, whatever the key holds."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", key).lstrip(".")[:120]
    if plain != key:
        plain += "-" + hashlib.sha256(key.encode()).hexdigest()[:8]
    return storage.join(root, FOLDER, table), f"{plain}.parquet"


def _uri(root: str, table: str, key: str) -> str:
    return storage.join(*_place(root, table, key))


def _put(root: str, table: str, key: str, rows: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd")
    storage.write(_uri(root, table, key), buffer.getbuffer())


def _rows(root: str, table: str, key: str) -> list[dict[str, Any]]:
    uri = _uri(root, table, key)
    part = _read_file(uri) if storage.exists(uri) else None
    return part.to_pylist() if part is not None else []


def _read_file(uri: str) -> pa.Table | None:
    """One file, or None where it was removed meanwhile."""
    try:
        part = pq.read_table(pa.BufferReader(storage.read(uri)), use_threads=False, pre_buffer=False)
    except FileNotFoundError:
        return None
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise UserError(f"{uri!r} is damaged or not a table of results: {error}. Move it away and run again.") from None
    version = (part.schema.metadata or {}).get(b"sadcl")
    if version is None or int(version) > schema.VERSION:
        found = "no version" if version is None else f"version {int(version)}"
        raise UserError(f"{uri!r} has {found} of the schema; this program reads up to {schema.VERSION}.")
    return part
