"""Trials that are known beforehand: Ray tasks, as many at once as fit."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import RayTaskError

from sadcl import runner
from sadcl.ray_backend.board import emitter
from sadcl.runner import TrialFailed, Where
from sadcl.search.plan import Trial


def run(trial: Trial, where: Where, scratch: str, board: Any) -> dict[str, Any]:
    """A trial in this process, or under Ray Train where it has two workers or more."""
    if where.workers > 1:
        from sadcl.ray_backend import trainer

        return trainer.train(trial, where, scratch, board)
    return runner.execute(trial, where, emitter(board))


def resources(where: Where) -> dict[str, float]:
    """What the process of a trial reserves itself; the workers of a larger one reserve their own."""
    if where.workers > 1:
        return {"num_cpus": 0, "num_gpus": 0}
    return {"num_cpus": where.cpus, "num_gpus": where.gpus}


class Jobs:
    """Trials in flight; each is started once and may be waited for by many.

    A task that is killed is started again, twice at most, and goes on from its last checkpoint.
    """

    def __init__(self, where: Where, scratch: str, board: Any) -> None:
        self.where, self.scratch, self.board = where, scratch, board
        self._running: dict[str, tuple[Trial, Any]] = {}

    def start(self, trial: Trial) -> None:
        if trial.key not in self._running:
            options: dict[str, Any] = {**resources(self.where), "max_retries": 2, "retry_exceptions": False}
            task: Any = ray.remote(**options)(run)
            self._running[trial.key] = (trial, task.remote(trial, self.where, self.scratch, self.board))

    def result(self, trial: Trial) -> dict[str, Any]:
        """The trial's row; of a failed one too.

        Raises:
            TrialFailed: never; a failure is a row.
        """
        self.start(trial)
        try:
            row: dict[str, Any] = ray.get(self._running[trial.key][1])
            return row
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, TrialFailed) else error
            return runner.finished(trial, self.where) or runner.fail(trial, self.where, runner.cause_of(cause))
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[0]
            return runner.fail(trial, self.where, f"its process was lost ({type(error).__name__}: {reason})")
