"""Why a trial has failed, and whether another attempt would fail in the same way.

Final are a user's mistake, a full disk and, on a device that still computes, memory that does not
suffice, a loss that is not finite and errors of Python (a wrong type, index, name or value).
Everything else may pass: a GPU, a connection or a storage that fails, workers that no longer agree,
and a plain RuntimeError, by which PyTorch reports what it has no other type for.
"""

from __future__ import annotations

import contextlib
import gc
import traceback
from collections.abc import Iterator

import torch

from sadcl import distributed
from sadcl.errors import DISK_FULL, FailureKind, TrialFailed, UserError
from sadcl.training import Disagreement, Diverged

MAX_RESTARTS = 5
"""A trial whose failure may pass restarts at most so many times, from its last checkpoint: within
one run of the driver, or, on several workers, without a new checkpoint in between."""
_MAY_PASS = (FailureKind.DEVICE, FailureKind.CONNECTION, FailureKind.STORAGE)
_MAY_FOLLOW = (FailureKind.TRAINING, FailureKind.DIVERGENCE, FailureKind.MEMORY)
"""Kinds of errors that garbage causes too, which a failed GPU or connection leaves behind."""
_NO_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")
_DEVICE_ERRORS = ("CUDA error", "CUDA driver error", "HIP error", "cuDNN error", "CUBLAS_STATUS")
_CONNECTION_ERRORS = (
    *("Connection reset", "Connection closed", "Connection refused", "Broken pipe"),
    *("gloo", "NCCL"),
)


def diagnose(error: Exception) -> TrialFailed:
    """Say what a trial has failed of, by its error and by what its device does now.

    What the error keeps alive is freed before.

    Returns:
        The failure. It is of the kind ``DEVICE`` wherever the process must end.
    """
    release(error)
    kind, cause = failure_kind(error), cause_of(error)
    if kind in _MAY_FOLLOW and not isinstance(error, TrialFailed):
        if not device_computes():
            kind, cause = FailureKind.DEVICE, f"{cause} (the GPU no longer computes)"
        elif distributed.is_broken():
            kind, cause = FailureKind.CONNECTION, f"{cause} (a collective had been aborted)"
    return TrialFailed(cause, kind=kind, final=_is_final(error, kind))


def _is_final(error: Exception, kind: FailureKind) -> bool:
    if isinstance(error, TrialFailed):
        return error.final
    if kind in _MAY_PASS or isinstance(error, Disagreement):
        return False
    return kind is not FailureKind.TRAINING or type(error) is not RuntimeError


def release(error: BaseException) -> None:
    """Free the tensors of the functions that an error has passed through.

    An error holds its traceback, which holds the frames of these functions with all that they
    computed. In a process of several trials it would live until Python's collector happens to find
    it, and the next trial would run out of memory too. The traceback becomes a note of the error.
    """
    text = "".join(traceback.format_exception(error))
    for each in (error, *_errors_before(error)):
        traceback.clear_frames(each.__traceback__)
        each.__traceback__ = None
    error.add_note(text)
    gc.collect()
    if torch.cuda.is_initialized():
        with contextlib.suppress(RuntimeError):  # a GPU that has failed
            torch.cuda.empty_cache()


def device_computes() -> bool:
    """Whether the GPU of this process still computes what a CPU computes; True without one."""
    if not torch.cuda.is_initialized():
        return True
    numbers = torch.arange(64.0).view(8, 8)  # TF32 and float32 have their products exactly
    try:
        product = (numbers.cuda() @ numbers.cuda()).cpu()
    except torch.OutOfMemoryError:
        return True
    except RuntimeError:
        return False
    return torch.equal(product, numbers @ numbers)


def failure_kind(error: BaseException) -> FailureKind:
    """Classify an error by its type, its message, and the errors that came before it."""
    kind = _kind(error)
    if isinstance(error, TrialFailed) or kind not in _MAY_FOLLOW:
        return kind
    before = {_kind(other) for other in _errors_before(error)}
    return next((k for k in (FailureKind.DEVICE, FailureKind.CONNECTION) if k in before), kind)


def _errors_before(error: BaseException) -> Iterator[BaseException]:
    """The errors that this one was raised from, or while they were handled."""
    seen, waiting = {id(error)}, [error]
    while waiting:
        current = waiting.pop()
        for before in (current.__cause__, current.__context__):
            if before is not None and id(before) not in seen:
                seen.add(id(before))
                waiting.append(before)
                yield before


def _kind(error: BaseException) -> FailureKind:
    if isinstance(error, TrialFailed):
        return error.kind
    if isinstance(error, UserError):
        return FailureKind.MISTAKE
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return FailureKind.DISK_FULL
    if isinstance(error, ConnectionError | torch.distributed.DistError):
        return FailureKind.CONNECTION
    if isinstance(error, OSError):
        return FailureKind.STORAGE
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return FailureKind.MEMORY
    if isinstance(error, Diverged | Disagreement):
        return FailureKind.DIVERGENCE
    if isinstance(error, RuntimeError):
        return _kind_of_runtime_error(error)
    return FailureKind.TRAINING


def _kind_of_runtime_error(error: RuntimeError) -> FailureKind:
    """Classify by the message: allocators, cuBLAS, cuDNN, gloo and NCCL raise no own types."""
    message = str(error)
    if any(name in message for name in _NO_MEMORY):
        return FailureKind.MEMORY
    if isinstance(error, torch.AcceleratorError) or any(n in message for n in _DEVICE_ERRORS):
        return FailureKind.DEVICE
    if any(name in message for name in _CONNECTION_ERRORS):
        return FailureKind.CONNECTION
    return FailureKind.TRAINING


def cause_of(error: BaseException) -> str:
    """Return one line that says why a trial failed."""
    if isinstance(error, UserError | TrialFailed):
        return str(error)
    kind, message = failure_kind(error), str(error).strip()
    first_line = message.partition("\n")[0]
    if kind is FailureKind.DISK_FULL:
        return (
            f"The storage is full: {error}. Nothing that was saved is lost: make room and give the "
            "same command again, for a study with --retry-failed; it resumes from the last "
            "checkpoint."
        )
    if kind is FailureKind.MEMORY:
        return f"out of memory: {first_line or 'allocation failed'}"
    if kind is FailureKind.DEVICE:
        return f"{type(error).__name__}: {first_line or 'no message'}"
    return f"{type(error).__name__}: {message or 'no message'}"
