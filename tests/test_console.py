"""Tables, progress and numbers on the terminal, and how a command ends."""

import errno
import io
import signal

import pytest
from rich.console import Console

from sadcl import console
from sadcl.console import clock_text, guarded, settings_text
from sadcl.errors import TrialFailed, UserError


def test_settings_in_a_few_characters():
    params = {
        "loss.tau": 0.123456,
        "bank.epsilon": 0.5,
        "prototypes.epsilon": 0.25,
        "bank.policy": "slot",
    }
    assert settings_text(params) == "tau=0.123 bank.epsilon=0.5 prototypes.epsilon=0.25 policy=slot"
    assert settings_text({}) == ""


def test_clock():
    assert [clock_text(s) for s in (None, 0, 65.9, 3909)] == ["?", "0:00", "1:05", "1:05:09"]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UserError("Wrong field."), 2, "error: Wrong field."),
        (TrialFailed("It diverged."), 1, "failed: It diverged."),
        (KeyboardInterrupt(), 130, "Stopped. Nothing is lost; run the same command to resume."),
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
        with pytest.raises(SystemExit) as end, guarded():
            _interrupted(number)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is before[signal.SIGTERM]
    finally:
        for of, handler in before.items():
            signal.signal(of, handler)
    assert end.value.code == 130
    assert "Nothing is lost" in capsys.readouterr().err


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    with console.progress_bar("reading") as show:
        show("looking")(1, 2000)
        monkeypatch.setattr(console, "_PLAIN_SECONDS", -1)
        show("looking")(1500, 2000)
    assert capsys.readouterr().err == "looking: 1,500 of 2,000\n"


def test_a_long_line_is_wrapped_on_a_terminal_and_whole_elsewhere(monkeypatch):
    for terminal, text in ((True, "  one [b]two\n    three\n"), (False, "  one [b]two three\n")):
        out = io.StringIO()
        soft = Console(file=out, force_terminal=terminal, width=12, soft_wrap=not terminal)
        monkeypatch.setattr(console, "console", soft)
        console.print_text("  one [b]two three")
        assert out.getvalue() == text


def test_a_question_that_nobody_can_answer_is_an_error(monkeypatch):
    console.confirm("This removes 2 runs.", yes=True)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(UserError, match=r"This removes 2 runs\. Pass --yes to continue"):
        console.confirm("This removes 2 runs.", yes=False)


@pytest.mark.parametrize("answer", ["y", "Yes", "", "n"])
def test_a_question_is_answered_on_a_terminal(monkeypatch, answer):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(console.console, "input", lambda prompt: answer)
    if answer.lower() in ("y", "yes"):
        console.confirm("This removes 2 runs.", yes=False)
    else:
        with pytest.raises(UserError, match=r"Nothing was changed\."):
            console.confirm("This removes 2 runs.", yes=False)


def test_numbers_as_text():
    assert [console.bytes_text(n) for n in (0, 999, 1234, 2.97e7)] == [
        "0 bytes",
        "999 bytes",
        "1.23 kB",
        "29.7 MB",
    ]
    counts = [console.count_text(1, "run"), console.count_text(2000, "run")]
    assert counts == ["1 run", "2,000 runs"]


def test_names_in_a_table_are_no_markup(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=out, force_terminal=True, width=80))
    console.show_table([{"[/x] [w]": "[/y] :duck:"}], ["[/x] [w]"])
    assert "[/x] [w]" in out.getvalue()
    assert "[/y] :duck:" in out.getvalue()
