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
        ("results topp", "There is no command topp; did you mean top? `sadcl results --help`"),
        ("xyzzy", "There is no command xyzzy. `sadcl --help`"),
        ("results top --studdy x", "There is no flag --studdy; did you mean --study? `sadcl "),
        ("results top --qqq", "There is no flag --qqq. `sadcl results top --help`"),
        ("results top -n x", "The value of -n is not possible: it must be a whole number."),
        ("results top -n 0", "The value of -n is not possible: it must be greater than or equal"),
        ("results top --study", "The flag --study needs a value. `sadcl results top --help`"),
        ("results top one two", "'two' belongs to no flag. `sadcl results top --help`"),
        ("results show", "KEY is missing. `sadcl results show --help`"),
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
        ("--trails 3", "There is no flag --trails; did you mean --trials?"),
        ("--qqq", "There is no flag --qqq."),
        ("--trials x", "--trials 'x' is not possible: it must be a whole number."),
        ("--max-hours x", "--max-hours 'x' is not possible: it must be a number."),
        ("--scale big", "--scale 'big' is not possible: it must be one of 'demo', 'full'."),
        ("--trials", "The flag --trials needs a value."),
        ("--workers x", "--workers: give a whole number or"),
        ("extra", "'extra' belongs to no flag."),
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
