"""How a command ends: with one paragraph and an exit code."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

from sadcl.errors import DISK_FULL, DISK_UNAVAILABLE, TrialFailed, UserError, print_error

_interrupted = False
"""Whether a signal has interrupted a :func:`guarded` block; nested blocks share it."""
_depth = 0
"""Nested :func:`guarded` blocks."""
_begun: list[Callable[[], str]] = []
"""What the :func:`resumable` blocks say that is being stopped, the innermost last."""
_stopped_work = False
"""Whether the interruption has stopped something that the same command resumes."""


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """End the process with one paragraph instead of a traceback where a paragraph says everything.

    The exit code is 2 after a :class:`UserError` or a disk that fails, 1 after a
    :class:`TrialFailed`, and 130 after Ctrl-C or SIGTERM, which ``ray job stop`` sends. An
    interruption says at once what is being stopped, as :func:`resumable` knows it; where nothing
    has begun it is silent. The signal handlers of before are put back when the block ends.
    """

    def interrupt(*_: object) -> None:
        global _interrupted
        if _begun and not _interrupted:
            with contextlib.suppress(Exception):  # a terminal that is gone keeps nothing running
                print(f"\n{_begun[-1]()}", file=sys.stderr, flush=True)
        _interrupted = True
        raise KeyboardInterrupt

    global _depth, _interrupted, _stopped_work
    _depth += 1
    previous: dict[signal.Signals, Any] = {}
    with contextlib.suppress(ValueError):  # only the main thread may set signal handlers
        previous[signal.SIGTERM] = signal.signal(signal.SIGTERM, interrupt)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
            previous[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        # Libraries turn an interruption into errors of their own.
        if _interrupted or isinstance(error, KeyboardInterrupt):
            if _stopped_work:
                text = "\nStopped. Nothing is lost; run the same command to resume."
                print(text, file=sys.stderr)
            sys.exit(130)
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            error = UserError(
                f"A disk is full, or a quota is used up: {error}. Nothing that was saved is lost; "
                "make room, and run the same command again."
            )
        if isinstance(error, OSError) and error.errno in DISK_UNAVAILABLE:
            error = UserError(
                f"A disk failed: {error}. Nothing that was saved is lost; run the same command to "
                "resume once the disk works."
            )
        if isinstance(error, PermissionError):
            error = UserError(
                f"The permission for it is missing: {error}. Ask the owner of the file or folder "
                "for it, or name another place."
            )
        if isinstance(error, UserError | TrialFailed):
            sys.exit(print_error(error))
        raise
    finally:
        _depth -= 1
        if not _depth:
            _interrupted = _stopped_work = False
        for number, handler in previous.items():
            if handler is not None:  # a handler that was not set from Python cannot be put back
                signal.signal(number, handler)


@contextlib.contextmanager
def resumable(stopping: Callable[[], str]) -> Iterator[None]:
    """Mark work that the same command resumes where it is interrupted.

    Args:
        stopping: Says what is being stopped; it is called at the interruption.
    """
    global _stopped_work
    _begun.append(stopping)
    try:
        yield
    except BaseException as error:
        if _interrupted or isinstance(error, KeyboardInterrupt):
            _stopped_work = True
        raise
    finally:
        _begun.remove(stopping)
