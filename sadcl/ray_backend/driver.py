"""The phases of a study on a cluster, in the order of what they need from each other."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from pyarrow import fs

from sadcl import runner, storage, study
from sadcl.console import Watch
from sadcl.errors import UserError
from sadcl.ray_backend import board as boards
from sadcl.ray_backend import cluster, jobs, preflight, trainer, tuner
from sadcl.results import store
from sadcl.runner import Where
from sadcl.search.plan import Plan, Trial, best, winner


def drive(plan: Plan, where: Where, address: str | None, max_concurrent: int | None) -> None:
    """Run what a study still lacks; runs that failed before are tried again.

    Args:
        address: from :func:`sadcl.ray_backend.environment.prepare`.
        max_concurrent: trials of the search at once; None as many as fit.

    Raises:
        UserError: for a trial that the cluster can never place, or where stage 1 or all trials fail.
    """
    rows = study.rows(where.storage, plan.study)
    if _answered(plan, where, rows):
        return
    ended = {row["key"] for row in rows if row["status"] in ("complete", "pruned")}
    searched = [row for row in rows if row["phase"] == "search"]
    for row in searched:
        if row["status"] == "failed":
            store.delete(where.storage, row["key"])
    tried = [row for row in searched if row["key"] in ended]
    with tempfile.TemporaryDirectory(prefix="sadcl-") as scratch, cluster.connected(address) as available:
        fit_at_once = preflight.check_resources(available, workers=where.workers, cpus=where.cpus, gpus=where.gpus)
        board = boards.open_board()
        scores = [row["val_mAP"] for row in tried if row["val_mAP"] is not None]
        left = plan.epochs_left(ended, len(tried))
        with Watch(plan.study, lambda: boards.drain(board), left, max(scores, default=None)):
            pool = jobs.Jobs(where, scratch, board)
            stage1 = plan.stage1(plan.base)
            pool.start(stage1)
            beside = [*plan.baselines(), *plan.controls()]
            for trial in beside:
                pool.start(trial)
            shared = pool.result(stage1)
            if shared["status"] != "complete":
                raise UserError(f"Stage 1, which all trials start from, has failed: {shared['cause']}")
            if (early := plan.early_stage1(shared)) is not None:
                pool.start(early)
            tuner.search(
                plan.search.space_at(plan.scale),
                plan.total,
                searched,
                plan.try_out,
                where,
                study=plan.study,
                journal=_journal(where.storage, plan.study, scratch),
                seed=plan.base.seed,
                concurrent=max_concurrent or fit_at_once,
                scratch=scratch,
                board=board,
            )
            found = study.rows(where.storage, plan.study)
            candidates = best(found, plan.search.confirm_top)
            if not candidates:
                cause = next((r["cause"] for r in found if r["phase"] == "search" and r["cause"]), "none was run")
                raise UserError(f"None of the trials of {plan.study!r} succeeded; the first cause: {cause}")
            again = [trial for row in candidates for trial in plan.confirm(row["settings"])]
            final = _final(plan, pool, candidates[0], shared)
            for trial in again:
                pool.start(trial)
            if len(candidates) == 1:  # nothing that is still to come can change the choice
                pool.start(final)
            for trial in again:
                pool.result(trial)
            chosen = winner(study.rows(where.storage, plan.study), plan.search.confirm_top)
            assert chosen is not None
            final = _final(plan, pool, chosen, shared)
            for trial in (final, *beside):
                pool.result(trial)


def _answered(plan: Plan, where: Where, rows: list[dict[str, Any]]) -> bool:
    """Whether nothing is left to run."""
    tried = [row for row in rows if row["phase"] == "search" and row["status"] in ("complete", "pruned")]
    chosen = winner(rows, plan.search.confirm_top)
    if len(tried) < plan.total or chosen is None:
        return False
    again = [trial for row in best(rows, plan.search.confirm_top) for trial in plan.confirm(row["settings"])]
    needed = [plan.stage1(plan.base), *plan.baselines(), *plan.controls(), *again]
    if any(runner.finished(trial, where) is None for trial in needed):
        return False
    shared = store.row_of(where.storage, chosen["stage1_key"])
    return shared is not None and runner.finished(plan.final(chosen["settings"], shared, chosen), where) is not None


def _final(plan: Plan, pool: jobs.Jobs, row: dict[str, Any], shared: dict[str, Any]) -> Trial:
    """The final run of a setting; its stage 1 starts at once, because every setting needs the same."""
    own = row["stage1_key"]
    trial = plan.final(row["settings"], store.row_of(pool.where.storage, own) or shared, row)
    assert trial.stage1 is not None
    pool.start(trial.stage1)
    return trial


def train(trial: Trial, where: Where, address: str | None) -> dict[str, Any]:
    """One trial on two workers or more; gives its row.

    Raises:
        UserError: for a trial that the cluster can never place.
        TrialFailed: where it fails; the row has the cause.
    """
    with tempfile.TemporaryDirectory(prefix="sadcl-") as scratch, cluster.connected(address) as available:
        preflight.check_resources(available, workers=where.workers, cpus=where.cpus, gpus=where.gpus)
        board = boards.open_board()
        with Watch(trial.key, lambda: boards.drain(board), trial.epochs):
            return trainer.train(trial, where, scratch, board)


def _journal(root: str, name: str, scratch: str) -> Path:
    """Optuna's journal lies beside the tables where that is a disk; a copy of the truth, made anew at every start."""
    system, path = storage.resolve(root)
    folder = Path(path) if isinstance(system, fs.LocalFileSystem) else Path(scratch)
    return folder / "optuna" / f"{name}.journal"
