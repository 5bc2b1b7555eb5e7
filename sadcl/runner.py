"""One trial in this process (or on every worker of a process group): train it, and keep its rows in the tables."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from sadcl import data, distributed, storage
from sadcl.config import Config, Data
from sadcl.errors import UserError
from sadcl.results.provenance import provenance
from sadcl.results.store import RunWriter, row_of
from sadcl.search.plan import Trial, stage1_key
from sadcl.training import Epoch, fit

FINISHED = ("complete", "pruned", "failed")


@dataclass(frozen=True)
class Where:
    """Where and on how much a trial runs; nothing of it changes the figures.

    Attributes:
        storage: root of tables and checkpoints.
        data_root: where the data lies; None for the embedded scenes.
        scale: demo or full.
        workers: training processes.
        cpus, gpus: of each worker.
    """

    storage: str
    data_root: str | None
    scale: str = "full"
    workers: int = 1
    cpus: int = 1
    gpus: float = 0

    @property
    def loader_workers(self) -> int:
        """One CPU trains, the others decode; at demo scale images are kept decoded."""
        return self.cpus - 1 if self.scale == "full" else 0


class TrialFailed(RuntimeError):
    """A trial that did not end well; its row says why."""


Emit = Callable[[dict[str, Any]], None]
"""Takes events: ``key``, and ``status`` or an epoch's figures."""


def finished(trial: Trial, where: Where) -> dict[str, Any] | None:
    """The trial's row where it has ended, in whatever status."""
    row = row_of(where.storage, trial.key)
    return row if row is not None and row["status"] in FINISHED else None


def execute(trial: Trial, where: Where, emit: Emit | None = None) -> dict[str, Any]:
    """Train a trial, or what an interruption left of it, and give its row of the trials table.

    A trial that has ended before is not trained again.

    Raises:
        TrialFailed: where it fails, whatever the cause; the row has it.
    """
    if distributed.world_size() == 1 and (row := finished(trial, where)) is not None:
        if row["status"] == "failed":
            raise TrialFailed(row["cause"])
        return row
    first = distributed.rank() == 0
    try:
        images = load(trial.config.data, where.data_root)
    except Exception as error:
        if first:
            RunWriter(where.storage, trial.key, describe(trial, where, None)).finish("failed", cause=cause_of(error))
        raise TrialFailed(cause_of(error)) from error
    writer = RunWriter(where.storage, trial.key, describe(trial, where, images)) if first else None
    send = emit if emit is not None and first else lambda event: None
    send({"key": trial.key, "status": "running"})

    def report(epoch: Epoch) -> None:
        assert writer is not None
        writer.epoch({"stage": epoch.stage, "epoch": epoch.epoch, **epoch.metrics})
        send({"key": trial.key, "stage": epoch.stage, "epoch": epoch.epoch, "epochs": epoch.epochs, **epoch.metrics})

    try:
        if not where.gpus:
            torch.set_num_threads(max(1, where.cpus - where.loader_workers))
        outcome = fit(
            trial.config,
            images,
            folder(trial, where),
            stage1=shared_stage1(trial, where, images.digest),
            test=trial.phase in ("final", "train") and len(images.test) > 0,
            report=report,
            device="cuda" if where.gpus else "cpu",
            loader_workers=where.loader_workers,
        )
    except Exception as error:
        if writer is not None:
            writer.finish("failed", cause=cause_of(error))
        send({"key": trial.key, "status": "failed", "cause": cause_of(error)})
        raise TrialFailed(cause_of(error)) from error
    figures = {
        **outcome.metrics,
        "weights": outcome.weights,
        "epoch": outcome.epoch,
        "checkpoint": outcome.checkpoint,
        "seconds": outcome.seconds,
        "images": outcome.images,
        "images_per_second": outcome.images / max(outcome.seconds, 1e-9),
        "memory_mb": outcome.memory_mb,
    }
    if writer is None:
        return {"key": trial.key, "status": "complete", **figures}
    writer.finish("complete", metrics=figures, labels=outcome.labels)
    send({"key": trial.key, "status": "complete", **{k: v for k, v in figures.items() if not k.startswith("val_mAP_")}})
    return writer.row


def fail(trial: Trial, where: Where, cause: str) -> dict[str, Any]:
    """Record from outside that a trial has failed, and give its row."""
    writer = RunWriter(where.storage, trial.key, describe(trial, where, None))
    writer.finish("failed", cause=cause)
    return writer.row


@functools.lru_cache(maxsize=4)
def _load(spec: str, root: str | None) -> data.MultiLabelData:
    return data.load(Data.model_validate_json(spec), root)


def load(spec: Data, root: str | None) -> data.MultiLabelData:
    """The data, read once a process."""
    return _load(spec.model_dump_json(), root)


def folder(trial: Trial, where: Where) -> str:
    """Where a trial's checkpoints lie."""
    kind = "stage1" if trial.phase == "stage1" else "checkpoints"
    return storage.join(where.storage, kind, trial.key)


def shared_stage1(trial: Trial, where: Where, data_digest: str) -> str | None:
    """The checkpoint of the stage 1 that the trial starts from, where it is complete; None trains one for the trial."""
    if trial.config.stage2.epochs == 0:
        return None
    row = row_of(where.storage, stage1_key(trial.config, data_digest))
    return row["checkpoint"] if row is not None and row["status"] == "complete" else None


def describe(trial: Trial, where: Where, images: data.MultiLabelData | None) -> dict[str, Any]:
    """The columns of the trials table that are known before training."""
    config = trial.config
    digest = images.digest if images is not None else None
    shared = digest is not None and config.stage2.epochs > 0
    return {
        **{name.replace(".", "_"): _plain(value) for name, value in config.flat().items()},
        "study": trial.study,
        "phase": trial.phase,
        "arm": trial.arm,
        "seed": config.seed,
        "dataset": images.name if images is not None else config.data.name,
        "scale": where.scale,
        "params": json.dumps(dict(trial.params), sort_keys=True),
        "config": config.json_text(),
        "config_digest": config.digest(),
        "data_digest": digest,
        "stage1_key": stage1_key(config, digest) if shared and digest is not None else None,
        "workers": where.workers,
        "gpus": float(where.gpus),
        "device": torch.cuda.get_device_name() if where.gpus and torch.cuda.is_available() else "cpu",
        **provenance(),
    }


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, tuple)) else value


def cause_of(error: BaseException) -> str:
    """One line that says why a trial failed."""
    if isinstance(error, (UserError, TrialFailed)):
        return str(error)
    memory = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
    if memory:
        return f"out of memory: {str(error).splitlines()[0] if str(error) else 'allocation failed'}"
    return f"{type(error).__name__}: {str(error).strip() or 'no message'}"


def epochs_of(config: Config, *, with_stage1: bool) -> int:
    """Epochs that a trial trains itself."""
    return config.stage2.epochs + (config.stage1.epochs if with_stage1 or not config.stage2.epochs else 0)
