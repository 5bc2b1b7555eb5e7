"""The curves of a study for TensorBoard: a copy of the epochs table, rewritten at every start."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pyarrow import fs

from sadcl import storage
from sadcl.results import store
from sadcl.study.trial_event import EpochEnded, TrialEnded, TrialEvent

FOLDER = "tensorboard"


class TensorBoardCurves:
    """Event files below ``STORAGE/tensorboard/STUDY``, with a folder for each run.

    Nothing is written for an object store.

    Args:
        root: The root of the storage.
        study: The study's name.
        rows: The study's rows of the trials table so far.
    """

    def __init__(self, root: str, study: str, rows: Iterable[Mapping[str, Any]]) -> None:
        system, path = storage.resolve(root)
        self.folder = Path(path, FOLDER, study) if isinstance(system, fs.LocalFileSystem) else None
        self._writers: dict[str, Any] = {}
        if self.folder is None:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        for run in rows:
            for row in store.epochs_of(root, run["key"]):
                self._write(run["key"], row["stage"], row["epoch"], row)
            # a run that resumes keeps its file: one opened in the same second would have its name
            if run["status"] != "running":
                self._close(run["key"])

    def add(self, events: list[TrialEvent]) -> list[TrialEvent]:
        """Write the epochs among the events of trials, and give the events."""
        try:
            for event in events if self.folder is not None else ():
                if isinstance(event, EpochEnded):
                    self._write(event.key, event.stage, event.epoch, event.metrics)
                elif isinstance(event, TrialEnded):
                    self._close(event.key)
        except OSError:  # a copy that cannot be written stops no study; the next start rewrites it
            self.folder = None
        return events

    def close(self) -> None:
        for key in list(self._writers):
            self._close(key)

    def _write(self, key: str, stage: int, epoch: int, metrics: Mapping[str, Any]) -> None:
        # not SummaryWriter, which has a thread and a queue for each run
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        if key not in self._writers:
            folder = Path(str(self.folder), key)
            folder.mkdir(parents=True, exist_ok=True)
            self._writers[key] = EventsWriter(str(folder / "events"))
        for name, value in metrics.items():
            if isinstance(value, float):
                summary = scalar(f"stage{stage}/{name}", value)
                event = Event(wall_time=time.time(), step=epoch, summary=summary)
                self._writers[key].write_event(event)
        self._writers[key].flush()

    def _close(self, key: str) -> None:
        if (writer := self._writers.pop(key, None)) is not None:
            writer.close()
