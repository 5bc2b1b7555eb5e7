"""The curves of a study for TensorBoard: a copy of the tables, rewritten at every start.

Its HPARAMS have the settings and the final figures of each run.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from pyarrow import fs

from sadcl import storage
from sadcl.errors import UserError
from sadcl.results import store
from sadcl.results.status import Status
from sadcl.study.trial_event import EpochEnded, TrialEnded, TrialEvent, TrialStarted

FOLDER = "tensorboard"
RUN_COLUMNS = ("phase", "arm", "seed", "dataset")
"""Columns of the trials table that are among the settings of a run."""
FINAL_COLUMNS = ("test_CF1", "test_OF1", "test_mAP", "val_mAP")
"""Its figures once a run has ended. TensorBoard shows five at first, by their names."""


class TensorBoardCurves:
    """Event files below ``STORAGE/tensorboard/STUDY``, with a folder for each run.

    Nothing is written for an object store.

    Args:
        root: The root of the storage.
        study: The study's name.
        rows: The study's rows of the trials table so far.
        fields: The dotted names of the fields in which its runs may differ.
    """

    def __init__(
        self,
        root: str,
        study: str,
        rows: Iterable[Mapping[str, Any]],
        fields: Collection[str] = (),
    ) -> None:
        system, path = storage.resolve(root)
        self.root, self.fields = root, fields
        self.folder = Path(path, FOLDER, study) if isinstance(system, fs.LocalFileSystem) else None
        self._writers: dict[str, Any] = {}
        self._with_settings: set[str] = set()
        """Keys of the runs whose settings are written."""
        if self.folder is None:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        for run in rows:
            self._write_settings(run)
            for row in store.epochs_of(root, run["key"]):
                self._write_epoch(run["key"], row["stage"], row["epoch"], row)
            # a run that resumes keeps its file: one opened in the same second would have its name
            if run["status"] != Status.RUNNING:
                self._write_end(run)

    def add(self, events: list[TrialEvent]) -> list[TrialEvent]:
        """Write what the events of trials report, and give the events."""
        try:
            for event in events if self.folder is not None else ():
                if isinstance(event, EpochEnded):
                    self._write_epoch(event.key, event.stage, event.epoch, event.metrics)
                elif isinstance(event, TrialStarted | TrialEnded):
                    self._write_row(event)
        except (OSError, UserError):
            # a copy that cannot be written stops no study; the next start rewrites it
            self.folder = None
        return events

    def close(self) -> None:
        for key in list(self._writers):
            self._writers.pop(key).close()

    def _write_row(self, event: TrialStarted | TrialEnded) -> None:
        row = store.row_of(self.root, event.key)
        if row is not None:
            self._write_settings(row)
        if isinstance(event, TrialEnded):
            self._write_end(row or {"key": event.key, "status": event.status})

    def _write_settings(self, row: Mapping[str, Any]) -> None:
        """Write a run's settings, once: they are what a session of HPARAMS starts with."""
        from tensorboardX.summary import hparams

        if row["key"] in self._with_settings or not row.get("config"):
            return
        self._with_settings.add(row["key"])
        config = json.loads(row["config"])
        settings = {name: row.get(name) for name in RUN_COLUMNS}
        values = {name: _value_at(config, name) for name in self.fields}
        # With a null among its numbers, HPARAMS would take a setting for one of texts.
        settings |= {name: _plain(value) for name, value in values.items() if value is not None}
        _, start, _ = hparams(settings, {})
        self._write(row["key"], start)

    def _write_epoch(self, key: str, stage: int, epoch: int, metrics: Mapping[str, Any]) -> None:
        from tensorboardX.summary import scalar

        for name, value in metrics.items():
            if isinstance(value, float):
                self._write(key, scalar(f"stage{stage}/{name}", value), epoch)
        self._writer(key).flush()

    def _write_end(self, row: Mapping[str, Any]) -> None:
        """Write a run's final figures and how it ended, and close its file."""
        from tensorboardX.proto.api_pb2 import Status as State
        from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
        from tensorboardX.summary import hparams, scalar

        key = row["key"]
        for name in (*FINAL_COLUMNS, "seconds"):
            if row.get(name) is not None:
                group = "total" if name == "seconds" else "final"  # is sorted behind the figures
                self._write(key, scalar(f"{group}/{name}", row[name]))
        if key in self._with_settings:
            _, _, end = hparams({}, {})
            has_failed = row["status"] == Status.FAILED
            plugin = end.value[0].metadata.plugin_data
            content = HParamsPluginData.FromString(plugin.content)
            content.session_end_info.status = State.Value(
                "STATUS_FAILURE" if has_failed else "STATUS_SUCCESS"
            )
            plugin.content = content.SerializeToString()
            self._write(key, end)
        if key in self._writers:
            self._writers.pop(key).close()

    def _write(self, key: str, summary: Any, step: int = 0) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer(key).write_event(Event(wall_time=time.time(), step=step, summary=summary))

    def _writer(self, key: str) -> Any:
        # not SummaryWriter, which has a thread and a queue for each run
        from tensorboardX.event_file_writer import EventsWriter

        if key not in self._writers:
            folder = Path(str(self.folder), key)
            folder.mkdir(parents=True, exist_ok=True)
            self._writers[key] = EventsWriter(str(folder / "events"))
        return self._writers[key]


def _value_at(config: Mapping[str, Any], name: str) -> Any:
    """The value of a field, or of one of a part's arguments, by its dotted name."""
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _plain(value: Any) -> bool | int | float | str:
    """A value as HPARAMS can have it: what is neither a number nor a text is one in JSON."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)
