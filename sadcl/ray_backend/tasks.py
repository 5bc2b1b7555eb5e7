"""Trials that are known beforehand: Ray tasks, as many at once as fit."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import ray
from ray.exceptions import RayError, RayTaskError

from sadcl import storage
from sadcl.errors import FailureKind, TrialFailed
from sadcl.ray_backend import capacity
from sadcl.ray_backend.event_channel import EventChannel, emit, emitter
from sadcl.results import store
from sadcl.search.trial import Trial
from sadcl.study import execute, process
from sadcl.study.failure import MAX_RESTARTS, cause_of
from sadcl.study.placement import Placement
from sadcl.study.trial_event import TrialEnded
from sadcl.training import Rescheduled

FLUSH_SECONDS = 1.0
"""A process that ends itself stays for so long, so that its last events leave it."""


class Restart(RuntimeError):
    """Tells Ray to start a trial again, and why."""


def given_up_cause(trial: Trial, placement: Placement, reasons: str) -> str:
    """Say why a trial failed that has restarted as often as it may.

    Args:
        reasons: What may have ended its processes, for where none of them said so.
    """
    for run in filter(None, (trial.stage1, trial)):
        row = store.row_of(placement.storage, run.key)
        if row is not None and row["status"] == "running" and row["cause"]:
            return f"{row['cause']} (also after {MAX_RESTARTS} restarts)"
    return f"its process was lost {MAX_RESTARTS + 1} times: {reasons}"


@process.away_from_start_folder()
def run_trial(
    trial: Trial,
    placement: Placement,
    scratch: str,
    channel: EventChannel | None,
    stage1_done: Any = None,
) -> dict[str, Any]:
    """Train a trial, and before it the stage 1 that it starts from unless that is complete.

    With one worker it is trained in this process, with two or more under Ray Train.

    Args:
        scratch: A folder for what Ray writes; nothing of it is needed afterwards.
        channel: Takes the events; None discards them.
        stage1_done: The result of the task that trains stage 1; Ray waits for it, nothing uses it.

    Returns:
        The trial's row of the trials table.

    Raises:
        TrialFailed: Where the trial fails for good; its row has the cause.
        Restart: Where another attempt may succeed. Where the GPU has failed, the process ends
            instead, because every later trial in it would fail too; Ray starts another one.
    """
    try:
        storage.wait_for_root(placement.storage)
    except OSError as error:  # another node may have mounted the disk
        raise Restart(cause_of(error)) from error
    if trial.stage1 is not None and execute.ended_row(trial.stage1, placement) is None:
        with contextlib.suppress(TrialFailed):  # the trial itself reports it, in its own row
            run_trial(trial.stage1, placement, scratch, channel)
    with execute.exclusive_stage1(trial, placement):
        if placement.workers == 1:
            return _run_here(trial, placement, channel)
        from sadcl.ray_backend import trainer

        return trainer.train(trial, placement, scratch, channel)


def _run_here(trial: Trial, placement: Placement, channel: EventChannel | None) -> dict[str, Any]:
    try:
        return execute.execute(trial, placement, emitter(channel, trial), capacity.drain_reason)
    except TrialFailed as error:
        if error.final:
            raise
        _leave(error)


def _leave(failure: TrialFailed) -> NoReturn:
    """Make Ray start the trial again."""
    if failure.kind is FailureKind.DEVICE:
        time.sleep(FLUSH_SECONDS)
        os._exit(1)  # an orderly exit would wait for the GPU
    raise Restart(str(failure)) from failure


def resources(placement: Placement) -> dict[str, float]:
    """Return what the process of a trial reserves; two or more workers reserve for themselves."""
    if placement.workers > 1:
        return {"num_cpus": 0, "num_gpus": 0}
    return {"num_cpus": placement.cpus, "num_gpus": placement.gpus}


class TaskPool:
    """Trials that run as tasks, each after the stage 1 that it starts from.

    Each is started once, and several callers may wait for it. A task that is killed, or fails for a
    reason that may pass, restarts up to :data:`~sadcl.study.failure.MAX_RESTARTS` times, and
    resumes from its last checkpoint.
    """

    def __init__(self, placement: Placement, scratch: str, channel: EventChannel | None) -> None:
        self.placement, self.scratch, self.channel = placement, scratch, channel
        self._running: dict[str, Any] = {}

    def start(self, trial: Trial) -> Any:
        """Start a trial unless it has started or ended before, and give a reference to its row."""
        if trial.key in self._running:
            return self._running[trial.key]
        row = execute.ended_row(trial, self.placement)
        if row is not None:
            self._running[trial.key] = ray.put(row)
        else:
            stage1_done = self.start(trial.stage1) if trial.stage1 is not None else None
            options: dict[str, Any] = {
                **resources(self.placement),
                "max_retries": MAX_RESTARTS,
                "retry_exceptions": [Rescheduled, Restart],
            }
            task: Any = ray.remote(**options)(run_trial)
            self._running[trial.key] = task.remote(
                trial, self.placement, self.scratch, self.channel, stage1_done
            )
        return self._running[trial.key]

    def result(self, trial: Trial) -> dict[str, Any]:
        """Wait for a trial and give its row; a trial that failed has one too."""
        try:
            row: dict[str, Any] = ray.get(self.start(trial))
            return row
        except RayError as error:
            existing = execute.ended_row(trial, self.placement)
            return existing if existing is not None else self._record_failure(trial, error)

    def _record_failure(self, trial: Trial, error: RayError) -> dict[str, Any]:
        """Write the row of a trial whose task has failed without one."""
        cause = self._cause(trial, error)
        emit(self.channel, TrialEnded(trial.key, "failed", cause))
        return execute.record_failure(trial, self.placement, cause)

    def _cause(self, trial: Trial, error: RayError) -> str:
        stage1 = trial.stage1 and execute.ended_row(trial.stage1, self.placement)
        if stage1 and stage1["status"] != "complete":
            return f"The stage 1 that it starts from has failed: {stage1['cause']}"
        if isinstance(error, RayTaskError):
            if isinstance(error.cause, Restart):
                return f"{error.cause} (also after {MAX_RESTARTS} restarts)"
            return cause_of(error.cause)
        reasons = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        return given_up_cause(trial, self.placement, reasons)

    def start_all(
        self, trials: Sequence[Trial], max_concurrent: int | None, running: list[Any]
    ) -> None:
        """Start trials, each stage 1 before the first trial that starts from it.

        Args:
            max_concurrent: The number of trials at once; None starts as many as fit.
            running: References to what was started before and counts; those that still run stay in
                this list, and new ones are added to it.
        """
        runs = {
            run.key: run for trial in trials for run in (trial.stage1, trial) if run is not None
        }
        for run in runs.values():
            if max_concurrent is not None and len(running) >= max_concurrent:
                running[:] = ray.wait(running, num_returns=1)[1]
            running.append(self.start(run))


def first_ended(waiting: Mapping[str, tuple[TaskPool, Trial]]) -> list[str]:
    """Wait until some of the trials that were started have ended, and give their keys."""
    keys = {pool.start(trial): key for key, (pool, trial) in waiting.items()}
    return [keys[reference] for reference in ray.wait(list(keys), num_returns=1)[0]]
