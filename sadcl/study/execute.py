"""One trial in this process (or on every worker of a process group): train it, and keep its rows in the tables."""

from __future__ import annotations

import contextlib
import functools
import json
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from sadcl import data, distributed, storage
from sadcl.config import Data
from sadcl.errors import DISK_FULL, TrialFailed, UserError
from sadcl.results import predictions
from sadcl.results.provenance import provenance
from sadcl.results.store import RunWriter, row_of
from sadcl.search.trial import Trial
from sadcl.study.placement import Placement
from sadcl.study.process import large_pages
from sadcl.training import Epoch, Heartbeat, LeaveReason, Rescheduled, checkpoint, fit

FINISHED = ("complete", "pruned", "failed")
STATES = ("state.pt", "stage1/state.pt")
"""Below a run's folder while it runs: as large as everything else together, and of no more use afterwards."""
TESTED = ("arm", "confirm", "final", "train")
"""Phases whose runs look at the test images, once, at their end; what they see chooses nothing."""


Emit = Callable[[dict[str, Any]], Any]
"""Takes events: ``key``, and ``status``, an epoch's figures, a beat of a worker (:class:`sadcl.training.Pulse`) or what its
``error`` is; answers an epoch with why the trial is to stop, or None."""


def ended_row(trial: Trial, placement: Placement) -> dict[str, Any] | None:
    """The trial's row where it has ended, in whatever status."""
    row = row_of(placement.storage, trial.key)
    return row if row is not None and row["status"] in FINISHED else None


@large_pages()
def execute(
    trial: Trial, placement: Placement, emit: Emit | None = None, ask: LeaveReason | None = None
) -> dict[str, Any]:
    """Train a trial, or what an interruption left of it, and give its row of the trials table.

    A trial that has ended before is not trained again. The stage 1 that it starts from has to be complete.

    Args:
        ask: every few seconds on the first worker, why the trial is to leave; None where it is not.

    Raises:
        Left: where it was asked to leave.
        TrialFailed: where it fails, whatever the cause; the row has it. In a process group a lost worker or connection
            leaves the row ``running``, because the group may be started again.
    """
    if (row := ended_row(trial, placement)) is not None:
        if row["status"] == "failed":
            raise TrialFailed(row["cause"])
        return row
    first = distributed.rank() == 0
    tell: Emit = emit if emit is not None else lambda event: None
    send: Emit = tell if first else lambda event: None
    heartbeat = Heartbeat(lambda beat: tell({"key": trial.key, **beat}))
    writer: RunWriter | None = None
    try:
        heartbeat.start()
        start = stage1_checkpoint(trial, placement)
        images = cached_data(trial.config.data, placement.data_root)
        if first:
            for part in ("", "stage1"):
                storage.sweep(storage.join(checkpoint_folder(trial, placement), part))
            writer = RunWriter(
                placement.storage, trial.key, trial_columns(trial, placement, images)
            )
        send(
            {
                "key": trial.key,
                "status": "running",
                "what": trial.title,
                "params": dict(trial.params),
            }
        )
        if not placement.gpus:
            torch.set_num_threads(placement.threads)
        outcome = fit(
            trial.config,
            images,
            checkpoint_folder(trial, placement),
            stage1=start,
            test=trial.phase in TESTED and images.evaluable,
            report=functools.partial(_report, writer, send, trial.key),
            heartbeat=heartbeat.step,
            ask=ask,
            device="cuda" if placement.gpus else "cpu",
            loader_workers=placement.loader_workers,
        )
    except Rescheduled:
        raise
    except Exception as error:
        cause, single = cause_of(error), distributed.world_size() == 1
        if not single:
            cause += f" (rank {distributed.rank()} of {distributed.world_size()} on {socket.gethostname()})"
            tell({"key": trial.key, "rank": distributed.rank(), "error": cause})
        failed = TrialFailed(cause)
        failed.final = single or not _may_pass(error)
        if failed.final:
            with contextlib.suppress(
                OSError
            ):  # of a disk that is full: then the row says `running`, and it goes on
                record_failure(trial, placement, cause)
            send({"key": trial.key, "status": "failed", "cause": cause})
        raise failed from error
    finally:
        heartbeat.stop()
    figures = {
        **outcome.metrics,
        "weights": outcome.weights,
        "epoch": outcome.epoch,
        "checkpoint": outcome.checkpoint,
        "seconds": outcome.seconds,
        "images": outcome.images,
        "images_per_second": outcome.images / max(outcome.seconds, 1e-9),
        "memory_mb": outcome.memory_mb,
        "gpu_hours": outcome.seconds / 3600 * placement.workers * placement.gpus,
    }
    if writer is None:
        return {"key": trial.key, "status": "pruned" if outcome.stopped else "complete", **figures}
    status = "pruned" if outcome.stopped else "complete"
    figures["weights_digest"] = _digest(outcome.checkpoint)
    splits = {"val": images.val, "test": images.test}
    said = [
        predictions.predictions_table(
            split, splits[split].files, images.labels, logits_NL.numpy(), splits[split].targets
        )
        for split, logits_NL in outcome.logits.items()
    ]
    writer.finish(
        status,
        cause=outcome.stopped or None,
        metrics=figures,
        labels=outcome.labels,
        predictions=said,
    )
    for state in STATES:
        storage.delete(storage.join(checkpoint_folder(trial, placement), *state.split("/")))
    ending = {"cause": outcome.stopped} if outcome.stopped else {}
    send(
        {
            "key": trial.key,
            "status": status,
            **ending,
            "val_mAP": figures.get("val_mAP"),
            "test_mAP": figures.get("test_mAP"),
        }
    )
    return writer.row


def _report(writer: RunWriter | None, send: Emit, key: str, epoch: Epoch) -> str | None:
    assert writer is not None  # only the first worker reports
    writer.epoch({"stage": epoch.stage, "epoch": epoch.epoch, **epoch.metrics})
    event = {
        "key": key,
        "stage": epoch.stage,
        "epoch": epoch.epoch,
        "epochs": epoch.epochs,
        "metrics": epoch.metrics,
    }
    stop: str | None = send(event)
    return stop


def exclusive_stage1(trial: Trial, placement: Placement) -> contextlib.AbstractContextManager[bool]:
    """Held while a stage 1 is trained, which trials and studies share: the second waits, and finds it done."""
    if trial.phase != "stage1":
        return contextlib.nullcontext(True)
    return storage.exclusive(
        storage.join(placement.storage, "stage1", f".{trial.key}.lock"), wait=True
    )


def record_failure(trial: Trial, placement: Placement, cause: str) -> dict[str, Any]:
    """Record that a trial has failed, and give its row."""
    row = row_of(placement.storage, trial.key) or trial_columns(trial, placement, None)
    writer = RunWriter(placement.storage, trial.key, row, ends=True)
    writer.finish("failed", cause=cause)
    return writer.row


def record_abandoned(row: dict[str, Any], placement: Placement, cause: str) -> None:
    """Record that a trial that was interrupted will not go on."""
    RunWriter(placement.storage, row["key"], row, ends=True).finish("failed", cause=cause)


def remove_stale_states(rows: Iterable[Mapping[str, Any]], placement: Placement) -> None:
    """Remove the states of runs that are complete, or were stopped early: a process may be lost right before it does."""
    ended = {row["key"] for row in rows if row["status"] in ("complete", "pruned")}
    for kind in ("checkpoints", "stage1"):
        for path in storage.sizes(storage.join(placement.storage, kind)):
            key, _, file = path.partition("/")
            if key in ended and file in STATES:
                storage.delete(storage.join(placement.storage, kind, path))


def cached_data(spec: Data, root: str | None) -> data.MultiLabelData:
    """The data as it is now; while it is the same, the same object, whose decoded images are kept."""
    found = data.load(spec, root)
    _CACHED[found.digest, root] = same = _CACHED.pop((found.digest, root), found)
    while len(_CACHED) > 4:
        _CACHED.pop(next(iter(_CACHED)))
    return same


_CACHED: dict[tuple[str, str | None], data.MultiLabelData] = {}


def checkpoint_folder(trial: Trial, placement: Placement) -> str:
    """Where a trial's checkpoints lie."""
    kind = "stage1" if trial.phase == "stage1" else "checkpoints"
    return storage.join(placement.storage, kind, trial.key)


def stage1_checkpoint(trial: Trial, placement: Placement) -> str | None:
    """The checkpoint that the trial starts from; None trains stage 1 in the trial, where it has one.

    Raises:
        TrialFailed: where its stage 1 is not complete.
    """
    if trial.stage1 is None:
        return None
    row = ended_row(trial.stage1, placement)
    if row is None or row["status"] != "complete":
        cause = "it was not trained" if row is None else row["cause"]
        raise TrialFailed(
            f"The stage 1 that it starts from ({trial.stage1.key}) has failed: {cause}"
        )
    checkpoint: str = row["checkpoint"]
    return checkpoint


def trial_columns(
    trial: Trial, placement: Placement, images: data.MultiLabelData | None
) -> dict[str, Any]:
    """The columns of the trials table that are known before training."""
    config = trial.config
    gpu = bool(placement.gpus) and torch.cuda.is_available()
    return {
        **{name.replace(".", "_"): _plain(value) for name, value in config.flat().items()},
        "study": trial.study,
        "phase": trial.phase,
        "arm": trial.arm,
        "seed": config.seed,
        "dataset": images.name if images is not None else config.data.name,
        "scale": placement.scale,
        "params": json.dumps(dict(trial.params), sort_keys=True),
        "config": config.json_text(),
        "config_digest": config.digest(),
        "data_digest": images.digest if images is not None else None,
        "start_digest": _digest(config.model.start),
        "stage1_key": trial.stage1.key if trial.stage1 is not None else None,
        "workers": placement.workers,
        "gpus": float(placement.gpus),
        "cpus": placement.cpus,
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "cuda": torch.version.cuda,
        "cudnn": str(torch.backends.cudnn.version()) if gpu else None,
        **provenance(),
    }


def _digest(uri: str | None) -> str | None:
    return checkpoint.digest(uri) if uri is not None and storage.exists(uri) else None


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, tuple)) else value


def _may_pass(error: Exception) -> bool:
    """Whether it says no more than that another worker, a connection or a disk is gone: then the group starts again."""
    if isinstance(error, OSError):
        return error.errno not in DISK_FULL
    return type(error) is RuntimeError or isinstance(error, torch.distributed.DistError)


def cause_of(error: BaseException) -> str:
    """One line that says why a trial failed."""
    if isinstance(error, (UserError, TrialFailed)):
        return str(error)
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return (
            f"The storage is full: {error}. Nothing that was saved is lost: make room and give the same command again, for a "
            "study with --retry-failed; it goes on from the last checkpoint."
        )
    memory = isinstance(
        error, (MemoryError, torch.OutOfMemoryError)
    ) or "can't allocate memory" in str(error)
    if memory:
        return f"out of memory: {str(error).splitlines()[0] if str(error) else 'allocation failed'}"
    return f"{type(error).__name__}: {str(error).strip() or 'no message'}"
