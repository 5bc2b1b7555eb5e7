"""The stages: build, train epoch by epoch, select, save, resume.

Runs alone or on every worker of a torch.distributed group, and knows nothing of what started it.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, cast

import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from sadcl import build, distributed, storage
from sadcl.config import Config
from sadcl.data.base import MultiLabelData
from sadcl.data.loader import Loader
from sadcl.errors import UserError
from sadcl.model import SADCL
from sadcl.training import checkpoint, replica_check, selection, sync_points
from sadcl.training.engine import (
    Diverged,
    Training,
    autocast,
    first_prototypes,
    shared_state,
    train_step,
)
from sadcl.training.optim import adamw, averaged, one_cycle
from sadcl.training.resume import Progress, restore, resume_state, worker_state

_NAMES = signature(DistributedDataParallel).parameters
_QUIET: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers": False
}
"""BatchNorm statistics stay each worker's own within an epoch; torch 2.14 has renamed the word."""


@dataclass(frozen=True)
class Epoch:
    """What a run reports after each epoch (on the first worker)."""

    stage: int
    epoch: int
    """From 1."""
    epochs: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """What a run ends with; the figures are of its selected epoch and weights."""

    checkpoint: str
    """URI of best.pt."""
    stage: int
    epoch: int
    weights: str
    """``raw`` or ``ema``."""
    metrics: dict[str, float]
    labels: list[dict[str, Any]]
    """One row a split and label: AP, P, R, F1 in percent, support in images."""
    seconds: float
    images: int
    memory_mb: float
    logits: dict[str, torch.Tensor]
    """(N, L) in float16 of each split that was evaluated with the reported weights."""
    stopped: str = ""
    """Why it was stopped early; empty where it was not."""


ReportEpoch = Callable[[Epoch], str | None]
"""Called after each epoch on the first worker; a text stops the run there, and says why."""
StepDone = Callable[[int, int, int, int, float], None]
"""Called after each step on every worker with stage, epoch, step, steps of the epoch, and the seconds in which bank and
prototypes gathered the rows of all workers."""


MAX_STEPS_BETWEEN_SYNCS = 50
"""Steps at most between two looks at whether the workers still agree, and whether the state is to be saved."""
SAVE_SECONDS = 600.0
"""Within an epoch the state is saved this often; at its end always."""


def fit(
    config: Config,
    data: MultiLabelData,
    folder: str,
    *,
    stage1: str | None = None,
    test: bool = False,
    report: ReportEpoch | None = None,
    heartbeat: StepDone | None = None,
    ask: sync_points.LeaveReason | None = None,
    device: str | None = None,
    loader_workers: int = 0,
) -> Outcome:
    """Train both stages, or what is left of them after an interruption.

    Args:
        config: what to train; with ``stage2.epochs = 0`` stage 1 alone (the baseline, SARL) is the outcome.
        data: from :func:`sadcl.data.load`.
        folder: URI of this run's own checkpoints: ``best.pt``, at the end ``last.pt`` (the same weights after the last
            epoch), and ``state.pt`` to go on from; a run found there goes on.
        stage1: URI of a stage-1 ``best.pt`` to start stage 2 from; None trains stage 1 first, in ``folder/stage1``, or
            starts from ``model.start`` where stage 1 has no epochs.
        test: evaluate the selected weights on the test split at the end, once.
        report: called after each epoch that was trained now; a text stops the run.
        heartbeat: called after each step, on every worker.
        ask: called every few seconds; a text saves the state and leaves.
        device: ``cpu``, ``cuda`` or ``cuda:1``; None takes a GPU where there is one.
        loader_workers: processes that decode images; 0 decodes in this one.

    Raises:
        UserError: for a split without images, a device that is not there, or a checkpoint that does not fit.
        Diverged: for a loss that is not finite.
        Disagreement: where workers no longer hold the same bank, prototypes or weights.
        Left: where it was asked to leave; the same call goes on, on any number of workers.
    """
    if not len(data.train):
        raise UserError(f"The training split of {data.name} has no images.")
    where = pick_device(device)
    share = {
        "rank": distributed.rank(),
        "world": distributed.world_size(),
        "workers": loader_workers,
        "device": where,
    }
    watch: dict[str, Any] = {"report": report, "heartbeat": heartbeat, "ask": ask}
    given = config.model.start
    if config.stage2.epochs == 0 and stage1 is not None:
        return _adopted(config, data, stage1, folder, share, test)
    if config.stage2.epochs == 0:
        return _stage(1, config, data, folder, share, start=given, test=test, **watch)
    if stage1 is not None or config.stage1.epochs == 0:
        return _stage(2, config, data, folder, share, start=stage1 or given, test=test, **watch)
    first = _stage(1, config, data, storage.join(folder, "stage1"), share, start=given, **watch)
    if first.stopped:
        return first
    second = _stage(2, config, data, folder, share, start=first.checkpoint, test=test, **watch)
    return replace(
        second, seconds=first.seconds + second.seconds, images=first.images + second.images
    )


def pick_device(name: str | None) -> torch.device:
    """The device asked for, or a GPU where there is one.

    Raises:
        UserError: for a GPU that is not there.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device = {name!r} is not a device; use cpu, cuda or cuda:1.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device = {name!r} was asked for, but {torch.cuda.device_count()} GPUs are visible to this process. "
            "Leave the device out to train on the CPU, or check the driver and CUDA_VISIBLE_DEVICES."
        )
    return device


def _stage(
    number: int,
    config: Config,
    data: MultiLabelData,
    folder: str,
    share: dict[str, Any],
    *,
    report: ReportEpoch | None,
    heartbeat: StepDone | None,
    ask: sync_points.LeaveReason | None,
    start: str | None = None,
    test: bool = False,
) -> Outcome:
    stage = config.stage1 if number == 1 else config.stage2
    loader = build.loader(
        config, data.train, augmentation=stage.augmentation, training=True, **share
    )
    state = storage.join(folder, "state.pt")
    storage.make(folder)
    resume = sync_points.first_worker_decides(
        distributed.rank() == 0 and storage.exists(state), share["device"]
    )
    training = prepare(
        number, config, data.labels, share["device"], loader.steps, start=start, resume=resume
    )
    progress = Progress()
    if resume:
        _settle_buckets(training)
        storage.wait_for_file(state)
        progress = restore(training, checkpoint.load_checkpoint(state))
    elif training.bank is not None and config.loss.prototype_weight > 0:
        first_prototypes(training, build.loader(config, data.train, **share))

    clock = time.monotonic()

    def save() -> None:
        nonlocal clock
        own = worker_state(training)
        progress.seconds, clock = progress.seconds + time.monotonic() - clock, time.monotonic()
        if distributed.rank() == 0:
            checkpoint.save_checkpoint(state, resume_state(training, progress, own))

    meetings = sync_points.SyncPoints(training.step, MAX_STEPS_BETWEEN_SYNCS)

    def meet() -> None:
        if training.step < meetings.next and progress.step < loader.steps:
            return
        replica_check.check_replicas(shared_state(training), training.step)
        reason = ask() if ask is not None and distributed.rank() == 0 else None
        old = time.monotonic() - clock >= SAVE_SECONDS
        due, leave = meetings.agree(training.step, training.device, old, bool(reason))
        if due or leave:
            _check_totals(training, progress)  # nothing that is lost is saved over what was good
            save()
        if leave:
            sync_points.barrier()
            raise sync_points.Rescheduled(reason or "as the first worker was told")

    while not progress.done:
        began = time.monotonic()
        left = loader.steps - progress.step
        metrics = _train_epoch(training, loader, progress, meet, heartbeat)
        if left:
            metrics["images_per_second"] = (
                len(data.train) * left / loader.steps / (time.monotonic() - began)
            )
        metrics["lr"] = float(training.schedule.get_last_lr()[0])
        progress.epoch, progress.step, progress.totals = progress.epoch + 1, 0, {}
        figures, progress.best = selection.select(
            training, data, progress.best, progress.epoch, folder, share
        )
        patience_left = (
            stage.patience is None or progress.epoch - progress.best["epoch"] < stage.patience
        )
        progress.done = progress.epoch == stage.epochs or not patience_left
        progress.seconds, clock = progress.seconds + time.monotonic() - clock, time.monotonic()
        metrics.update(
            figures,
            seconds=progress.seconds - progress.before,
            memory_mb=_peak_memory(share["device"]),
        )
        progress.before = progress.seconds
        progress.images += len(data.train)
        reason = None
        if report is not None and distributed.rank() == 0:
            reason = report(Epoch(number, progress.epoch, stage.epochs, metrics))
        if sync_points.first_worker_decides(bool(reason), training.device) and not progress.done:
            progress.done, progress.stopped = True, reason or "as the first worker was told"
        save()
        sync_points.barrier()

    best = progress.best
    selection.save_last(training, data, progress.epoch, best["weights"], folder)
    tested, test_rows, test_logits = (
        selection.test(training, data, folder, share) if test else ({}, [], {})
    )
    sync_points.barrier()
    return Outcome(
        checkpoint=storage.join(folder, "best.pt"),
        stage=number,
        epoch=best["epoch"],
        weights=best["weights"],
        metrics={**best["metrics"], **tested},
        labels=best["rows"] + test_rows,
        seconds=progress.seconds,
        images=progress.images,
        memory_mb=_peak_memory(share["device"]),
        logits={**best.get("logits", {}), **test_logits},
        stopped=progress.stopped,
    )


def _adopted(
    config: Config,
    data: MultiLabelData,
    stage1: str,
    folder: str,
    share: dict[str, Any],
    test: bool,
) -> Outcome:
    """A run that is its stage 1, which others share: nothing is trained, and its figures and weights are that run's."""
    content = checkpoint.load_checkpoint(stage1)
    storage.make(folder)
    if distributed.rank() == 0:
        checkpoint.save_checkpoint(storage.join(folder, "best.pt"), content)
    sync_points.barrier()
    steps = build.loader(config, data.train, training=True, **share).steps
    training = prepare(1, config, data.labels, share["device"], steps, resume=True)
    tested, test_rows, test_logits = (
        selection.test(training, data, folder, share) if test else ({}, [], {})
    )
    sync_points.barrier()
    return Outcome(
        checkpoint=storage.join(folder, "best.pt"),
        stage=1,
        epoch=content["epoch"],
        weights=content["weights"],
        metrics={**content["metrics"], **tested},
        labels=content["rows"] + test_rows,
        seconds=0.0,
        images=0,
        memory_mb=_peak_memory(share["device"]),
        logits={**content.get("logits", {}), **test_logits},
    )


def prepare(
    number: int,
    config: Config,
    labels: tuple[str, ...],
    device: torch.device,
    steps: int,
    *,
    start: str | None = None,
    resume: bool = False,
) -> Training:
    """Objects of one stage, at its beginning.

    Args:
        steps: of an epoch.
        start: the checkpoint that it starts from.
        resume: skip what a saved state will bring.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    world = distributed.world_size()
    network = build.model(config, len(labels), pretrained=start is None and not resume)
    contrast = number == 2 and config.loss.contrasts
    stage = config.stage1 if number == 1 else config.stage2
    if start is not None and not resume:
        checkpoint.load_network(
            network, checkpoint.load_kept(start), start, labels, whole=number == 2
        )
    bank = None
    if isinstance(network, SADCL):
        network.projection.requires_grad_(contrast)
        network.prototypes.requires_grad_(contrast and config.loss.prototype_weight > 0)
        if contrast:
            bank = build.bank(config, len(labels), network.classifier.weight_LD.shape[1], world).to(
                device
            )
    network.to(device)
    if device.type == "cuda":
        network.to(memory_format=torch.channels_last)
    model: torch.nn.Module = network
    if world > 1:
        device_ids = [device] if device.type == "cuda" else None
        model = DistributedDataParallel(network, device_ids=device_ids, **_QUIET)
    if config.optim.compile:
        model = cast(torch.nn.Module, torch.compile(model))
    optimizer = adamw(network, stage, config.optim)
    return Training(
        config=config,
        stage=number,
        network=network,
        model=model,
        criterion=build.criterion(config, contrast=contrast),
        optimizer=optimizer,
        schedule=one_cycle(optimizer, stage, config.optim, steps),
        ema=averaged(network, config.optim),
        bank=bank,
        device=device,
    )


def _train_epoch(
    training: Training,
    loader: Loader,
    progress: Progress,
    meet: Callable[[], None],
    heartbeat: StepDone | None,
) -> dict[str, float]:
    """One pass over the training images, or what is left of it; means over the steps of the global terms."""
    training.network.train()
    epoch, totals = progress.epoch + 1, progress.totals
    for batch in loader.batches(epoch, progress.step):
        for name, value in train_step(training, batch).items():
            totals[name] = totals[name] + value if name in totals else value.clone()
        progress.step += 1
        if heartbeat is not None:
            heartbeat(
                training.stage, epoch, progress.step, loader.steps, training.synchronising.lap()
            )
        meet()
    _check_totals(training, progress)
    metrics = {
        name: float(value) / loader.steps for name, value in totals.items() if name != "admitted_L"
    }
    if training.bank is not None and isinstance(training.network, SADCL):
        training.network.prototypes.end_epoch()
        metrics["admitted"] = float(totals["admitted_L"].double().mean())
        metrics["labels_admitted"] = float((totals["admitted_L"] > 0).sum())
        metrics["bank_fill"] = float(training.bank.fill())
    weights = {
        f"model.{name}": parameter for name, parameter in training.network.named_parameters()
    }
    replica_check.check_replicas({**shared_state(training), **weights}, training.step)
    _share_buffers(training)
    return metrics


def _check_totals(training: Training, progress: Progress) -> None:
    """On a GPU not every step is looked at: here all of the epoch so far are, alike on all workers."""
    if not bool(torch.isfinite(progress.totals["loss"])):
        raise Diverged(
            f"The loss is not finite in stage {training.stage}, epoch {progress.epoch + 1}."
        )


def _settle_buckets(training: Training) -> None:
    """One step that changes nothing: DDP lays out its gradient buckets anew after its first, and their layout decides in
    which order three workers or more are summed. What is restored next overwrites the statistics that it touches."""
    if distributed.world_size() == 1:
        return
    side = training.config.data.image_size
    images = torch.zeros(
        2, 3, side, side, device=training.device
    )  # BatchNorm wants more than one value
    rows_MD, labels_M, slots_M = training.banked()
    with autocast(training):
        output = training.model(images, rows_MD)
    ones, weight_B = (
        torch.ones_like(output.logits_BL, dtype=torch.int8),
        torch.ones(2, device=training.device),
    )
    training.criterion(
        output, ones, weight_B, labels_M, slots_M, padded=training.padded
    ).loss.backward()
    training.optimizer.zero_grad(set_to_none=True)


def _share_buffers(training: Training) -> None:
    """BatchNorm statistics are each worker's own while training; the first worker's are evaluated and saved."""
    if distributed.world_size() == 1:
        return
    for module in (training.network, training.ema):
        for buffer in module.buffers() if module is not None else ():
            if buffer.device.type == training.device.type:
                dist.broadcast(buffer, src=0)


def _peak_memory(device: torch.device) -> float:
    """Peak megabytes: of the device, or of this process where that is the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
