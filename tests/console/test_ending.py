"""How a command ends: one paragraph and an exit code."""

import errno
import signal

import pytest

from sadcl.console import guarded, resumable
from sadcl.errors import TrialFailed, UserError


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UserError("Wrong field."), 2, "error: Wrong field."),
        (TrialFailed("It diverged."), 1, "failed: It diverged."),
    ],
)
def test_a_command_ends_with_one_paragraph_and_a_code(capsys, error, code, words):
    with pytest.raises(SystemExit) as end, guarded():
        raise error
    assert end.value.code == code
    assert words in capsys.readouterr().err


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), guarded():
        _ = 1 / 0


def test_a_disk_that_fails_is_said_without_a_traceback(capsys):
    with pytest.raises(SystemExit) as end, guarded():
        raise OSError(errno.EROFS, "Read-only file system", "/runs/optuna")
    assert end.value.code == 2
    assert (
        "A disk failed: [Errno 30] Read-only file system: '/runs/optuna'" in capsys.readouterr().err
    )


def test_a_full_disk_is_not_called_a_failed_one(capsys):
    with pytest.raises(SystemExit) as end, guarded():
        raise OSError(errno.ENOSPC, "No space left on device")
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: A disk is full, or a quota is used up: [Errno 28] No space")
    assert "make room" in message


def test_a_store_of_somebody_else_is_one_paragraph(capsys):
    """As where a lock is to be taken in one that may only be read."""
    with pytest.raises(SystemExit) as end, guarded():
        raise PermissionError(errno.EACCES, "Permission denied", "/runs/tables/.merging.lock")
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        "error: The permission for it is missing: [Errno 13] Permission denied: "
        "'/runs/tables/.merging.lock'. Ask the owner of the file or folder for it, or name another "
        "place.\n"
    )


def _interrupted(number):
    try:
        signal.raise_signal(number)
    except KeyboardInterrupt:
        raise OSError("a lock is not held") from None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_one_whatever_a_library_makes_of_it(capsys, number):
    before = {of: signal.getsignal(of) for of in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as end, guarded(), resumable(lambda: "Stopping x."):
            _interrupted(number)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is before[signal.SIGTERM]
    finally:
        for of, handler in before.items():
            signal.signal(of, handler)
    assert end.value.code == 130
    text = capsys.readouterr().err
    assert text == ("\nStopping x.\n\nStopped. Nothing is lost; run the same command to resume.\n")


def test_an_interruption_before_anything_has_begun_is_silent(capsys):
    with resumable(lambda: "over"):
        pass
    with pytest.raises(SystemExit) as end, guarded():
        raise KeyboardInterrupt
    assert end.value.code == 130
    assert capsys.readouterr().err == ""
