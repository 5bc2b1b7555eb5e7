"""Training on two workers or more: Ray Train runs the same loop in each, and what is lost is started again."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import replace
from functools import partial
from typing import Any

import ray.train
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from sadcl import storage
from sadcl.errors import TrialFailed
from sadcl.ray_backend import capacity, membership
from sadcl.ray_backend.event_channel import EventChannel, emit, emitter
from sadcl.search.trial import Trial
from sadcl.study import execute
from sadcl.study.placement import Placement
from sadcl.training import Rescheduled

RESTARTS = 5
"""Times that a run is started again after workers or nodes were lost without anything saved in between."""
QUEUE, ELASTIC_QUEUE = 600.0, 60.0
"""Seconds in Ray's queue for room until it is found out anew whether there is any, of a fixed size and of a range."""
ROOM = "waits for room that others use"
"""No failure, and not counted as one."""
TOGETHER = 3.0
"""Seconds that a worker that fails stays, so that all that failed with it are known."""


@storage.away_from_start_folder()
def _worker(settings: dict[str, Any]) -> None:
    """On each worker: the loop. To leave is no failure; a failure that would only come again has its row by now."""
    trial, placement, actor = settings["trial"], settings["where"], settings["roll"]
    number = ray.train.get_context().get_world_rank()
    ray.get(actor.come.remote(number, ray.get_runtime_context().get_node_id()))
    try:
        storage.wait_for_root(placement.storage)
        if execute.ended_row(trial, placement) is None:
            execute.execute(
                trial,
                placement,
                emitter(settings["board"], trial),
                partial(membership.leave_reason, actor),
            )
    except Rescheduled:
        return
    except (TrialFailed, OSError) as error:
        actor.fail.remote(number)
        time.sleep(TOGETHER)
        if isinstance(error, TrialFailed):
            raise
        failed = TrialFailed(str(error))
        failed.final = False
        raise failed from error


def train(
    trial: Trial, placement: Placement, scratch: str, channel: EventChannel | None = None
) -> dict[str, Any]:
    """Run a trial under TorchTrainer and give its row.

    The rows and the checkpoints are written by the first worker itself, so that nothing depends on what Ray keeps. Where a
    node is taken away or lost, or there is room for more workers of a run that may have them, the run starts again from its
    last checkpoint, as often as there is something new in it.

    Raises:
        TrialFailed: where it fails; the row has the cause.
    """

    def say(text: str) -> None:
        emit(channel, {"key": trial.key, "late": text})

    os.environ.setdefault(
        "RAY_TRAIN_ENABLE_STATE_TRACKING", "1"
    )  # the Train tab of Ray's dashboard shows the run
    failures, saved, waits = 0, _saved(trial, placement), False
    while (row := execute.ended_row(trial, placement)) is None:
        try:
            size = capacity.wait_for_workers(placement, say)
            with membership.open_membership() as actor:
                cause, final = _attempt(
                    trial, replace(placement, workers=size), scratch, channel, actor
                )
        except TrialFailed as error:
            cause, final = str(error), True
        before, saved = saved, _saved(trial, placement)
        if cause == ROOM and not waits:
            say(ROOM)
        waits = cause == ROOM
        if waits or not cause:
            continue
        failures = 1 if saved != before else failures + 1
        if execute.ended_row(trial, placement) is not None:
            continue
        if final or failures > RESTARTS:
            _record(trial, placement, cause)
            emit(channel, {"key": trial.key, "status": "failed", "cause": cause})
            raise TrialFailed(cause)
        emit(
            channel,
            {
                "key": trial.key,
                "late": f"{cause}; starts again from its last checkpoint",
                "gone": True,
            },
        )
    if row["status"] == "failed":
        raise TrialFailed(row["cause"])
    return row


def _attempt(
    trial: Trial, placement: Placement, scratch: str, channel: EventChannel | None, actor: Any
) -> tuple[str, bool]:
    """Train until the run is done, leaves or fails; why it failed, or nothing, and whether it would only do so again."""
    # room that is gone, or that others use, is not waited for within Ray without end: it would not say so
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(
        ELASTIC_QUEUE if placement.up_to else QUEUE
    )
    limits: Any = {"max_failures": 0, "max_preemption_failures": 0, "controller_failure_limit": 0}
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"trial": trial, "where": placement, "board": channel, "roll": actor},
        scaling_config=ScalingConfig(
            num_workers=placement.workers,
            use_gpu=placement.gpus > 0,
            resources_per_worker=capacity.resources(placement),
        ),
        torch_config=TorchConfig(
            backend="nccl" if placement.gpus else "gloo", timeout_s=placement.timeout
        ),
        run_config=RunConfig(
            name=f"{trial.key}-{uuid.uuid4().hex[:8]}",  # Ray would go on with its own state under a name that it knows
            storage_path=scratch,
            failure_config=FailureConfig(**limits),
        ),
    )
    failure: Exception | None = None
    with capacity.NodeWatch(placement, actor):
        try:
            trainer.fit()
        except Exception as error:  # what Train raises differs by what was lost
            failure = error
    try:
        came, failed, reason = membership.members(actor)
    except RayError:
        came, failed, reason = {}, set(), ""
    own = _own(failure)
    if own is not None and own.final:
        return str(own), True
    if reason:  # it was to leave, and has, or was lost on the way
        emit(
            channel,
            {"key": trial.key, "late": f"{reason}: goes on from its last checkpoint", "gone": True},
        )
        return "", False
    if (
        type(getattr(failure, "controller_failure", None)).__name__
        == "WorkerGroupStartupTimeoutError"
    ):
        return ROOM, False
    if failure is None:
        return (
            "" if execute.ended_row(trial, placement) else "the workers ended without a result"
        ), False
    return _who(failure, own, came, failed) or _cause(failure), False


def _record(trial: Trial, placement: Placement, cause: str) -> None:
    try:
        execute.record_failure(trial, placement, cause)
    except OSError:  # of a disk that is full: the row says `running`, and the run goes on when it is started again
        return


def _saved(trial: Trial, placement: Placement) -> list[Any]:
    """What there is to go on from."""
    try:
        return [
            storage.stamp(
                storage.join(execute.checkpoint_folder(trial, placement), *state.split("/"))
            )
            for state in execute.STATES
        ]
    except OSError:
        return []


def _who(
    failure: Exception, own: TrialFailed | None, came: dict[int, str], failed: set[int]
) -> str:
    """Which workers are gone or keep the others waiting, and where; nothing where all that came have failed themselves."""
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    if gone := sorted({node for node in came.values() if node not in alive}):
        return f"{capacity.node_names(gone)} was lost"
    errors = getattr(failure, "worker_failures", {})
    dead = {
        number for number, error in errors.items() if not _failures(error)
    } & came.keys() - failed
    if missing := dead or (came.keys() - failed if own is not None else set()):
        how = "was lost" if dead else "has not arrived"
        words = [
            f"worker {number} on {capacity.node_names([came[number]])} {how}"
            for number in sorted(missing)
        ]
        return ", ".join(words) + ("" if dead else f" ({own})")
    return ""


def _failures(error: Exception) -> list[TrialFailed]:
    """A worker's own words, which Ray has packed into others."""
    return [
        inner for inner in (getattr(error, "cause", None), error) if isinstance(inner, TrialFailed)
    ]


def _own(failure: Exception | None) -> TrialFailed | None:
    """A worker's own words: of one that knows what is wrong before those of others, who only lost their connection to it."""
    found = [error for _, error in sorted(getattr(failure, "worker_failures", {}).items())]
    own = [inner for error in found for inner in _failures(error)]
    return min(own, key=lambda error: (_of_connection(str(error)), not error.final), default=None)


def _of_connection(cause: str) -> bool:
    return any(
        word in cause
        for word in ("onnection", "DistBackendError", "DistNetworkError", "gloo", "NCCL")
    )


def _cause(failure: Exception) -> str:
    """A worker's own words where there are any, else the last line of Ray's."""
    if (own := _own(failure)) is not None:
        return str(own)
    found = [error for _, error in sorted(getattr(failure, "worker_failures", {}).items())]
    words = str(found[0] if found else failure).strip()
    return f"{type(failure).__name__}: {words.splitlines()[-1] if words else 'no message'}"
