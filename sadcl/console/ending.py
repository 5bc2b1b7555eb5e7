"""How a command ends: with one paragraph and an exit code."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Any

from sadcl.errors import DISK_FULL, DISK_UNAVAILABLE, TrialFailed, UserError, print_error

_interrupted = False
"""Whether a signal has interrupted a :func:`guarded` block; nested blocks share it."""
_depth = 0
"""Nested :func:`guarded` blocks."""


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """End the process with one paragraph instead of a traceback where a paragraph says everything.

    The exit code is 2 after a :class:`UserError` or a disk that fails, 1 after a
    :class:`TrialFailed`, and 130 after Ctrl-C or SIGTERM, which ``ray job stop`` sends. The signal
    handlers of before are put back when the block ends.
    """

    def interrupt(*_: object) -> None:
        global _interrupted
        _interrupted = True
        raise KeyboardInterrupt

    global _depth, _interrupted
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
            text = "\nStopped. Nothing is lost; run the same command to resume."
            print(text, file=sys.stderr)
            sys.exit(130)
        if isinstance(error, OSError) and error.errno in (*DISK_FULL, *DISK_UNAVAILABLE):
            error = UserError(
                f"A disk failed: {error}. Nothing that was saved is lost; run the same command to "
                "resume once the disk works."
            )
        if isinstance(error, UserError | TrialFailed):
            sys.exit(print_error(error))
        raise
    finally:
        _depth -= 1
        if not _depth:
            _interrupted = False
        for number, handler in previous.items():
            if handler is not None:  # a handler that was not set from Python cannot be put back
                signal.signal(number, handler)
