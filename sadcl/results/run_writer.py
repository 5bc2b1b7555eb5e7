"""Write the rows of one trial while it runs: where a row of the tables comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from sadcl import storage
from sadcl.results import files, schema, store
from sadcl.results.status import Status


class RunWriter:
    """Writes the rows of one trial; for an interrupted trial it continues with the existing rows.

    Each call leaves whole files behind, so a crash loses at most the row that is being written. The
    rows of a trial that had ended are continued in files of a new number (see ``files``), because
    its former files may be merged at any time.

    Args:
        root: of the store.
        key: of the trial.
        row: its columns of the trials table that are known at the start.
        ends: True if :meth:`finish` follows at once. Then no row with the status ``running`` is
            written first, and leftovers of other writers stay, because another process may write
            the same row.
    """

    def __init__(self, root: str, key: str, row: Mapping[str, Any], *, ends: bool = False) -> None:
        self.root, self.key = root, key
        location, rows = store.newest_rows(root, "trials", key)
        number = location.number
        is_open = rows and rows[0]["status"] == Status.RUNNING
        if not is_open or files.is_old_place(location.uri or ""):
            number = 1 + max(files.locate(root, table, key).number for table in schema.TRIAL_TABLES)
        self.number = number
        self.row: dict[str, Any] = {
            **row,
            "key": key,
            "status": Status.RUNNING.value,
            "cause": None,
            "started": rows[0]["started"] if rows else datetime.now(UTC),
            "schema_version": schema.VERSION,
        }
        self._has_written = False
        epochs = store.epochs_of(root, key)
        self._epochs = {(epoch["stage"], epoch["epoch"]): epoch for epoch in epochs}
        if not ends:
            for table in schema.TRIAL_TABLES:
                storage.sweep(*files.run_uri(root, table, key, self.number).rsplit("/", 1))
            self._write_rows("trials", [self.row])

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Add an epoch; it replaces a row of the same stage and epoch."""
        self._epochs[row["stage"], row["epoch"]] = {
            **row,
            "key": self.key,
            "study": self.row.get("study"),
        }
        self._write_rows("epochs", [self._epochs[position] for position in sorted(self._epochs)])

    def finish(
        self,
        status: str,
        *,
        cause: str | None = None,
        metrics: Mapping[str, Any] | None = None,
        labels: list[dict[str, Any]] | None = None,
        predictions: Iterable[pa.Table] = (),
    ) -> None:
        """End the trial; its row is written last, when everything else is on disk.

        Args:
            status: ``complete``, ``pruned`` or ``failed``.
            cause: why it failed or was stopped early.
            metrics: further columns of its row.
            labels: rows of the labels table.
            predictions: for each split that was evaluated, the table that
                :func:`sadcl.results.predictions.predictions_table` returns.
        """
        study = self.row.get("study")
        if labels:
            rows = [{**label, "key": self.key, "study": study} for label in labels]
            self._write_rows("labels", rows)
        if splits := list(predictions):
            table = pa.concat_tables(splits)
            columns = {
                "key": pa.repeat(self.key, len(table)),
                "study": pa.repeat(pa.scalar(study, pa.string()), len(table)),
            }
            for name, column in columns.items():
                table = table.set_column(table.column_names.index(name), name, column)
            self._write_table("predictions", table)
        self.row.update(metrics or {})
        self.row.update(
            status=status, cause=cause, ended=datetime.now(UTC), epochs_done=len(self._epochs)
        )
        self._write_rows("trials", [self.row])

    def _write_rows(self, table: str, rows: list[dict[str, Any]]) -> None:
        self._write_table(table, schema.to_table(table, rows))

    def _write_table(self, table: str, rows: pa.Table) -> None:
        """Write the run's file of a table.

        A storage that fails is tried again, and so is one whose disk is not mounted: there the
        run's row is missing, and writing would start an empty store below the mount point.
        """

        def attempt() -> None:
            if self._has_written and not self._trial_row_exists():
                raise OSError(
                    f"{self.root!r} no longer holds this run's row: is its disk still mounted?"
                )
            store.write_run_file(self.root, table, self.key, self.number, rows)

        storage.retry(attempt)
        self._has_written = True

    def _trial_row_exists(self) -> bool:
        uri = files.run_uri(self.root, "trials", self.key, self.number)
        return storage.exists(uri) or files.locate(self.root, "trials", self.key).uri is not None
