"""The runs of a study on a cluster, in the order of what they need from each other."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyarrow import fs

from sadcl import storage
from sadcl.errors import UserError
from sadcl.ray_backend import cluster, event_channel, node_check, tasks, trainer, tuner
from sadcl.results import store
from sadcl.search.ablation import AblationPlan
from sadcl.search.plan import Plan
from sadcl.search.ranking import best_trials
from sadcl.search.trial import Trial
from sadcl.study import execute
from sadcl.study.checkpoint_quota import CheckpointQuota
from sadcl.study.live_table import LiveTable
from sadcl.study.placement import Placement, fit_to_cluster
from sadcl.study.record import StudyRecord
from sadcl.study.tensorboard import TensorBoardCurves

RETRY = "What was wrong may be gone: --retry-failed runs what failed again, with the same settings."


def run_search(
    study: StudyRecord[Plan],
    placement: Placement,
    address: str | None,
    data: Sequence[str],
    max_concurrent: int | None,
    disk: CheckpointQuota,
) -> None:
    """Run what a search still lacks.

    Args:
        address: from :func:`sadcl.ray_backend.environment.prepare`.
        data: names of files that every node of a cluster that is joined must have below the data root.
        max_concurrent: trials of the search at once; None as many as fit.
        disk: where checkpoints of the worst trials are removed to stay below a limit.

    Raises:
        UserError: for nodes that lack something, a trial that the cluster can never place, where stage 1 or all trials
            fail, or where the disk's limit is reached all the same.
    """
    plan, rows = study.plan, study.rows
    if plan.is_complete(rows):
        _finish_rows(placement, study)
        return
    searched = [row for row in rows if row["phase"] == "search"]
    with _scratch(placement, plan.study) as scratch, cluster.connected(address) as resources:
        if address is not None:
            node_check.check_nodes(placement, data)
        placement, fit_at_once = fit_to_cluster(placement, resources)
        history = [
            (row["key"], row["status"], store.curve(placement.storage, row["key"]))
            for row in _in_order(searched)
        ]
        channel = event_channel.open_channel(plan.search.pruner, history)
        scores = [row["val_mAP"] for row in searched if row["val_mAP"] is not None]
        with _watched(study, placement, channel, max(scores, default=None)):
            pool = tasks.TaskPool(placement, scratch, channel)
            stage1 = plan.stage1(plan.base)
            if stage1 is not None:
                pool.start(stage1)
            beside = [*plan.baselines(), *plan.controls()]
            for trial in beside:
                pool.start(trial)
            shared = pool.result(stage1) if stage1 is not None else None
            if shared is not None and shared["status"] != "complete":
                raise UserError(
                    f"Stage 1, which all trials start from, has failed: {shared['cause']} {RETRY}"
                )
            if (early := plan.early_stage1(shared)) is not None:
                pool.start(early)
            journal = _journal(placement.storage, plan.study)
            at_once = max_concurrent or fit_at_once
            tuner.run_trials(
                plan,
                searched,
                placement,
                journal=journal,
                concurrent=at_once,
                scratch=scratch,
                channel=channel,
                disk=disk,
            )
            rows = study.refresh()
            candidates = best_trials(rows, plan.search.confirm_top)
            if not candidates:
                cause = next(
                    (r["cause"] for r in rows if r["phase"] == "search" and r["cause"]),
                    "none was run",
                )
                raise UserError(
                    f"None of the trials of {plan.study!r} succeeded; the first cause: {cause} {RETRY}"
                )
            again = [trial for row in candidates for trial in plan.confirmations(row["settings"])]
            final = plan.final_of(rows)
            if (
                len(candidates) == 1 and final is not None
            ):  # nothing that is still to come can change the choice
                pool.start(final)
            for trial in again:
                pool.start(trial)
            for trial in again:
                pool.result(trial)
            final = plan.final_of(study.refresh())
            assert final is not None
            for trial in (final, *beside):
                pool.result(trial)
            _finish_rows(placement, study)


def run_ablation(
    study: StudyRecord[AblationPlan],
    placements: Mapping[str, Placement],
    address: str | None,
    data: Mapping[str, Sequence[str]],
    max_concurrent: int | None,
) -> None:
    """Run what an ablation still lacks; a run that fails is a row, and the others go on.

    Args:
        wheres, data: by data set, as for :func:`search`.
        address, max_concurrent: as for :func:`search`.

    Raises:
        UserError: for a run that the cluster can never place.
    """
    anywhere = next(iter(placements.values()))
    plan = study.plan
    if plan.is_complete(study.rows):
        _finish_rows(anywhere, study)
        return
    with _scratch(anywhere, plan.study) as scratch, cluster.connected(address) as resources:
        for name, placement in placements.items() if address is not None else ():
            node_check.check_nodes(placement, data[name])
        placed = {
            name: fit_to_cluster(placement, resources) for name, placement in placements.items()
        }
        channel = event_channel.open_channel()
        with _watched(study, anywhere, channel):
            pools = {
                name: tasks.TaskPool(placement, scratch, channel)
                for name, (placement, _) in placed.items()
            }
            waiting: list[Any] = []
            for name, (placement, fit_at_once) in placed.items():
                at_once = max_concurrent or (fit_at_once if placement.workers > 1 else None)
                pools[name].begin(plan.trials(name), at_once, waiting)
            for name, pool in pools.items():
                for trial in plan.trials(name):
                    for run in (trial.stage1, trial):
                        if run is not None:
                            pool.result(run)
            _finish_rows(anywhere, study)


def run_train(
    trial: Trial, placement: Placement, address: str | None, data: Sequence[str]
) -> dict[str, Any]:
    """One trial on a cluster, or on two workers or more; gives its row. Arguments are those of :func:`search`.

    Raises:
        UserError: for a trial that the cluster can never place.
        TrialFailed: where it fails; the row has the cause.
    """
    with _scratch(placement, trial.key) as scratch, cluster.connected(address) as resources:
        if address is not None:
            node_check.check_nodes(placement, data)
        placement, _ = fit_to_cluster(placement, resources)
        channel = event_channel.open_channel()
        try:
            with LiveTable(trial.key, lambda: event_channel.drain(channel), trial.epochs):
                return trainer.train(trial, placement, scratch, channel)
        finally:
            event_channel.close(channel)


@contextlib.contextmanager
def _watched(
    study: StudyRecord[Any],
    placement: Placement,
    channel: event_channel.EventChannel,
    best: float | None = None,
) -> Iterator[None]:
    """What people see, on the terminal and in TensorBoard."""
    curves = TensorBoardCurves(placement.storage, study.name, study.rows)
    epochs = study.plan.remaining_work(study.rows).epochs
    try:
        with LiveTable(study.name, lambda: curves.seen(event_channel.drain(channel)), epochs, best):
            yield
    finally:
        event_channel.close(channel)
        curves.close()


def _finish_rows(placement: Placement, study: StudyRecord[Any]) -> None:
    """Runs that were interrupted, and that nothing has asked for again, do not stay running; no state is left of others."""
    rows = study.refresh()
    execute.remove_stale_states(rows, placement)
    wanted = {trial.key for trial in study.plan.planned_trials(rows)}
    for row in rows:
        if row["study"] == study.name and row["status"] == "running" and row["key"] not in wanted:
            execute.record_abandoned(
                row, placement, "it was interrupted, and the study needs it no more"
            )


def _in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: row["started"])


@contextlib.contextmanager
def _scratch(placement: Placement, name: str) -> Iterator[str]:
    """A place for what Ray writes itself, which every node has to see; nothing of it is needed afterwards."""
    place = storage.join(placement.storage, ".ray", name)
    storage.delete(place)  # of a driver that was killed
    try:
        yield place
    finally:
        with contextlib.suppress(OSError):  # a process that is about to end may still write there
            storage.delete(place)


def _journal(root: str, name: str) -> Path:
    """Optuna's journal lies beside the tables where that is a disk; a copy of the truth, made anew at every start."""
    system, path = storage.resolve(root)
    folder = (
        Path(path)
        if isinstance(system, fs.LocalFileSystem)
        else Path(tempfile.mkdtemp(prefix="sadcl-"))
    )
    return folder / "optuna" / f"{name}.journal"
