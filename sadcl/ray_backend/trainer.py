"""Training on two workers or more: Ray Train runs the same loop in each."""

from __future__ import annotations

import os
from typing import Any

import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from sadcl import runner
from sadcl.errors import TrialFailed
from sadcl.ray_backend.board import Board, emitter, tell
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
        os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "1")  # the Train tab of Ray's dashboard shows the run
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
            tell(board, {"key": trial.key, "status": "failed", "cause": cause})
            raise TrialFailed(cause)
    if row["status"] == "failed":
        raise TrialFailed(row["cause"])
    return row


def _cause(failure: Exception) -> str:
    """The workers' own words where there are any, else the last line of Ray's.

    Where one worker fails the others lose their connection to it; that is left out where another has more to say.
    """
    found = [error for _, error in sorted(getattr(failure, "worker_failures", {}).items())]
    own = [inner for error in found for inner in (getattr(error, "cause", None), error) if isinstance(inner, TrialFailed)]
    if own:
        words = list(dict.fromkeys(str(error).strip() for error in own))
        return "; ".join([text for text in words if not _of_connection(text)] or words)
    words_of_ray = str(found[0] if found else failure).strip()
    return f"{type(failure).__name__}: {words_of_ray.splitlines()[-1] if words_of_ray else 'no message'}"


def _of_connection(cause: str) -> bool:
    return any(word in cause for word in ("onnection", "DistBackendError", "DistNetworkError", "gloo", "NCCL"))
