"""Sentences, questions and progress on the terminal."""

import io
import time

import pytest
from rich.console import Console

from sadcl.console import terminal
from sadcl.errors import UserError


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    with terminal.progress_bar("reading") as show:
        show("looking")(1, 2000)
        monkeypatch.setattr(terminal, "_PLAIN_SECONDS", -1)
        show("looking")(1500, 2000)
        show("reading")(3, 0)
    text = "looking: 1,500 of 2,000\nlooking: done\nreading: 3\nreading: done\n"
    assert capsys.readouterr().err == text


def test_a_long_line_is_wrapped_on_a_terminal_and_whole_elsewhere(monkeypatch):
    for is_terminal, text in ((True, "  one [b]two\n    three\n"), (False, "  one [b]two three\n")):
        out = io.StringIO()
        soft = Console(file=out, force_terminal=is_terminal, width=12, soft_wrap=not is_terminal)
        monkeypatch.setattr(terminal, "console", soft)
        terminal.print_text("  one [b]two three")
        assert out.getvalue() == text


def test_paths_and_commands_are_never_wrapped(monkeypatch):
    out = io.StringIO()
    narrow = Console(file=out, force_terminal=True, color_system=None, width=20)
    monkeypatch.setattr(terminal, "console", narrow)
    terminal.print_text("Its checkpoint: /a folder/of a long name/best.pt")
    terminal.print_text("reads /a-folder-of-a-very-long-name/best.pt")
    terminal.print_command("look:", ["sadcl", "show", "key", "--storage", "my runs"])
    assert out.getvalue() == (
        "Its checkpoint: /a folder/of a long name/best.pt\n"
        "reads\n  /a-folder-of-a-very-long-name/best.pt\n"
        "  look:\n    sadcl show key --storage 'my runs'\n"
    )


def test_a_question_that_nobody_can_answer_is_an_error(monkeypatch):
    terminal.confirm("This removes 2 runs.", yes=True)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(UserError, match=r"This removes 2 runs\. Pass --yes to continue"):
        terminal.confirm("This removes 2 runs.", yes=False)


@pytest.mark.parametrize("answer", ["y", "Yes", "", "n"])
def test_a_question_is_answered_on_a_terminal(monkeypatch, answer):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(terminal.console, "input", lambda prompt: answer)
    if answer.lower() in ("y", "yes"):
        terminal.confirm("This removes 2 runs.", yes=False)
    else:
        with pytest.raises(UserError, match=r"Nothing was changed\."):
            terminal.confirm("This removes 2 runs.", yes=False)


def test_what_takes_long_is_said_without_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "_QUIET_SECONDS", 0.01)
    with terminal.working("measuring"):
        time.sleep(0.3)
    assert capsys.readouterr().err == "measuring ...\n"
    monkeypatch.setattr(terminal, "_QUIET_SECONDS", 60)
    with terminal.working("measuring"):
        pass
    assert capsys.readouterr().err == ""
