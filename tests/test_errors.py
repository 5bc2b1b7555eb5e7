"""How a script ends where nobody catches an error."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from sadcl import errors
from sadcl.errors import TrialFailed, UserError


def script(tmp_path, text):
    file = tmp_path / "x.py"
    file.write_text(text)
    return subprocess.run([sys.executable, file], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("kind", "code", "text"),
    [("UserError", 2, "error: Why.\n"), ("TrialFailed", 1, "failed: Why.\n")],
)
def test_an_uncaught_error_is_one_paragraph_and_an_exit_code(tmp_path, kind, code, text):
    done = script(tmp_path, f"from sadcl.errors import {kind}\nraise {kind}('Why.')\n")
    assert (done.returncode, done.stderr, done.stdout) == (code, text, "")


def test_every_other_error_goes_to_the_hook_of_before(tmp_path):
    done = script(
        tmp_path,
        "import sys\n"
        "def before(kind, error, trace): print('before:', error)\n"
        "sys.excepthook = before\n"
        "from sadcl.errors import UserError\n"
        "UserError('caught by nobody, raised by nobody')\n"
        "1 / 0\n",
    )
    assert done.stdout == "before: division by zero\n"
    assert (done.returncode, done.stderr) == (1, "")


INTERRUPTED = """
import importlib, sadcl
imported = importlib.import_module
def import_module(name):
    if name == "sadcl.search":
        raise KeyboardInterrupt
    return imported(name)
importlib.import_module = import_module
"""


def test_ctrl_c_while_an_experiment_loads_is_silent(tmp_path):
    done = script(tmp_path, INTERRUPTED + "from sadcl import Search\n")
    assert (done.returncode, done.stderr) == (130, "")
    done = script(
        tmp_path, "from sadcl import UserError\nUserError('x')\nraise KeyboardInterrupt\n"
    )
    assert "Traceback" in done.stderr  # of a program that was not loading


@pytest.fixture
def hook(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)


@pytest.mark.usefixtures("hook")
def test_the_hook_is_installed_once_and_puts_the_former_one_back(capsys):
    UserError("a")
    installed = sys.excepthook
    TrialFailed("b")
    assert sys.excepthook is installed is not sys.__excepthook__
    with pytest.raises(SystemExit) as end:
        installed(UserError, UserError("c"), None)
    assert end.value.code == 2
    assert sys.excepthook is sys.__excepthook__
    assert capsys.readouterr().err == "error: c\n"


@pytest.mark.usefixtures("hook")
def test_an_interactive_interpreter_goes_on(capsys, monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    error = UserError("c")
    sys.excepthook(UserError, error, None)
    assert capsys.readouterr().err == "error: c\n"


def test_a_terminal_gets_a_paragraph_that_is_wrapped_between_words(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    errors.print_error(UserError("one two three four five six\nseven"))
    assert capsys.readouterr().err == "error: one two three\nfour five six\nseven\n"


def test_errors_travel_between_processes():
    for error in (UserError("Why."), TrialFailed("Why.")):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert copy.args == error.args
    assert isinstance(UserError("x"), ValueError)
    assert isinstance(TrialFailed("x"), RuntimeError)
