"""The stages of a run: train epoch by epoch, select, save, resume.

It runs alone or on every worker of a torch.distributed group, and knows nothing of what started it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import torch

from sadcl import build, distributed, storage
from sadcl.config import Config
from sadcl.data.base import MultiLabelData
from sadcl.errors import UserError
from sadcl.training import checkpoint, replica_check, selection, sync_points
from sadcl.training.checkpoint_writer import CheckpointWriter
from sadcl.training.ddp import settle_buckets, share_buffers
from sadcl.training.engine import (
    Diverged,
    Training,
    shared_state,
    train_step,
)
from sadcl.training.features import store_of
from sadcl.training.first_values import measure
from sadcl.training.report import Callbacks, Epoch, Outcome
from sadcl.training.resume import (
    Progress,
    joined_precisions,
    note_precision,
    restore,
    resume_state,
    worker_state,
)
from sadcl.training.setup import (
    co_occurrence,
    peak_memory_mb,
    pick_device,
    prepare,
    with_normalisation,
)

MAX_STEPS_BETWEEN_SYNCS = 50
"""Steps at most between two sync points, at which replicas are compared and the state is saved."""
MEASURED_STEPS = 4
"""Steps of an epoch, evenly spread, in which the gradients of the terms are measured."""
SAVE_SECONDS = 600.0
"""Within an epoch the state is saved this often; it is always saved at the end of one."""


def fit(
    config: Config,
    data: MultiLabelData,
    folder: str,
    *,
    stage1: str | None = None,
    test: bool = False,
    callbacks: Callbacks | None = None,
    device: str | None = None,
    loader_workers: int = 0,
) -> Outcome:
    """Train both stages, or what remains of them after an interruption.

    Args:
        config: what to train; with ``stage2.epochs = 0`` the outcome is that of stage 1 alone (the
            baseline, SARL).
        data: from :func:`sadcl.data.load`.
        folder: URI of this run's checkpoints: ``best.pt``, ``last.pt`` (the same kind of weights
            after the last epoch), and ``state.pt``, from which an interrupted run resumes.
        stage1: URI of a stage-1 ``best.pt`` to start stage 2 from. None trains stage 1 first, in
            ``folder/stage1``, or starts from ``model.start`` where stage 1 has no epochs.
        test: evaluate the selected weights on the test split at the end, once.
        callbacks: what is called after each epoch and step, and to ask whether to leave.
        device: ``cpu``, ``cuda`` or ``cuda:1``; None takes a GPU where there is one.
        loader_workers: processes that decode images; 0 decodes in this one.

    Raises:
        UserError: for a split without images, a device that does not exist, or a checkpoint that
            does not fit.
        Diverged: for a loss that is not finite.
        Disagreement: where workers no longer hold the same bank, prototypes or weights.
        Rescheduled: where the run was asked to leave; the same call resumes it, on any number of
            workers.
    """
    if not len(data.train):
        raise UserError(f"The training split of {data.name} has no images.")
    build.check_batches(config, data)
    worker = build.Worker(
        distributed.rank(), distributed.world_size(), pick_device(device), loader_workers
    )
    run = _Run(with_normalisation(config), data, worker, callbacks or Callbacks())
    if config.stage2.epochs == 0:
        if stage1 is not None:
            return _adopt_stage1(run, stage1, folder, test)
        return _train_stage(run, 1, folder, start=config.model.start, test=test)
    if stage1 is not None or config.stage1.epochs == 0:
        return _train_stage(run, 2, folder, start=stage1 or config.model.start, test=test)
    first = _train_stage(run, 1, storage.join(folder, "stage1"), start=config.model.start)
    if first.stopped:
        return first
    second = _train_stage(run, 2, folder, start=first.checkpoint, test=test)
    return replace(
        second,
        seconds=first.seconds + second.seconds,
        images=first.images + second.images,
        precision=joined_precisions([*first.precision.split(" then "), second.precision]),
    )


@dataclass(frozen=True)
class _Run:
    """What both stages share."""

    config: Config
    data: MultiLabelData
    worker: build.Worker
    callbacks: Callbacks


def _train_stage(
    run: _Run, number: int, folder: str, *, start: str | None, test: bool = False
) -> Outcome:
    with CheckpointWriter(run.worker.device) as writer:
        stage = _Stage(run, number, folder, start, writer)
        while not stage.progress.done:
            stage.run_epoch()
    sync_points.barrier()  # from here on all workers read what the first one has written
    best = stage.progress.best
    selection.save_last(stage.training, run.data, stage.progress.epoch, best["weights"], folder)
    return _outcome(run, stage.training, folder, best, stage.progress, test)


def _adopt_stage1(run: _Run, stage1: str, folder: str, test: bool) -> Outcome:
    """Take the figures and weights of a stage 1 that several runs share; nothing is trained."""
    content = checkpoint.load_checkpoint(stage1)
    storage.make(folder)
    if distributed.rank() == 0:
        checkpoint.save_checkpoint(storage.join(folder, "best.pt"), content)
    sync_points.barrier()
    steps = build.loader(run.config, run.data.train, run.worker, training=True).steps
    training = prepare(1, run.config, run.data.labels, run.worker.device, steps, resume=True)
    return _outcome(run, training, folder, content, Progress(), test)


def _outcome(
    run: _Run,
    training: Training,
    folder: str,
    selected: dict[str, Any],
    progress: Progress,
    test: bool,
) -> Outcome:
    """Evaluate the selected weights on the test images where asked, and collect the figures.

    Args:
        run: the run.
        training: the stage that the weights belong to.
        folder: URI of the run's checkpoints.
        selected: epoch, weights, metrics, rows and logits, of the best epoch.
        progress: of the stage; a new one where nothing was trained.
        test: whether to evaluate the test images.
    """
    metrics, rows, logits = (
        selection.evaluate_test(training, run.data, folder, run.worker, run.callbacks.features)
        if test
        else ({}, [], {})
    )
    sync_points.barrier()
    return Outcome(
        checkpoint=storage.join(folder, "best.pt"),
        stage=training.stage,
        epoch=selected["epoch"],
        weights=selected["weights"],
        metrics={**selected["metrics"], **metrics},
        labels=selected["rows"] + rows,
        seconds=progress.seconds,
        images=progress.images,
        memory_mb=peak_memory_mb(training.device),
        normalisation=build.normalisation(run.config),
        precision=joined_precisions(progress.precisions)
        or selected.get("precision", build.precision(run.config, training.device)),
        logits={**selected.get("logits", {}), **logits},
        stopped=progress.stopped,
    )


class _Stage:
    """One stage of a run, new or resumed from its saved state.

    Args:
        run: what both stages share.
        number: 1 or 2.
        folder: URI of the stage's checkpoints.
        start: URI of the checkpoint that it starts from; None starts from initial weights.
        writer: of its checkpoints.
    """

    def __init__(
        self, run: _Run, number: int, folder: str, start: str | None, writer: CheckpointWriter
    ) -> None:
        config, data, worker = run.config, run.data, run.worker
        self.run, self.folder, self.state_uri = run, folder, storage.join(folder, "state.pt")
        self._writer = writer
        self.settings = config.stage1 if number == 1 else config.stage2
        self.loader = build.loader(
            config, data.train, worker, augmentation=self.settings.augmentation, training=True
        )
        storage.make(folder)
        resume = sync_points.first_worker_decides(
            distributed.rank() == 0 and storage.exists(self.state_uri), worker.device
        )
        self.training = prepare(
            number,
            config,
            data.labels,
            worker.device,
            self.loader.steps,
            start=start,
            resume=resume,
            co_occurrence_LL=co_occurrence(data.train.targets),
        )
        self.progress = self._restored() if resume else Progress()
        precision = build.precision(config, worker.device)
        note_precision(self.progress, precision, run.callbacks.precision_changed)
        self.store = store_of(config, self.training.network, data, worker, run.callbacks.features)
        if self.store is not None:
            maps = self.store.split("train", self.settings.augmentation)
            self.loader = build.loader(config, data.train, worker, training=True, features=maps)
            if len(data.val):  # not in the time of the first epoch
                self.store.split("val")
        if not resume:
            measure(self.training, data, worker, self.store)
        self._counted_until = time.monotonic()
        """Up to when ``progress.seconds`` counts."""
        self._measured_steps = {
            int(self.loader.steps * (k + 0.5) / MEASURED_STEPS) for k in range(MEASURED_STEPS)
        }
        """Steps of an epoch, from 0, in which the gradients of the terms are measured."""
        self._sync_points = sync_points.SyncPoints(self.training.step, MAX_STEPS_BETWEEN_SYNCS)

    def _restored(self) -> Progress:
        settle_buckets(self.training, len(self.run.data.labels))
        storage.wait_for_file(self.state_uri)
        return restore(self.training, checkpoint.load_checkpoint(self.state_uri))

    def run_epoch(self) -> None:
        """Train an epoch or what remains of it, evaluate, report and save."""
        training, progress = self.training, self.progress
        start, remaining = time.monotonic(), self.loader.steps - progress.step
        metrics = self._train_epoch()
        if remaining:
            images = self.loader.images_per_epoch * remaining / self.loader.steps
            metrics["images_per_second"] = images / (time.monotonic() - start)
        metrics["lr"] = max(map(float, training.schedule.get_last_lr()))
        progress.epoch, progress.step, progress.totals = progress.epoch + 1, 0, {}
        figures, progress.best = selection.select(
            training, self.run.data, progress.best, progress.epoch, self.run.worker, self.store
        )
        self._note_better(figures)
        progress.done = progress.epoch == self.settings.epochs or self._patience_is_over()
        self._count_seconds()
        metrics |= figures
        metrics["seconds"] = progress.seconds - progress.before
        metrics["memory_mb"] = peak_memory_mb(training.device)
        progress.before = progress.seconds
        progress.images += self.loader.images_per_epoch
        self._report(metrics)
        self._save(with_best=progress.best["epoch"] == progress.epoch)

    def _train_epoch(self) -> dict[str, float]:
        """Train on the rest of the epoch's batches; return the means of the global terms."""
        training, progress = self.training, self.progress
        training.network.train()
        epoch, totals = progress.epoch + 1, progress.totals
        step_done = self.run.callbacks.step_done
        for batch in self.loader.batches(epoch, progress.step):
            measure = progress.step in self._measured_steps
            for name, value in train_step(training, batch, measure_gradients=measure).items():
                totals[name] = totals[name] + value if name in totals else value.clone()
            progress.step += 1
            if step_done is not None:
                seconds = training.sync_timer.lap()
                step_done(training.stage, epoch, progress.step, self.loader.steps, seconds)
            self._sync()
        self._check_totals()
        metrics = self._means()
        weights = {f"model.{name}": p for name, p in training.network.named_parameters()}
        replica_check.check_replicas({**shared_state(training), **weights}, training.step)
        share_buffers(training)
        return metrics

    def _means(self) -> dict[str, float]:
        """Mean of each global term over the epoch's steps, and what bank and prototypes took in."""
        training, totals = self.training, self.progress.totals
        counts = {True: len(self._measured_steps), False: self.loader.steps}
        metrics = {
            name: float(total) / counts[name.startswith("gradient_")]
            for name, total in totals.items()
            if name != "admitted_L"
        }
        if training.bank is not None and training.network.prototypes is not None:
            training.network.prototypes.end_epoch()
            metrics["admitted"] = float(totals["admitted_L"].double().mean())
            metrics["labels_admitted"] = float((totals["admitted_L"] > 0).sum())
            metrics["bank_fill"] = float(training.bank.count_valid())
        return metrics

    def _sync(self) -> None:
        """At a sync point compare the replicas, save where it is time, and leave where asked to.

        Raises:
            Rescheduled: after saving, where the run is to leave.
        """
        training, last_step = self.training, self.progress.step == self.loader.steps
        if training.step < self._sync_points.next and not last_step:
            return
        replica_check.check_replicas(shared_state(training), training.step)
        ask = self.run.callbacks.leave_reason
        reason = ask() if ask is not None and distributed.rank() == 0 else None
        is_old = time.monotonic() - self._counted_until >= SAVE_SECONDS
        save, leave = self._sync_points.agree(training.step, training.device, is_old, bool(reason))
        if save or leave:
            self._check_totals()  # a state that is lost must not replace a good one
            self._save()
        if leave:
            self._writer.wait()
            sync_points.barrier()
            raise sync_points.Rescheduled(reason or sync_points.DECIDED_ELSEWHERE)

    def _check_totals(self) -> None:
        """Check all steps of the epoch so far, alike on all workers; a GPU's steps check fewer."""
        if not bool(torch.isfinite(self.progress.totals["loss"])):
            raise Diverged(
                f"The loss is not finite in stage {self.training.stage}, "
                f"epoch {self.progress.epoch + 1}."
            )

    def _note_better(self, figures: dict[str, float]) -> None:
        """Remember the epoch if a figure that ``patience`` counts is better than ever before."""
        progress = self.progress
        counted = {"selected": ["val_mAP"], "any": ["val_mAP_raw", "val_mAP_ema"]}
        for name in counted[self.settings.patience_counts]:
            value = selection.rank(figures.get(name, math.nan))
            if value > progress.highest.get(name, -math.inf):
                progress.highest[name], progress.better_epoch = value, progress.epoch

    def _patience_is_over(self) -> bool:
        patience, progress = self.settings.patience, self.progress
        if patience is None or not len(self.run.data.val):
            return False
        return progress.epoch - progress.better_epoch >= patience

    def _report(self, metrics: dict[str, float]) -> None:
        """Report the epoch on the first worker, and stop on all workers where it says so."""
        progress, report, reason = self.progress, self.run.callbacks.report, None
        if report is not None and distributed.rank() == 0:
            number, epochs = self.training.stage, self.settings.epochs
            reason = report(Epoch(number, progress.epoch, epochs, metrics))
        stop = sync_points.first_worker_decides(bool(reason), self.training.device)
        if stop and not progress.done:
            progress.done, progress.stopped = True, reason or sync_points.DECIDED_ELSEWHERE

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self._counted_until
        self._counted_until = now

    def _save(self, *, with_best: bool = False) -> None:
        """Save the state from which the stage can resume. This is a collective call.

        The files are written while training continues: ``best.pt`` first, since the state knows of
        no epoch whose weights are not there.

        Args:
            with_best: save the weights as the best so far too.
        """
        worker_states = worker_state(self.training)
        self._count_seconds()
        if distributed.rank() != 0:
            return
        contents = {}
        if with_best:
            uri, best = storage.join(self.folder, "best.pt"), self.progress.best
            contents[uri] = selection.weights_checkpoint(self.training, self.run.data, best)
        contents[self.state_uri] = resume_state(self.training, self.progress, worker_states)
        self._writer.save(contents)
