"""Mistakes on a command line: one plain paragraph, the same for every command, and exit code 2."""

from __future__ import annotations

import sys

import pytest

from sadcl.cli import app, experiment
from sadcl.search import Search
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("results topp", "No such command 'topp'. Did you mean 'top'? `sadcl results --help`"),
        ("xyzzy", "No such command 'xyzzy'. `sadcl --help`"),
        ("results top --studdy x", "No such option: --studdy (Possible options: --study). `sadcl "),
        ("results top --qqq", "No such option: --qqq. `sadcl results top --help`"),
        ("results top -n x", "Invalid value for '-n': Input should be a valid integer"),
        ("results top -n 0", "Invalid value for '-n': Input should be greater than or equal"),
        (
            "results top --study",
            "Option '--study' requires an argument. `sadcl results top --help`",
        ),
        (
            "results top one two",
            "Got unexpected extra argument(s) (two). `sadcl results top --help`",
        ),
        ("results show", "Missing argument 'KEY'. `sadcl results show --help`"),
    ],
)
def test_of_sadcl(monkeypatch, capsys, words, message):
    monkeypatch.setattr(sys, "argv", ["sadcl", *words.split()])
    monkeypatch.setattr(app, "_import_arrow_without_pandas", None)  # is not needed for a mistake
    with pytest.raises(SystemExit) as end:
        app.main()
    output = capsys.readouterr()
    assert (end.value.code, output.out) == (2, "")
    assert output.err.startswith(f"error: {message}")
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--trails 3", "No such option: --trails (Possible options: --trials,"),
        ("--qqq", "No such option: --qqq."),
        ("--trials x", "argument --trials/--n-trials: invalid int value: 'x'."),
        ("--max-hours x", "argument --max-hours: invalid float value: 'x'."),
        ("--scale big", "argument --scale: invalid choice: 'big' (choose from "),
        ("--trials", "argument --trials/--n-trials: expected one argument."),
        ("--workers x", "argument --workers: give a whole number or"),
        ("extra", "Got unexpected extra argument: extra."),
    ],
)
def test_of_an_experiment(capsys, words, message):
    study = object.__new__(Search)
    object.__setattr__(study, "question", "Which?")
    with pytest.raises(SystemExit) as end:
        experiment.main(study, words.split())
    output = capsys.readouterr()
    assert (end.value.code, output.out) == (2, "")
    assert output.err.startswith(f"error: {message}")
    assert output.err.endswith(" See --help.\n")


@pytest.mark.parametrize("module", ["sadcl.cli.app", "sadcl.cli.experiment"])
def test_neither_needs_torch_nor_the_tables(command, module):
    code = (
        f"import sys, {module}; print({{'torch', 'ray', 'pyarrow', 'duckdb'}} & {{*sys.modules}})"
    )
    assert command("python", "-c", code, PYTHONPATH=str(ROOT)).stdout == "set()\n"
