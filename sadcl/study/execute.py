"""One trial in this process, or in each worker of a process group: train it, write its rows."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from sadcl import data, distributed, storage
from sadcl.config import Config
from sadcl.errors import FailureKind, TrialFailed
from sadcl.results import checkpoints, predictions, store
from sadcl.results.provenance import provenance
from sadcl.results.run_writer import RunWriter
from sadcl.search.trial import Trial
from sadcl.study.failure import diagnose
from sadcl.study.gpu_driver import read_gpu_driver
from sadcl.study.gpu_share import gpu_memory
from sadcl.study.placement import Placement
from sadcl.study.process import large_pages
from sadcl.study.trial_event import (
    Emit,
    EpochEnded,
    FeaturesComputed,
    PrecisionChanged,
    TrialEnded,
    TrialEvent,
    TrialRestarts,
    TrialStarted,
    WorkerBeat,
    WorkerFailed,
)
from sadcl.training import (
    Callbacks,
    Epoch,
    Heartbeat,
    LeaveReason,
    Outcome,
    Rescheduled,
    checkpoint,
    fit,
)

FINISHED = ("complete", "pruned", "failed")
STATES = ("state.pt", "stage1/state.pt")
"""Below a run's folder while it trains: as large as all else there, and useless afterwards."""
TESTED = ("arm", "confirm", "final", "train")
"""Phases whose runs evaluate the test images, once, at their end; the result chooses nothing."""


def ended_row(trial: Trial, placement: Placement) -> dict[str, Any] | None:
    """Return the trial's row if it has ended, in whatever status."""
    row = store.row_of(placement.storage, trial.key)
    return row if row is not None and row["status"] in FINISHED else None


@large_pages()
def execute(
    trial: Trial,
    placement: Placement,
    emit: Emit | None = None,
    leave_reason: LeaveReason | None = None,
) -> dict[str, Any]:
    """Train a trial, or what an interruption left of it, and give its row of the trials table.

    A trial that has ended before is not trained again. The stage 1 that it starts from has to be
    complete.

    Args:
        trial: What to train.
        placement: Where, and on how much.
        emit: Takes the events; workers other than the first emit only those about a worker.
        leave_reason: Called every few seconds on the first worker; gives why the trial is to leave,
            or None.

    Raises:
        Rescheduled: Where it was asked to leave.
        TrialFailed: Where it fails, whatever the cause, which is in the row. Where another attempt
            may succeed the row stays ``running``. In a process group it always does: who knows how
            each worker has failed decides (:mod:`sadcl.ray_backend.group_failure`).
    """
    row = store.row_of(placement.storage, trial.key)
    if row is not None and row["status"] in FINISHED:
        if row["status"] == "failed":
            raise TrialFailed(row["cause"])
        return row
    emit = emit if emit is not None else _discard
    emit_first = emit if distributed.rank() == 0 else _discard
    if row is not None and row["cause"]:
        emit_first(TrialRestarts(trial.key, row["cause"], planned=False))
    heartbeat = Heartbeat(
        lambda beat: emit(WorkerBeat(trial.key, **vars(beat))),
        compiles=trial.config.optim.compile,
    )
    writer: RunWriter | None = None
    try:
        heartbeat.start()
        _check_gpu(placement)
        start = stage1_checkpoint(trial, placement)
        images = cached_data(trial.config, placement.data_root)
        if distributed.rank() == 0:
            writer = _open_writer(trial, placement, images)
        emit_first(TrialStarted(trial.key, trial.phase, trial.title, dict(trial.params)))
        with _threads(placement, trial.config.stores_features), gpu_memory(placement):
            outcome = fit(
                trial.config,
                images,
                checkpoint_folder(trial, placement),
                stage1=start,
                test=trial.phase in TESTED and images.evaluable,
                callbacks=Callbacks(
                    report=lambda epoch: _report_epoch(writer, emit_first, trial.key, epoch),
                    step_done=heartbeat.step,
                    leave_reason=leave_reason,
                    precision_changed=lambda *both: _emit_change(emit_first, trial.key, *both),
                    features=lambda done, rows, left: emit_first(
                        FeaturesComputed(trial.key, done, rows, left)
                    ),
                ),
                device="cuda" if placement.gpus else "cpu",
                loader_workers=placement.loader_workers(trial.config.stores_features),
            )
    except Rescheduled:
        raise
    except Exception as error:
        raise _report_failure(error, trial, placement, emit) from error
    finally:
        heartbeat.stop()
    return _finish(trial, placement, images, outcome, writer, emit_first)


def _check_gpu(placement: Placement) -> None:
    """Refuse a node whose GPU PyTorch cannot use; one that has joined late was not checked before.

    Raises:
        TrialFailed: With what is wrong with its driver; another node may do.
    """
    if placement.gpus and not torch.cuda.is_available():
        problem = read_gpu_driver().problem() or f"PyTorch {torch.__version__} sees no GPU"
        raise TrialFailed(
            f"{socket.gethostname()} cannot train on a GPU: {problem}.",
            kind=FailureKind.DEVICE,
            final=False,
        )


def _discard(event: TrialEvent) -> None:
    return


def _emit_change(emit: Emit, key: str, before: str, now: str) -> None:
    emit(PrecisionChanged(key, before, now))


def _open_writer(trial: Trial, placement: Placement, images: data.MultiLabelData) -> RunWriter:
    for part in ("", "stage1"):
        storage.sweep(storage.join(checkpoint_folder(trial, placement), part))
    return RunWriter(placement.storage, trial.key, trial_columns(trial, placement, images))


@contextlib.contextmanager
def _threads(placement: Placement, stores_features: bool) -> Iterator[None]:
    """Compute with the placement's number of threads on CPUs for as long as the block runs."""
    before = torch.get_num_threads()
    if not placement.gpus:
        torch.set_num_threads(placement.threads(stores_features))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _report_epoch(writer: RunWriter | None, emit: Emit, key: str, epoch: Epoch) -> str | None:
    """Write an epoch's row, and give why the trial is to stop after it, or None."""
    assert writer is not None  # only the first worker reports epochs
    writer.epoch({"stage": epoch.stage, "epoch": epoch.epoch, **epoch.metrics})
    return emit(EpochEnded(key, epoch.stage, epoch.epoch, epoch.epochs, epoch.metrics))


def _report_failure(
    error: Exception, trial: Trial, placement: Placement, emit: Emit
) -> TrialFailed:
    """Report that this worker has failed; alone it writes the cause into the trial's row."""
    failure, ranks, rank = diagnose(error), distributed.world_size(), distributed.rank()
    cause = str(failure)
    if ranks > 1:
        cause += f" (rank {rank} of {ranks} on {socket.gethostname()})"
        emit(WorkerFailed(trial.key, rank, cause))
        return TrialFailed(cause, kind=failure.kind, final=failure.final)
    # a full disk refuses the row, which then stays `running`, so that the trial resumes
    with contextlib.suppress(OSError):
        if failure.final:
            record_failure(trial, placement, cause)
        else:
            store.amend(placement.storage, trial.key, cause=cause)
    if failure.final:
        emit(TrialEnded(trial.key, "failed", cause))
    return failure


def _finish(
    trial: Trial,
    placement: Placement,
    images: data.MultiLabelData,
    outcome: Outcome,
    writer: RunWriter | None,
    emit: Emit,
) -> dict[str, Any]:
    """Write the trial's last rows and give its row; workers without a writer give its figures."""
    status = "pruned" if outcome.stopped else "complete"
    figures: dict[str, Any] = {
        **outcome.metrics,
        "weights": outcome.weights,
        "epoch": outcome.epoch,
        "checkpoint": checkpoints.path_in_store(placement.storage, outcome.checkpoint),
        "seconds": outcome.seconds,
        "images": outcome.images,
        "images_per_second": outcome.images / max(outcome.seconds, 1e-9),
        "memory_mb": outcome.memory_mb,
        "precision": outcome.precision,
        "input_mean": json.dumps(outcome.normalisation.mean),
        "input_std": json.dumps(outcome.normalisation.std),
        "gpu_hours": outcome.seconds / 3600 * placement.workers * placement.gpus,
    }
    if writer is None:
        return {"key": trial.key, "status": status, **figures}
    figures["weights_digest"] = _digest(outcome.checkpoint)
    splits = {"val": images.val, "test": images.test}
    tables = [
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
        predictions=tables,
    )
    for state in STATES:
        storage.delete(storage.join(checkpoint_folder(trial, placement), *state.split("/")))
    emit(
        TrialEnded(
            trial.key, status, outcome.stopped, figures.get("val_mAP"), figures.get("test_mAP")
        )
    )
    return writer.row


def exclusive_stage1(trial: Trial, placement: Placement) -> contextlib.AbstractContextManager[bool]:
    """Lock a stage 1 while it is trained; other trials do not lock.

    Trials and studies share it: the second one waits, and then finds it complete.
    """
    if trial.phase != "stage1":
        return contextlib.nullcontext(True)
    return storage.exclusive(
        storage.join(placement.storage, "stage1", f".{trial.key}.lock"), wait=True
    )


def record_failure(trial: Trial, placement: Placement, cause: str) -> dict[str, Any]:
    """Write that a trial has failed, and give its row."""
    row = store.row_of(placement.storage, trial.key) or trial_columns(trial, placement, None)
    writer = RunWriter(placement.storage, trial.key, row, ends=True)
    writer.finish("failed", cause=cause)
    return writer.row


def record_abandoned(row: dict[str, Any], placement: Placement, cause: str) -> None:
    """Write that a trial that was interrupted will not be resumed."""
    RunWriter(placement.storage, row["key"], row, ends=True).finish("failed", cause=cause)


def remove_stale_states(rows: Iterable[Mapping[str, Any]], placement: Placement) -> None:
    """Remove the states of runs that are complete or were stopped early.

    A run does so itself at its end, but its process may be lost right before.
    """
    ended = {row["key"] for row in rows if row["status"] in ("complete", "pruned")}
    for kind in checkpoints.FOLDERS:
        for path in storage.sizes(storage.join(placement.storage, kind)):
            key, _, file = path.partition("/")
            if key in ended and file in STATES:
                storage.delete(storage.join(placement.storage, kind, path))


def cached_data(config: Config, root: str | None) -> data.MultiLabelData:
    """Load the data; while they do not change it is the same object, which keeps decoded images.

    The four data sets that were used last are kept.
    """
    images = data.load(config.data, root, sources=config.sources)
    images = _cache.pop((images.digest, root), images)
    _cache[images.digest, root] = images
    while len(_cache) > 4:
        _cache.pop(next(iter(_cache)))
    return images


_cache: dict[tuple[str, str | None], data.MultiLabelData] = {}


def checkpoint_folder(trial: Trial, placement: Placement) -> str:
    """Return the folder of a trial's checkpoints."""
    kind = "stage1" if trial.phase == "stage1" else "checkpoints"
    return storage.join(placement.storage, kind, trial.key)


def stage1_checkpoint(trial: Trial, placement: Placement) -> str | None:
    """Return the checkpoint that the trial starts from; None if it trains its own stage 1.

    Raises:
        TrialFailed: Where its stage 1 is not complete.
    """
    if trial.stage1 is None:
        return None
    row = ended_row(trial.stage1, placement)
    if row is None or row["status"] != "complete":
        cause = "it was not trained" if row is None else row["cause"]
        raise TrialFailed(
            f"The stage 1 that it starts from ({trial.stage1.key}) has failed: {cause}"
        )
    return checkpoints.checkpoint_uri(placement.storage, row)


def trial_columns(
    trial: Trial, placement: Placement, images: data.MultiLabelData | None
) -> dict[str, Any]:
    """Return the columns of the trials table that are known before training.

    Args:
        images: None where the data could not be loaded.
    """
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
        "features": config.features_text,
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
