"""Training on two workers or more: Ray Train runs the same loop in each."""

from __future__ import annotations

import os
from typing import Any

import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from sadcl import runner
from sadcl.errors import TrialFailed
from sadcl.ray_backend.board import Board, emitter
from sadcl.runner import Where
from sadcl.search.trial import Trial

RESTARTS = 3
"""Times that a lost worker or node is replaced; the run goes on from its last checkpoint."""


def _worker(settings: dict[str, Any]) -> None:
    """On each worker: the loop; a failure that would only come again ends the run instead of starting it anew."""
    trial, where = settings["trial"], settings["where"]
    if runner.finished(trial, where) is None:
        runner.execute(trial, where, emitter(settings["board"], trial))
    ray.train.report({"key": trial.key})


def train(trial: Trial, where: Where, scratch: str, board: Board | None = None) -> dict[str, Any]:
    """Run a trial under TorchTrainer on a fixed number of workers, and give its row.

    The rows and the checkpoints are written by the first worker itself, so that nothing depends on what Ray keeps.

    Raises:
        TrialFailed: where it fails; the row has the cause.
    """
    if (row := runner.finished(trial, where)) is None:
        resources = {"CPU": float(where.cpus), **({"GPU": float(where.gpus)} if where.gpus else {})}
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"trial": trial, "where": where, "board": board},
            scaling_config=ScalingConfig(
                num_workers=where.workers,
                use_gpu=where.gpus > 0,
                resources_per_worker=resources,
            ),
            torch_config=TorchConfig(backend="nccl" if where.gpus else "gloo", timeout_s=1800),
            run_config=RunConfig(
                name=f"{trial.key}-{os.getpid()}",
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=RESTARTS),
            ),
        )
        failure: Exception | None = None
        try:
            trainer.fit()
        except Exception as error:  # what Train raises differs by what was lost
            failure = error
        row = runner.finished(trial, where)
        if row is None:
            cause = _cause(failure) if failure is not None else "the workers ended without a result"
            runner.fail(trial, where, cause)
            raise TrialFailed(cause)
    if row["status"] == "failed":
        raise TrialFailed(row["cause"])
    return row


def _cause(failure: Exception) -> str:
    """The first worker's own words where there are any, else the last line of Ray's."""
    found = [error for _, error in sorted(getattr(failure, "worker_failures", {}).items())]
    own = [inner for error in found for inner in (getattr(error, "cause", None), error) if isinstance(inner, TrialFailed)]
    words = str(own[0] if own else found[0] if found else failure).strip()
    return words if own else f"{type(failure).__name__}: {words.splitlines()[-1] if words else 'no message'}"
