"""Trials that are known beforehand: Ray tasks, as many at once as fit."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from sadcl import storage
from sadcl.errors import TrialFailed
from sadcl.ray_backend import capacity
from sadcl.ray_backend.event_channel import EventChannel, emit, emitter
from sadcl.search.trial import Trial
from sadcl.study import execute
from sadcl.study.placement import Placement
from sadcl.training import Rescheduled

MAX_LOSSES = 4
"""Times that a trial whose process is lost, or whose node is taken away, is started again within one run of the driver; it
goes on from its last save."""


def lost_cause(reason: str) -> str:
    """Why a trial failed of which no process came to an end."""
    return f"its process was lost {MAX_LOSSES + 1} times: {reason}"


@storage.away_from_start_folder()
def run_trial(
    trial: Trial,
    placement: Placement,
    scratch: str,
    channel: EventChannel | None,
    after: Any = None,
) -> dict[str, Any]:
    """A trial, and before it the stage 1 that it starts from where nobody has trained that; gives the trial's row.

    With one worker it is trained in this process, with two or more under Ray Train.

    Args:
        after: what has to be done first; only waited for.

    Raises:
        TrialFailed: the row has the cause.
    """
    storage.wait_for_root(placement.storage)
    if trial.stage1 is not None and execute.ended_row(trial.stage1, placement) is None:
        with contextlib.suppress(TrialFailed):  # the trial itself says so, in its own row
            run_trial(trial.stage1, placement, scratch, channel)
    with execute.exclusive_stage1(trial, placement):
        if placement.workers == 1:
            return execute.execute(trial, placement, emitter(channel, trial), capacity.drain_reason)
        from sadcl.ray_backend import trainer

        return trainer.train(trial, placement, scratch, channel)


def resources(placement: Placement) -> dict[str, float]:
    """What the process of a trial reserves itself; the workers of a larger one reserve their own."""
    if placement.workers > 1:
        return {"num_cpus": 0, "num_gpus": 0}
    return {"num_cpus": placement.cpus, "num_gpus": placement.gpus}


class TaskPool:
    """Trials in flight, each after the stage 1 that it starts from; each is started once and may be waited for by many.

    A task that is killed is started again, as often as ``LOST`` says, and goes on from its last checkpoint.
    """

    def __init__(self, placement: Placement, scratch: str, channel: EventChannel | None) -> None:
        self.placement, self.scratch, self.channel = placement, scratch, channel
        self._running: dict[str, Any] = {}

    def start(self, trial: Trial) -> Any:
        """Start a trial unless it was, or has ended. Gives a reference."""
        if trial.key in self._running:
            return self._running[trial.key]
        row = execute.ended_row(trial, self.placement)
        if row is not None:
            self._running[trial.key] = ray.put(row)
        else:
            after = self.start(trial.stage1) if trial.stage1 is not None else None
            options: dict[str, Any] = {
                **resources(self.placement),
                "max_retries": MAX_LOSSES,
                "retry_exceptions": [Rescheduled],
            }
            task: Any = ray.remote(**options)(run_trial)
            self._running[trial.key] = task.remote(
                trial, self.placement, self.scratch, self.channel, after
            )
        return self._running[trial.key]

    def result(self, trial: Trial) -> dict[str, Any]:
        """The trial's row; of a failed one too, for a failure is a row."""
        try:
            row: dict[str, Any] = ray.get(self.start(trial))
            return row
        except RayError as error:
            if (known := execute.ended_row(trial, self.placement)) is not None:
                return known
            if isinstance(error, RayTaskError):
                failed = (
                    execute.ended_row(trial.stage1, self.placement)
                    if trial.stage1 is not None
                    else None
                )
                upstream = (
                    f"The stage 1 that it starts from has failed: {failed['cause']}"
                    if failed is not None
                    else ""
                )
                return execute.record_failure(
                    trial, self.placement, upstream or execute.cause_of(error.cause)
                )
            cause = lost_cause(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")
            emit(self.channel, {"key": trial.key, "status": "failed", "cause": cause})
            return execute.record_failure(trial, self.placement, cause)

    def begin(self, trials: Sequence[Trial], at_once: int | None, waiting: list[Any]) -> None:
        """Start trials, so many at once (None as many as fit), each stage 1 before the first that starts from it.

        Args:
            waiting: references to what was started before and counts; those that are under way are left in it.
        """
        runs = {
            run.key: run for trial in trials for run in (trial.stage1, trial) if run is not None
        }
        for run in runs.values():
            if at_once is not None and len(waiting) >= at_once:
                waiting[:] = ray.wait(waiting, num_returns=1)[1]
            waiting.append(self.start(run))
