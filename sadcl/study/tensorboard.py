"""The curves of a study as TensorBoard reads them: a copy of the epochs table, made anew at every start."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pyarrow import fs

from sadcl import storage
from sadcl.results import store

FOLDER = "tensorboard"


class TensorBoardCurves:
    """Event files below ``STORAGE/tensorboard/STUDY``, a folder for each run; nothing is written for an object store.

    Args:
        root: of the store.
        rows: of the trials table, the study's runs so far.
    """

    def __init__(self, root: str, study: str, rows: Iterable[Mapping[str, Any]]) -> None:
        system, path = storage.resolve(root)
        self.folder = Path(path, FOLDER, study) if isinstance(system, fs.LocalFileSystem) else None
        self._open: dict[str, Any] = {}
        if self.folder is None:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        for run in rows:
            for row in store.epochs_of(root, run["key"]):
                self._add(run["key"], row["stage"], row["epoch"], row)
            if (
                run["status"] != "running"
            ):  # one that goes on keeps its file: another of the same second has its name
                self._close(run["key"])

    def seen(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Write down the epochs among events of trials; gives the events."""
        try:
            for event in events if self.folder is not None else ():
                if "metrics" in event:
                    self._add(event["key"], event["stage"], event["epoch"], event["metrics"])
                elif event.get("status") in ("complete", "pruned", "failed"):
                    self._close(event["key"])
        except OSError:  # a copy that cannot be written stops nobody; the next start makes it anew
            self.folder = None
        return events

    def close(self) -> None:
        for key in list(self._open):
            self._close(key)

    def _add(self, key: str, stage: int, epoch: int, figures: Mapping[str, Any]) -> None:
        from tensorboardX.event_file_writer import (
            EventsWriter,  # without SummaryWriter's thread and queue for each run
        )
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        if key not in self._open:
            folder = Path(str(self.folder), key)
            folder.mkdir(parents=True, exist_ok=True)
            self._open[key] = EventsWriter(str(folder / "events"))
        for name, value in figures.items():
            if isinstance(value, float):
                event = Event(
                    wall_time=time.time(), step=epoch, summary=scalar(f"stage{stage}/{name}", value)
                )
                self._open[key].write_event(event)
        self._open[key].flush()

    def _close(self, key: str) -> None:
        if (writer := self._open.pop(key, None)) is not None:
            writer.close()
