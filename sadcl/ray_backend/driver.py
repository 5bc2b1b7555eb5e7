"""The phases of a study on a cluster, in the order of what they need from each other."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pyarrow import fs

from sadcl import storage, study
from sadcl.console import Watch
from sadcl.errors import UserError
from sadcl.ray_backend import board as boards
from sadcl.ray_backend import cluster, jobs, nodes, preflight, trainer, tuner
from sadcl.results import store
from sadcl.runner import Where
from sadcl.search.plan import Plan, Trial, best


def drive(plan: Plan, where: Where, address: str | None, data: Sequence[str], max_concurrent: int | None) -> None:
    """Run what a study still lacks; runs that failed before are tried again.

    Args:
        address: from :func:`sadcl.ray_backend.environment.prepare`.
        data: names of files that every node of a cluster that is joined must have below the data root.
        max_concurrent: trials of the search at once; None as many as fit.

    Raises:
        UserError: for nodes that lack something, a trial that the cluster can never place, or where stage 1 or all trials
            fail.
    """
    rows = study.rows(where.storage, plan)
    if plan.answered(rows):
        return
    searched = [row for row in rows if row["phase"] == "search"]
    with _scratch(where, plan.study) as scratch, cluster.connected(address) as resources:
        if address is not None:
            nodes.check(where, data)
        where, fit_at_once = preflight.place(where, resources)
        for row in searched:
            if row["status"] == "failed":
                store.reopen(where.storage, row["key"])
        board = boards.open_board()
        scores = [row["val_mAP"] for row in searched if row["val_mAP"] is not None]
        with Watch(plan.study, lambda: boards.drain(board), plan.epochs_left(rows), max(scores, default=None)):
            pool = jobs.Jobs(where, scratch, board)
            stage1 = plan.stage1(plan.base)
            if stage1 is not None:
                pool.start(stage1)
            beside = [*plan.baselines(), *plan.controls()]
            for trial in beside:
                pool.start(trial)
            shared = pool.result(stage1) if stage1 is not None else None
            if shared is not None and shared["status"] != "complete":
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
                journal=_journal(where.storage, plan.study),
                seed=plan.base.seed,
                concurrent=max_concurrent or fit_at_once,
                scratch=scratch,
                board=board,
            )
            rows = study.rows(where.storage, plan)
            candidates = best(rows, plan.search.confirm_top)
            if not candidates:
                cause = next((r["cause"] for r in rows if r["phase"] == "search" and r["cause"]), "none was run")
                raise UserError(f"None of the trials of {plan.study!r} succeeded; the first cause: {cause}")
            again = [trial for row in candidates for trial in plan.confirm(row["settings"])]
            final = plan.final_of(rows)
            if len(candidates) == 1 and final is not None:  # nothing that is still to come can change the choice
                pool.start(final)
            for trial in again:
                pool.start(trial)
            for trial in again:
                pool.result(trial)
            final = plan.final_of(study.rows(where.storage, plan))
            assert final is not None
            for trial in (final, *beside):
                pool.result(trial)


def train(trial: Trial, where: Where, address: str | None, data: Sequence[str]) -> dict[str, Any]:
    """One trial on two workers or more; gives its row. Arguments are those of :func:`drive`.

    Raises:
        UserError: for nodes that lack something, or a trial that the cluster can never place.
        TrialFailed: where it fails; the row has the cause.
    """
    with _scratch(where, trial.key) as scratch, cluster.connected(address) as resources:
        if address is not None:
            nodes.check(where, data)
        where, _ = preflight.place(where, resources)
        board = boards.open_board()
        with Watch(trial.key, lambda: boards.drain(board), trial.epochs):
            return trainer.train(trial, where, scratch, board)


@contextlib.contextmanager
def _scratch(where: Where, name: str) -> Iterator[str]:
    """A place for what Ray writes itself, which every node has to see; nothing of it is needed afterwards."""
    place = storage.join(where.storage, ".ray", name)
    storage.delete(place)  # of a driver that was killed
    try:
        yield place
    finally:
        storage.delete(place)


def _journal(root: str, name: str) -> Path:
    """Optuna's journal lies beside the tables where that is a disk; a copy of the truth, made anew at every start."""
    system, path = storage.resolve(root)
    folder = Path(path) if isinstance(system, fs.LocalFileSystem) else Path(tempfile.gettempdir()) / f"sadcl-{os.getpid()}"
    return folder / "optuna" / f"{name}.journal"
