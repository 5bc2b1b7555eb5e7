"""What can go wrong that is not a fault of this program, and how a script ends where nobody catches it."""

from __future__ import annotations

import difflib
import enum
import errno
import sys
from collections.abc import Iterable
from types import TracebackType

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a disk says that is full, or a user's share of it."""
DISK_UNAVAILABLE = (errno.EIO, errno.EROFS, errno.ESTALE)
"""What a disk says that fails, or is not there at present."""


class UserError(ValueError):
    """Bad input: the message says what was found, where, and what to do.

    A script or command ends with it as one paragraph and exit code 2; everything else that is raised is a fault of ours
    and keeps its traceback.
    """


class FailureKind(enum.Enum):
    """What made a trial fail; of several workers' errors it decides which one is the cause."""

    TRAINING = "training"
    """The configuration, the data, or the training itself."""
    MEMORY = "memory"
    CONNECTION = "connection"
    """The connection to another worker broke, usually as a consequence of that one's error."""
    STORAGE = "storage"
    DISK_FULL = "disk full"


class TrialFailed(RuntimeError):
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
    """Return the end of a message about an unknown name: the closest existing name, or the first dozen."""
    existing = [str(candidate) for candidate in names]
    closest = difflib.get_close_matches(name, existing, n=1, cutoff=0.5)
    if closest:
        return f"; did you mean {closest[0]!r}?"
    more = f" and {len(existing) - 12} more" if len(existing) > 12 else ""
    return f"; there are {', '.join(existing[:12]) or 'none'}{more}."


def print_error(error: UserError | TrialFailed) -> int:
    """Say in one paragraph what went wrong, and give the exit code that says it too."""
    mistake = isinstance(error, UserError)
    print(f"{'error' if mistake else 'failed'}: {error}", file=sys.stderr)
    return 2 if mistake else 1


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not isinstance(error, (UserError, TrialFailed)):
        _previous_hook(kind, error, trace)
        return
    code = print_error(error)
    if not hasattr(sys, "ps1"):  # an interpreter that somebody types into goes on
        raise SystemExit(code)


# An experiment's value is made when its file is read, before any function of ours could catch a mistake in it.
_previous_hook, sys.excepthook = sys.excepthook, _uncaught
