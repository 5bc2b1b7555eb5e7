"""The runs of a study on a cluster, in the order of what they need from each other."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyarrow import fs

from sadcl import storage
from sadcl.errors import UserError
from sadcl.ray_backend import cluster, environment, event_channel, node_check, tasks, trainer, tuner
from sadcl.results import published_tables, store
from sadcl.search.ablation import AblationPlan
from sadcl.search.plan import Plan, ended_keys
from sadcl.search.ranking import best_trials
from sadcl.search.trial import Trial
from sadcl.study import execute
from sadcl.study.checkpoint_quota import CheckpointQuota
from sadcl.study.live_table import LiveTable
from sadcl.study.placement import Placement, fit_to_cluster
from sadcl.study.record import StudyRecord
from sadcl.study.tensorboard import TensorBoardCurves

RETRY = "Once the cause is removed, --retry-failed runs again what failed, with the same settings."

Rows = list[dict[str, Any]]


@environment.restored_afterwards()
def run_search(
    study: StudyRecord[Plan],
    placement: Placement,
    address: str | None,
    witnesses: Sequence[str],
    max_concurrent: int | None,
    quota: CheckpointQuota,
) -> None:
    """Run what a search still lacks: stage 1, baselines, trials, confirmation and the final run.

    Args:
        address: From :func:`sadcl.ray_backend.environment.prepare`.
        witnesses: Files below the data root that every node of a joined cluster must have.
        max_concurrent: The number of the search's trials at once; None runs as many as fit.
        quota: Limits the checkpoints, and removes those of the worst trials.

    Raises:
        UserError: For nodes that lack something, a trial that the cluster can never place, where
            stage 1 or all trials fail, or where the limit of the disk is reached all the same.
    """
    plan, rows = study.plan, study.rows
    if plan.is_complete(rows):
        _finish_rows(placement, study)
        published_tables.finish(study.root, [study.name])
        return
    trial_rows = [row for row in rows if row["phase"] == "search"]
    with (
        _scratch(placement, plan.study) as scratch,
        cluster.connected(address, plan.sources) as nodes,
    ):
        if address is not None:
            node_check.check_nodes(placement, witnesses)
        placement, fitting = fit_to_cluster(placement, nodes)
        channel = event_channel.open_channel(
            plan.search.pruner, _pruning_history(placement, trial_rows)
        )
        scores = [row["val_mAP"] for row in trial_rows if row["val_mAP"] is not None]
        with _progress_shown(study, placement, channel, max(scores, default=None)):
            pool = tasks.TaskPool(placement, scratch, channel)
            baselines = [*plan.baselines(), *plan.controls()]
            _run_stage1(plan, pool, baselines)
            tuner.run_trials(
                plan,
                trial_rows,
                placement,
                journal=_journal_path(placement.storage, plan.study),
                max_concurrent=max_concurrent or fitting,
                scratch=scratch,
                channel=channel,
                quota=quota,
            )
            final = _run_confirmation(study, pool)
            for trial in filter(None, (final, *baselines)):
                pool.result(trial)
            _finish_rows(placement, study)


def _pruning_history(placement: Placement, trial_rows: Rows) -> event_channel.History:
    """Return what the pruner compares new trials with: the curves of those before, oldest first."""
    return [
        (row["key"], row["status"], store.curve(placement.storage, row["key"]))
        for row in sorted(trial_rows, key=lambda row: row["started"])
    ]


def _run_stage1(plan: Plan, pool: tasks.TaskPool, baselines: Sequence[Trial]) -> None:
    """Train the stage 1 that all trials start from, and start what needs no result of the search.

    Raises:
        UserError: Where stage 1 fails.
    """
    stage1 = plan.stage1(plan.base)
    if stage1 is not None:
        pool.start(stage1)
    for trial in baselines:
        pool.start(trial)
    row = pool.result(stage1) if stage1 is not None else None
    if row is not None and row["status"] != "complete":
        cause = row["cause"].rstrip(".")
        raise UserError(f"Stage 1, which all trials start from, has failed: {cause}. {RETRY}")
    final_stage1 = plan.early_stage1(row)
    if final_stage1 is not None:
        pool.start(final_stage1)


def _run_confirmation(study: StudyRecord[Plan], pool: tasks.TaskPool) -> Trial | None:
    """Train the best trials over the fresh seeds, and give the final run of the winner.

    Without fresh seeds there is neither.

    Raises:
        UserError: Where all trials of the search have failed.
    """
    plan, rows = study.plan, study.refresh()
    candidates = best_trials(rows, plan.search.confirm_top)
    if not candidates:
        causes = [r["cause"] for r in rows if r["phase"] == "search" and r["cause"]]
        raise UserError(
            f"None of the trials of {plan.study!r} succeeded; the first cause: "
            f"{(causes[0] if causes else 'none was run').rstrip('.')}. {RETRY}"
        )
    if not plan.search.confirm_seeds:
        return None
    trials = [trial for row in candidates for trial in plan.confirmations(row["settings"])]
    final = plan.final_of(rows)
    if len(candidates) == 1 and final is not None:  # its seeds cannot change the choice
        pool.start(final)
    for trial in trials:
        pool.start(trial)
    ended = [pool.result(run) for trial in trials for run in (trial.stage1, trial) if run]
    final = plan.final_of(_with_results(study.refresh(), ended))
    assert final is not None
    return final


def _with_results(rows: Rows, results: Iterable[dict[str, Any]]) -> Rows:
    """Return rows with those of runs that have ended.

    A shared disk may show a file later than the run that wrote it has ended.
    """
    return list({row["key"]: row for row in (*rows, *results)}.values())


@environment.restored_afterwards()
def run_ablation(
    study: StudyRecord[AblationPlan],
    placements: Mapping[str, Placement],
    address: str | None,
    witnesses: Mapping[str, Sequence[str]],
    max_concurrent: int | None,
) -> None:
    """Run what an ablation still lacks; a run that fails is a row, and the others continue.

    Args:
        placements, witnesses: By data set, as for :func:`run_search`.
        address, max_concurrent: As for :func:`run_search`.

    Raises:
        UserError: For nodes that lack something, or a run that the cluster can never place.
    """
    any_placement = next(iter(placements.values()))
    plan = study.plan
    if plan.is_complete(study.rows):
        _finish_rows(any_placement, study)
        published_tables.finish(study.root, [study.name])
        return
    with (
        _scratch(any_placement, plan.study) as scratch,
        cluster.connected(address, plan.sources) as nodes,
    ):
        for name, placement in placements.items() if address is not None else ():
            node_check.check_nodes(placement, witnesses[name])
        fitted = {name: fit_to_cluster(placement, nodes) for name, placement in placements.items()}
        channel = event_channel.open_channel()
        with _progress_shown(study, any_placement, channel) as live:
            pools = {
                name: tasks.TaskPool(placement, scratch, channel)
                for name, (placement, _) in fitted.items()
            }
            limits = {
                name: max_concurrent or (fitting if placement.workers > 1 else None)
                for name, (placement, fitting) in fitted.items()
            }
            _run_arms(study, pools, limits, live)
            _finish_rows(any_placement, study)


def _run_arms(
    study: StudyRecord[AblationPlan],
    pools: Mapping[str, tasks.TaskPool],
    limits: Mapping[str, int | None],
    live: LiveTable,
) -> None:
    """Start all runs and wait for them.

    Where seeds are added until the differences are settled, each run that ends may ask for others.
    """
    plan, rows = study.plan, study.rows
    before, planned = ended_keys(rows), plan.remaining_work(rows).epochs
    results: dict[str, dict[str, Any]] = {}
    running: list[Any] = []
    waiting: dict[str, tuple[tasks.TaskPool, Trial]] = {}
    ended: set[str] = set()
    while True:
        for name, pool in pools.items():
            new = [t for t in plan.trials(name, rows) if t.key not in waiting.keys() | ended]
            pool.start_all(new, limits[name], running)
            waiting |= {trial.key: (pool, trial) for trial in new}
        if not waiting:
            return
        for key in tasks.first_ended(waiting):
            pool, trial = waiting.pop(key)
            for run in (trial.stage1, trial):
                if run is not None:
                    results[run.key] = pool.result(run)
            ended.add(key)
        if plan.ablation.until is not None:
            rows = _with_results(study.refresh(), results.values())
            now = plan.trained_epochs(rows, before) + plan.remaining_work(rows).epochs
            live.epochs, planned = live.epochs + now - planned, now


@environment.restored_afterwards()
def run_train(
    trial: Trial, placement: Placement, address: str | None, witnesses: Sequence[str]
) -> dict[str, Any]:
    """Run one trial on a cluster, or on two workers or more, and give its row.

    Args:
        placement, address, witnesses: As for :func:`run_search`.

    Raises:
        UserError: For nodes that lack something, or a trial that the cluster can never place.
        TrialFailed: Where it fails; the row has the cause.
    """
    with (
        _scratch(placement, trial.key) as scratch,
        cluster.connected(address, trial.config.sources) as nodes,
    ):
        if address is not None:
            node_check.check_nodes(placement, witnesses)
        placement, _ = fit_to_cluster(placement, nodes)
        channel = event_channel.open_channel()
        try:
            with (
                published_tables.kept_up_to_date(placement.storage, trial.study),
                LiveTable(trial.key, lambda: event_channel.drain(channel), trial.epochs),
            ):
                return trainer.train(trial, placement, scratch, channel)
        finally:
            event_channel.close(channel)


@contextlib.contextmanager
def _progress_shown(
    study: StudyRecord[Any],
    placement: Placement,
    channel: event_channel.EventChannel,
    best: float | None = None,
) -> Iterator[LiveTable]:
    """Show on the terminal, in TensorBoard and to readers of the tables what runs."""
    curves = TensorBoardCurves(placement.storage, study.name, study.rows, study.plan.fields)
    epochs = study.plan.remaining_work(study.rows).epochs
    is_limit = isinstance(study.plan, AblationPlan) and study.plan.ablation.until is not None
    try:
        with (
            published_tables.kept_up_to_date(placement.storage, study.name),
            LiveTable(
                study.name,
                lambda: curves.add(event_channel.drain(channel)),
                epochs,
                best,
                is_limit=is_limit,
            ) as live,
        ):
            yield live
    finally:
        event_channel.close(channel)
        curves.close()


def _finish_rows(placement: Placement, study: StudyRecord[Any]) -> None:
    """End the interrupted runs that the study needs no more, and remove states left over."""
    rows = study.refresh()
    execute.remove_stale_states(rows, placement)
    needed = {trial.key for trial in study.plan.planned_trials(rows)}
    for row in rows:
        if row["study"] == study.name and row["status"] == "running" and row["key"] not in needed:
            execute.record_abandoned(
                row, placement, "it was interrupted, and the study needs it no more"
            )


@contextlib.contextmanager
def _scratch(placement: Placement, name: str) -> Iterator[str]:
    """Return a folder for what Ray writes, which every node must see, and remove it at the end."""
    folder = storage.join(placement.storage, ".ray", name)
    storage.delete(folder)  # of a driver that was killed
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):  # a process that is about to end may still write there
            storage.delete(folder)


def _journal_path(root: str, study: str) -> Path:
    """Return the path of Optuna's journal, which is next to the tables where those are on a disk.

    It is a copy of the tables and rebuilt at every start, so that elsewhere a temporary folder will
    do.
    """
    system, path = storage.resolve(root)
    folder = (
        Path(path)
        if isinstance(system, fs.LocalFileSystem)
        else Path(tempfile.mkdtemp(prefix="sadcl-"))
    )
    return folder / "optuna" / f"{study}.journal"
