"""The tables as Parquet files below one root: one file a run and table, replaced whole, one writer each, no server."""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from pyarrow import fs

from sadcl import storage
from sadcl.errors import UserError
from sadcl.results import benchmarks, cache, files, schema
from sadcl.results.files import FOLDER

ENDED = ("complete", "pruned", "failed")


class RunWriter:
    """Writes the rows of one trial; opening it for a trial that was interrupted goes on with what is there.

    Every call leaves whole files behind, so that a crash loses at most the row being written. The rows of a trial that had
    ended are taken up in files of a new number (:mod:`sadcl.results.files`), because its former ones may be merged any time.

    Args:
        root: of the store.
        key: of the trial.
        row: its columns of the trials table that are known at the start.
        ends: it will be finished at once, and is not said to be running before; others may do the same.
    """

    def __init__(self, root: str, key: str, row: Mapping[str, Any], *, ends: bool = False) -> None:
        self.root, self.key = root, key
        number, before = _newest(root, "trials", key)
        if not before or before[0]["status"] != "running":
            number = 1 + max(files.find(root, table, key).number for table in schema.BY_RUN)
        self.number = number
        self.row: dict[str, Any] = {
            **row,
            "key": key,
            "status": "running",
            "cause": None,
            "started": before[0]["started"] if before else datetime.now(UTC),
            "schema_version": schema.VERSION,
        }
        self._begun = False
        self._epochs = {(e["stage"], e["epoch"]): e for e in _newest(root, "epochs", key)[1]}
        if not ends:
            for table in schema.BY_RUN:
                storage.sweep(files.folder(root, table), files.name(files.stem(key), self.number))
            self._write("trials", [self.row])

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Add an epoch; one reported again takes the place of the former."""
        self._epochs[row["stage"], row["epoch"]] = {
            **row,
            "key": self.key,
            "study": self.row.get("study"),
        }
        self._write("epochs", [self._epochs[at] for at in sorted(self._epochs)])

    def finish(
        self,
        status: str,
        *,
        cause: str | None = None,
        metrics: Mapping[str, Any] | None = None,
        labels: list[dict[str, Any]] | None = None,
        predictions: Iterable[pa.Table] = (),
    ) -> None:
        """End the trial as ``complete``, ``pruned`` or ``failed``; its row appears last, when all else is there.

        Args:
            labels: rows of the labels table.
            predictions: of each split that was evaluated, what :func:`sadcl.results.predictions.predictions_table` gives.
        """
        study = self.row.get("study")
        if labels:
            self._write("labels", [{**label, "key": self.key, "study": study} for label in labels])
        if scored := list(predictions):
            whole = pa.concat_tables(scored)
            own = {
                "key": pa.repeat(self.key, len(whole)),
                "study": pa.repeat(pa.scalar(study, pa.string()), len(whole)),
            }
            for name, column in own.items():
                whole = whole.set_column(whole.column_names.index(name), name, column)
            self._put("predictions", whole)
        self.row.update(metrics or {})
        self.row.update(
            status=status, cause=cause, ended=datetime.now(UTC), epochs_done=len(self._epochs)
        )
        self._write("trials", [self.row])

    def _write(self, table: str, rows: list[dict[str, Any]]) -> None:
        self._put(table, schema.table(table, rows))

    def _put(self, table: str, content: pa.Table) -> None:
        """Write a table of the run; a storage that fails is waited for, also one whose disk is not mounted at present."""

        def attempt() -> None:
            own = storage.join(
                files.folder(self.root, "trials"), files.name(files.stem(self.key), self.number)
            )
            if (
                self._begun
                and not storage.exists(own)
                and files.find(self.root, "trials", self.key).uri is None
            ):
                raise OSError(
                    f"{self.root!r} no longer holds this run's row: is its disk still mounted?"
                )
            _put(self.root, table, self.key, self.number, content)

        storage.retry(attempt)
        self._begun = True


def read(
    root: str,
    table: str,
    columns: Iterable[str] | None = None,
    *,
    keys: Iterable[str] | None = None,
    progress: cache.Progress | None = None,
) -> pa.Table:
    """A whole table, or some columns or trials of it; what a file lacks is null.

    Args:
        table: ``trials``, ``epochs``, ``labels``, ``predictions``, ``studies``, ``benchmarks`` or ``published``.
        columns: None is all.
        keys: of trials; None is all. Tables that are not by trial have none.
        progress: called while many files are read for the first time.

    Raises:
        UserError: for another table or column, a root that holds no tables, or a file that is not one of theirs.
    """
    wanted = None if columns is None else list(columns)
    if table not in schema.BY_RUN:
        whole = _other(root, table)
        return whole if wanted is None else whole.select(_known(table, wanted, whole.column_names))
    check_root(root)
    of = None if keys is None else pa.array(list(keys), pa.string())

    def mine(part: pa.Table) -> pa.Table:
        if of is None:
            return part
        import pyarrow.compute as pc

        return part.filter(pc.is_in(part["key"], value_set=of))

    def attempt() -> pa.Table:
        parts = cache.parts(root, table, progress)
        if wanted is not None:
            _known(table, wanted, [column for one in parts.schemas() for column in one.names])
        names = None if wanted is None else list(dict.fromkeys([*wanted, "key"]))
        rows = [
            mine(files.kept(files.read(path, names), without))
            for path, without in parts.paths.items()
        ]
        own = [
            part if names is None else part.select([n for n in names if n in part.column_names])
            for part in parts.rows
        ]
        rows += map(mine, own)
        return files.together(rows[-len(parts.rows) :] + rows[: len(parts.paths)])

    whole = files.steady(attempt)
    if table == "trials":
        whole = whole.sort_by("key")
    return whole if wanted is None else whole.select(wanted)


def check_root(root: str) -> None:
    """Find out whether a place is a store.

    Raises:
        UserError: where it is not.
    """
    if not storage.exists(storage.join(root, FOLDER)):
        raise UserError(
            f"{str(root)!r} holds no results: it has no folder {FOLDER!r}. Give the --storage of a run."
        )


def _known(table: str, wanted: list[str], there: Iterable[str]) -> list[str]:
    names = dict.fromkeys(there)
    for column in wanted:
        if column not in names:
            raise UserError(f"The table {table} has no column {column!r}{nearest(column, names)}")
    return wanted


def tables() -> list[str]:
    """The names of all tables."""
    return [*schema.TABLES, "published"]


def _other(root: str, table: str) -> pa.Table:
    if table not in tables():
        raise UserError(f"There is no table {table!r}{nearest(table, tables())}")
    if table == "published":
        from sadcl.results import published

        return published.table()
    check_root(root)
    return benchmarks.read_benchmarks(root) if table == "benchmarks" else studies(root)


def studies(root: str) -> pa.Table:
    """The studies table: what is written down about each study, and those that only have rows."""
    runs: dict[str, dict[str, Any]] = {}
    for run in read(root, "trials", ["study", "dataset", "scale", "started"]).to_pylist():
        if run["study"] is not None:
            seen = runs.setdefault(
                run["study"], {"datasets": set(), "scale": run["scale"], "started": run["started"]}
            )
            seen["datasets"] |= {run["dataset"]} - {None}
            seen["started"] = min(filter(None, (seen["started"], run["started"])), default=None)
    rows = []
    for name in sorted({*described(root), *runs}):
        about, seen = describe(root, name), runs.get(name, {})
        parts = about.get("datasets") or {}
        digests = {
            what: [part.get(what) for part in parts.values()] or [about.get(what)]
            for what in ("base", "data")
        }
        rows.append(
            {
                "study": name,
                "kind": about.get("kind"),
                "question": about.get("question"),
                "scale": about.get("scale") or seen.get("scale"),
                "datasets": sorted({*parts, *seen.get("datasets", ())}),
                "base_digest": " ".join(str(d) for d in digests["base"] if d) or None,
                "data_digest": " ".join(str(d) for d in digests["data"] if d) or None,
                "created": seen.get("started"),
                "about": json.dumps(about, sort_keys=True) if about else None,
            }
        )
    return pa.Table.from_pylist(
        rows, schema=pa.schema([(n, kind) for n, (kind, _) in schema.STUDIES.items()])
    )


def described(root: str) -> list[str]:
    """The studies that something is written down about."""
    return [
        name.removesuffix(".json")
        for name in storage.listing(storage.join(root, "studies"), ".json")
    ]


def describe(root: str, study: str) -> dict[str, Any]:
    """What is written down about a study; nothing where there is no file.

    Raises:
        UserError: for a file that is damaged.
    """
    uri = storage.join(root, "studies", f"{study}.json")
    try:
        about = json.loads(storage.read(uri))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(
            f"{uri!r} is damaged: {error}. Move it away; running the study again writes it anew."
        ) from None
    return about if isinstance(about, dict) else {}


def row_of(root: str, key: str) -> dict[str, Any] | None:
    """A trial's row of the trials table; None where there is none."""
    rows = _newest(root, "trials", key)[1]
    return rows[0] if rows else None


def epochs_of(root: str, key: str) -> list[dict[str, Any]]:
    """A trial's rows of the epochs table, in order."""
    return _newest(root, "epochs", key)[1]


def rows_of(root: str, table: str, key: str) -> list[dict[str, Any]]:
    """A trial's rows of a table."""
    return _newest(root, table, key)[1]


def table_of(root: str, table: str, key: str) -> pa.Table:
    """The same as an Arrow table."""

    def attempt() -> pa.Table:
        uri = files.find(root, table, key).uri
        return files.rows_of(uri, key) if uri is not None else schema.table(table, [])

    return files.steady(attempt)


def curve(root: str, key: str) -> dict[int, float]:
    """Held-out mAP by epoch of a trial's last stage."""
    rows = epochs_of(root, key)
    last = max((row["stage"] for row in rows), default=0)
    return {
        row["epoch"]: row["val_mAP"]
        for row in rows
        if row["stage"] == last and row["val_mAP"] is not None
    }


def amend(root: str, key: str, **columns: Any) -> None:
    """Change columns of a trial's row."""
    number, rows = _newest(root, "trials", key)
    for row in rows:
        now = number if row["status"] == "running" else number + 1
        _put(root, "trials", key, now, schema.table("trials", [{**row, **columns}]))


def reopen(root: str, key: str) -> None:
    """Make a trial that has ended one that was interrupted: it is trained again, from its last checkpoint."""
    amend(root, key, status="running", cause=None, ended=None)


def delete(root: str, *keys: str) -> None:
    """Remove the rows of trials from all tables; their own rows go last, so that whoever is cut off can begin again."""
    with merging(root) as alone:
        for table in reversed(schema.BY_RUN):
            for key, found in zip(keys, files.find_all(root, table, keys), strict=True):
                if found.number < 0:
                    continue
                if not alone or found.merged:
                    _put(root, table, key, found.number + 1, schema.table(table, []))
                for file in found.own:
                    storage.delete(storage.join(files.folder(root, table), file))


@contextlib.contextmanager
def merging(root: str) -> Iterator[bool]:
    """Held while files are merged, or rows removed; False on an object store, which has no locks."""
    local = isinstance(storage.resolve(root)[0], fs.LocalFileSystem)
    with storage.exclusive(storage.join(root, FOLDER, ".merging.lock"), wait=True):
        yield local


def nearest(name: str, names: Any) -> str:
    """What to say after an unknown name."""
    known = [str(n) for n in names]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    more = f" and {len(known) - 12} more" if len(known) > 12 else ""
    return (
        f"; did you mean {near[0]!r}?"
        if near
        else f"; there are {', '.join(known[:12]) or 'none'}{more}."
    )


def _put(root: str, table: str, key: str, number: int, rows: pa.Table) -> None:
    """Write a file of a run, and remove the one that it replaces."""
    where, of = files.folder(root, table), files.stem(key)
    storage.write(
        storage.join(where, files.name(of, number)),
        files.encode(rows, large=table == "predictions"),
    )
    if number:
        storage.delete(storage.join(where, files.name(of, number - 1)))


def _newest(root: str, table: str, key: str) -> tuple[int, list[dict[str, Any]]]:
    """Number of the newest file that has rows of a trial, and these rows."""

    def attempt() -> tuple[int, list[dict[str, Any]]]:
        found = files.find(root, table, key)
        return found.number, files.rows_of(
            found.uri, key
        ).to_pylist() if found.uri is not None else []

    return files.steady(attempt)
