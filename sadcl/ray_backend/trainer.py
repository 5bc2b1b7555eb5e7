"""Training on two workers or more: Ray Train runs the loop in each; what is lost restarts."""

from __future__ import annotations

import enum
import os
import time
import uuid
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ray.train
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from sadcl import storage
from sadcl.errors import TrialFailed
from sadcl.ray_backend import capacity, environment, group_failure, membership
from sadcl.ray_backend.event_channel import EventChannel, emit, emitter, ranks_behind
from sadcl.ray_backend.membership import Members
from sadcl.search.trial import Trial
from sadcl.study import execute, process
from sadcl.study.failure import MAX_RESTARTS, failure_kind
from sadcl.study.placement import Placement
from sadcl.study.trial_event import TrialEnded, TrialRestarts, WaitingForRoom
from sadcl.training import Rescheduled

QUEUE_SECONDS, ELASTIC_QUEUE_SECONDS = 600.0, 60.0
"""A run waits so long in Ray's queue until it counts the room again: with a fixed number of
workers, and with a range."""
LINGER_SECONDS = 3.0
"""A worker that fails stays for so long, so that all workers that fail with it can report it."""
LEAST_WAIT_SECONDS = 20.0
"""Workers that stood still for less were not waiting for another one when they were lost."""
TRACKING_VARIABLE = "RAY_TRAIN_ENABLE_STATE_TRACKING"


class Ending(enum.Enum):
    """How an attempt to train has ended."""

    FINISHED = enum.auto()
    """The trial's row has ended."""
    LEFT = enum.auto()
    """The workers were asked to leave."""
    NO_ROOM = enum.auto()
    """Others use the room; that is no failure and does not count as one."""
    FAILED = enum.auto()


@dataclass(frozen=True)
class Attempt:
    """The result of one attempt.

    Attributes:
        reason: Why the workers left or failed.
        final: Whether another attempt would fail in the same way.
    """

    ending: Ending
    reason: str = ""
    final: bool = False


@process.away_from_start_folder()
def _worker(settings: dict[str, Any]) -> None:
    """Run the loop on one worker; leaving is no failure."""
    trial, placement, actor = settings["trial"], settings["placement"], settings["membership"]
    rank = ray.train.get_context().get_world_rank()
    ray.get(actor.join.remote(rank, ray.get_runtime_context().get_node_id()))
    try:
        storage.wait_for_root(placement.storage)
        if execute.ended_row(trial, placement) is None:
            execute.execute(
                trial,
                placement,
                emitter(settings["channel"], trial),
                partial(membership.leave_reason, actor),
            )
    except Rescheduled:
        return
    except TrialFailed as error:
        failure = error
    except OSError as error:
        failure = TrialFailed(str(error), kind=failure_kind(error), final=False)
    else:
        return
    actor.fail.remote(rank, failure)
    time.sleep(LINGER_SECONDS)
    raise failure


def train(
    trial: Trial, placement: Placement, scratch: str, channel: EventChannel | None = None
) -> dict[str, Any]:
    """Train a trial with TorchTrainer, and give its row.

    The first worker itself writes the rows and the checkpoints, so that nothing depends on what Ray
    keeps. Where a node is taken away or lost, or where there is room for more workers of a run that
    may have them, the run restarts from its last checkpoint, as often as there is a new one.

    Args:
        scratch: A folder for what Ray writes; nothing of it is needed afterwards.
        channel: Takes the events; None discards them.

    Raises:
        TrialFailed: Where the trial fails; its row has the cause.
    """
    failures, saved, waits = 0, _saved_states(trial, placement), False
    while (row := execute.ended_row(trial, placement)) is None:
        attempt = _attempt(trial, placement, scratch, channel)
        before, saved = saved, _saved_states(trial, placement)
        if attempt.ending is Ending.NO_ROOM and not waits:
            emit(channel, WaitingForRoom(trial.key, placement.workers, occupied=True))
        waits = attempt.ending is Ending.NO_ROOM
        if attempt.ending is Ending.LEFT:
            emit(channel, TrialRestarts(trial.key, attempt.reason, planned=True))
        if attempt.ending is not Ending.FAILED:
            continue
        failures = 1 if saved != before else failures + 1
        if execute.ended_row(trial, placement) is not None:
            continue
        if attempt.final or failures > MAX_RESTARTS:
            _record_failure(trial, placement, attempt.reason)
            emit(channel, TrialEnded(trial.key, "failed", attempt.reason))
            raise TrialFailed(attempt.reason)
        emit(channel, TrialRestarts(trial.key, attempt.reason, planned=False))
    if row["status"] == "failed":
        raise TrialFailed(row["cause"])
    return row


def _attempt(
    trial: Trial, placement: Placement, scratch: str, channel: EventChannel | None
) -> Attempt:
    """Wait for room, and train until the trial has ended, or its workers leave or fail."""
    try:
        workers = capacity.wait_for_workers(
            placement, lambda: emit(channel, WaitingForRoom(trial.key, placement.workers))
        )
        placement = replace(placement, workers=workers)
        with membership.open_membership() as actor:
            failure = _fit(trial, placement, scratch, channel, actor)
            try:
                members = membership.members(actor)
            except RayError:
                members = Members({}, {}, "")
    except TrialFailed as no_room:
        return Attempt(Ending.FAILED, str(no_room), final=True)
    errors = group_failure.worker_errors(failure, members)
    lost = group_failure.lost_ranks(failure, members)
    if (error := group_failure.final_error(errors, lost, workers)) is not None:
        return Attempt(Ending.FAILED, str(error), final=True)
    if members.leave_reason:  # the workers have left, or were lost on the way
        return Attempt(Ending.LEFT, members.leave_reason)
    if _is_startup_timeout(failure):
        return Attempt(Ending.NO_ROOM)
    if failure is None and execute.ended_row(trial, placement):
        return Attempt(Ending.FINISHED)
    if failure is None:
        return Attempt(Ending.FAILED, "the workers ended without a result")
    waited = max(placement.timeout / 2, LEAST_WAIT_SECONDS)
    behind = ranks_behind(channel, trial.key, waited) if lost else []
    missing = group_failure.missing_workers(errors, lost, behind, members)
    return Attempt(Ending.FAILED, missing or group_failure.cause(failure, errors))


def _fit(
    trial: Trial, placement: Placement, scratch: str, channel: EventChannel | None, actor: Any
) -> Exception | None:
    """Run the workers until all have ended, and give what Ray Train raised."""
    limits: Any = {"max_failures": 0, "max_preemption_failures": 0, "controller_failure_limit": 0}
    trainer = TorchTrainer(
        _worker,
        train_loop_config={
            "trial": trial,
            "placement": placement,
            "channel": channel,
            "membership": actor,
        },
        scaling_config=ScalingConfig(
            num_workers=placement.workers,
            use_gpu=placement.gpus > 0,
            resources_per_worker=capacity.resources(placement),
        ),
        torch_config=TorchConfig(
            backend="nccl" if placement.gpus else "gloo", timeout_s=placement.timeout
        ),
        run_config=RunConfig(
            # Ray would resume with its own state under a name that it knows
            name=f"{trial.key}-{uuid.uuid4().hex[:8]}",
            storage_path=scratch,
            failure_config=FailureConfig(**limits),
        ),
    )
    queue = ELASTIC_QUEUE_SECONDS if placement.up_to else QUEUE_SECONDS
    settings = {
        # Ray would wait without end, and without a word, for room that is gone or that others use
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(queue),
        # the Train tab of Ray's dashboard shows the run
        TRACKING_VARIABLE: os.environ.get(TRACKING_VARIABLE, "1"),
    }
    with (
        environment.variables(settings),
        environment.signal_handlers_kept(),
        capacity.NodeWatch(placement, actor),
    ):
        try:
            trainer.fit()
        except SystemExit:  # Ray Train's handler of Ctrl-C ends the process, with exit code 0
            raise KeyboardInterrupt from None
        except Exception as error:  # the types differ by what was lost
            return error
    return None


def _is_startup_timeout(failure: Exception | None) -> bool:
    # Ray exports no such class; importing it from its internals could break every run
    cause = getattr(failure, "controller_failure", None)
    return type(cause).__name__ == "WorkerGroupStartupTimeoutError"


def _record_failure(trial: Trial, placement: Placement, cause: str) -> None:
    try:
        execute.record_failure(trial, placement, cause)
    except OSError:  # of a full disk: the row stays `running`, and the run resumes
        return


def _saved_states(trial: Trial, placement: Placement) -> list[Any]:
    """Return marks of the states to resume from, which differ as soon as a new one is saved."""
    try:
        return [
            storage.stamp(
                storage.join(execute.checkpoint_folder(trial, placement), *state.split("/"))
            )
            for state in execute.STATES
        ]
    except OSError:
        return []
