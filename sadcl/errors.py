"""Errors that are not faults of this program, and how a script ends where nobody catches them."""

from __future__ import annotations

import difflib
import enum
import errno
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a disk that is full, or of a user's quota that is used up."""
DISK_UNAVAILABLE = (errno.EIO, errno.EROFS, errno.ESTALE)
"""Error numbers of a disk that fails, or that is not mounted at present."""


class _OneParagraph(Exception):
    """The base of errors that end a script with one paragraph instead of a traceback.

    An experiment's file builds its study while Python reads the file, before any function of this
    package could catch a mistake in it. That is why creating such an error calls
    :func:`install_hook`; importing this module changes nothing.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        install_hook()


class UserError(_OneParagraph, ValueError):
    """Bad input. The message says what is wrong, where it is, and what to do.

    A script or command that nobody catches it in ends with the message as one paragraph and with
    exit code 2. Every other exception is a fault of this program and keeps its traceback.
    """


class FailureKind(enum.Enum):
    """What made a trial fail; of several workers' errors it decides which one is the cause."""

    MISTAKE = "mistake"
    """The configuration or the data: a :class:`UserError`."""
    TRAINING = "training"
    """The training itself."""
    DIVERGENCE = "divergence"
    """The loss is not finite, or the workers no longer agree, which all of them find at once."""
    MEMORY = "memory"
    DEVICE = "device"
    """A GPU failed; no work on it succeeds until the process has ended."""
    CONNECTION = "connection"
    """The connection to another worker broke, usually as a consequence of that one's error."""
    STORAGE = "storage"
    DISK_FULL = "disk full"


class TrialFailed(_OneParagraph, RuntimeError):
    """A trial failed; its row of the trials table has the message. A script exits with code 1.

    Args:
        message: The cause in words.
        kind: What failed.
        final: Whether another attempt would fail in the same way.
    """

    def __init__(
        self, message: str, *, kind: FailureKind = FailureKind.TRAINING, final: bool = True
    ) -> None:
        super().__init__(message)  # pickling restores `kind` and `final` from the instance's dict
        self.kind, self.final = kind, final


def did_you_mean(name: str, names: Iterable[object]) -> str:
    """End a message about an unknown name with the closest existing name, or the first dozen."""
    existing = [str(candidate) for candidate in names]
    closest = difflib.get_close_matches(name, existing, n=1, cutoff=0.5)
    if closest:
        return f"; did you mean {closest[0]!r}?"
    more = f" and {len(existing) - 12} more" if len(existing) > 12 else ""
    return f"; there are {', '.join(existing[:12]) or 'none'}{more}."


def print_error(error: UserError | TrialFailed) -> int:
    """Print an error on standard error as one paragraph, wrapped where that is a terminal.

    Returns:
        The exit code that goes with it: 2 for a user's mistake, 1 for a failed trial.
    """
    mistake = isinstance(error, UserError)
    text = f"{'error' if mistake else 'failed'}: {error}"
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        lines = (
            textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
            for line in text.splitlines()
        )
        text = "\n".join(lines)
    print(text, file=sys.stderr)
    return 2 if mistake else 1


def install_hook(silent_interruption: bool = False) -> None:
    """Let an uncaught error of this module end the process without a traceback.

    Args:
        silent_interruption: Let an uncaught Ctrl-C end it silently, too.
    """
    present = sys.excepthook
    hook = present if isinstance(present, _Hook) else _Hook(present)
    hook.silent_interruption |= silent_interruption
    sys.excepthook = hook


class _Hook:
    """Goes before another ``sys.excepthook``, which still gets every other exception.

    As soon as it is called it puts the other hook back.
    """

    def __init__(self, previous: Callable[..., Any]) -> None:
        self.previous = previous
        self.silent_interruption = False

    def __call__(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        sys.excepthook = self.previous
        if isinstance(error, UserError | TrialFailed):
            code = print_error(error)
        elif isinstance(error, KeyboardInterrupt) and self.silent_interruption:
            code = 130
        else:
            self.previous(kind, error, trace)
            return
        if not hasattr(sys, "ps1"):  # an interactive interpreter does not end
            raise SystemExit(code)


def first_line_of(error: BaseException) -> str:
    """Return the first line of what an error says, or its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def reason_of(error: Exception) -> str:
    """Return what an error of a user's function says, as a sentence, and where it was raised.

    ``UserError`` and ``ValueError`` say by themselves what is wrong; of another one, the type, the
    file and the line are named too.
    """
    text = first_line_of(error).rstrip(".")
    if isinstance(error, UserError | ValueError):
        return f"{text}."
    place, trace = "", error.__traceback__
    while trace is not None:
        place = f"{os.path.basename(trace.tb_frame.f_code.co_filename)} line {trace.tb_lineno}"
        trace = trace.tb_next
    return f"it fails with {type(error).__name__}: {text} ({place})."
