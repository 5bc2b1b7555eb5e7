"""Why a group of workers has failed: which error is the cause, and who was lost or kept it waiting.

The first worker to fail takes the others with it. What they compute after a failed GPU, an aborted
collective or the loss of a worker may be anything, so that their errors prove nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import ray

from sadcl.errors import FailureKind, TrialFailed
from sadcl.ray_backend import capacity
from sadcl.ray_backend.membership import Members

_PROOF_ENOUGH = (FailureKind.MISTAKE, FailureKind.DISK_FULL)
"""Kinds of final errors that no garbage causes."""


def worker_errors(failure: Exception | None, members: Members) -> dict[int, TrialFailed]:
    """Collect the workers' own errors by rank, in the order in which they were reported.

    Args:
        failure: What Ray Train raised.
        members: What the workers reported themselves; Ray Train may have missed some of it.
    """
    errors = dict(members.failed)
    for rank, error in _train_errors(failure).items():
        if (own := _unpack(error)) is not None:
            errors.setdefault(rank, own)
    return errors


def lost_ranks(failure: Exception | None, members: Members) -> list[int]:
    """The workers that have ended without an error of their own."""
    return sorted(
        rank
        for rank, error in _train_errors(failure).items()
        if _unpack(error) is None and rank in members.nodes and rank not in members.failed
    )


def final_error(
    errors: Mapping[int, TrialFailed], lost: Collection[int], workers: int
) -> TrialFailed | None:
    """Find the error that another attempt would only repeat.

    A loss that is not finite is one only if all workers find it, because it is that of the global
    batch. Any other error has to be the first one.

    Args:
        errors: From :func:`worker_errors`.
        lost: From :func:`lost_ranks`.
        workers: Their number.
    """
    for error in errors.values():
        if error.final and error.kind in _PROOF_ENOUGH:
            return error
    if lost or not errors or not (first := next(iter(errors.values()))).final:
        return None
    if first.kind is FailureKind.DIVERGENCE:
        alike = [error for error in errors.values() if error.final and error.kind is first.kind]
        return first if len(alike) == workers else None
    return first


def main_error(errors: Mapping[int, TrialFailed]) -> TrialFailed | None:
    """Find the error that is most likely to have caused the others.

    A worker that knows what is wrong comes before those that only lost their connection to it, or
    computed garbage afterwards.
    """
    return min(
        errors.values(),
        key=lambda error: (
            error.kind is FailureKind.CONNECTION,
            error.kind is FailureKind.DIVERGENCE,
            error.kind is not FailureKind.DEVICE,
            not error.final,
        ),
        default=None,
    )


def missing_workers(
    errors: Mapping[int, TrialFailed],
    lost: Sequence[int],
    behind: Sequence[int],
    members: Members,
) -> str:
    """Say which workers are gone, or keep the others waiting, and where.

    With NCCL those that wait are lost: their watchdog ends them. Whom they waited for may live on.

    Args:
        errors: From :func:`worker_errors`.
        lost: From :func:`lost_ranks`.
        behind: The ranks that were behind the others, for long, when they were last heard.
        members: The nodes of the workers.

    Returns:
        Empty where all workers that had joined have failed themselves.
    """
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    if gone := sorted({node for node in members.nodes.values() if node not in alive}):
        return f"{capacity.node_names(gone)} was lost"
    hung = [rank for rank in behind if rank in members.nodes and rank not in errors]
    if lost and hung:
        waited = [rank for rank in lost if rank not in hung]
        ended = f" ({_names(waited, members)} waited and was ended)" if waited else ""
        return f"{_names(hung, members)} has not arrived{ended}"
    if lost:
        return f"{_names(lost, members)} was lost"
    error, others = main_error(errors), sorted(members.nodes.keys() - errors.keys())
    if error is None or not others:
        return ""
    return f"{_names(others, members)} has not arrived ({error})"


def _names(ranks: Sequence[int], members: Members) -> str:
    names = [f"worker {rank} on {capacity.node_names([members.nodes[rank]])}" for rank in ranks]
    return names[0] if len(names) == 1 else f"each of {', '.join(names)}"


def cause(failure: Exception, errors: Mapping[int, TrialFailed]) -> str:
    """Return the message of the main error, or the last line of Ray's."""
    if (error := main_error(errors)) is not None:
        return str(error)
    message = str(next(iter(_train_errors(failure).values()), failure)).strip()
    return f"{type(failure).__name__}: {message.splitlines()[-1] if message else 'no message'}"


def _train_errors(failure: Exception | None) -> dict[int, Exception]:
    """Return the errors of the workers, by rank, that Ray Train has collected."""
    return dict(sorted(getattr(failure, "worker_failures", {}).items()))


def _unpack(error: Exception) -> TrialFailed | None:
    """Take a worker's own error out of what Ray has wrapped around it."""
    candidates = (getattr(error, "cause", None), error)
    return next((each for each in candidates if isinstance(each, TrialFailed)), None)
