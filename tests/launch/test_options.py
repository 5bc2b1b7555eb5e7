"""Options stand once: flags, keyword arguments and signatures are made from them."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys

import pytest

import sadcl
from sadcl import UserError
from sadcl.cli import experiment
from sadcl.launch.options import Options, TrainOptions, takes_options


@takes_options(Options)
def start(study: str, options: Options) -> tuple[str, Options]:
    """Start.

    Args:
        study: What to run.
        **options: those of this start.
    """
    return study, options


@pytest.mark.parametrize(("function", "kind"), [(sadcl.run, Options), (sadcl.train, TrainOptions)])
def test_a_signature_and_a_docstring_show_every_option(function, kind):
    parameters = inspect.signature(function).parameters
    for field in dataclasses.fields(kind):
        assert parameters[field.name].default == field.default
        assert parameters[field.name].kind is inspect.Parameter.KEYWORD_ONLY
        assert f"        {field.name}: " in function.__doc__
    assert list(parameters)[1:] == [field.name for field in dataclasses.fields(kind)]
    assert "**options" not in function.__doc__


def test_options_are_keyword_arguments():
    assert start("s", n_trials=3) == start(study="s", n_trials=3) == ("s", Options(n_trials=3))
    with pytest.raises(TypeError, match="unexpected keyword argument 'n_trails'"):
        start("s", n_trails=3)
    with pytest.raises(TypeError, match="too many positional"):
        start("s", "/data")


@pytest.mark.parametrize(
    ("former", "name"), [("trials", "n_trials"), ("gpus_per_trial", "gpus_per_worker")]
)
def test_former_names_work_with_a_warning_that_names_the_caller(former, name):
    with pytest.warns(DeprecationWarning, match=f"{former}= is called {name}= now") as warnings:
        _, options = start("s", **{former: 2})
    assert getattr(options, name) == 2
    assert warnings[0].filename == __file__
    with pytest.warns(DeprecationWarning, match=former), pytest.raises(TypeError, match="both"):
        start("s", **{former: 2, name: 3})


def test_every_option_has_a_flag_that_sets_it():
    words = ["--data-root", "/d", "--storage", "s", "--address", "a", "--workers", "2"]
    words += ["--gpus-per-worker", "0.5", "--scale", "demo", "--yes", "--max-concurrent", "3"]
    words += ["--max-disk", "1.5", "--trials", "4", "--max-epochs", "5", "--max-hours", "6"]
    words += ["--retry-failed", "--fresh", "--dry-run"]
    words += ["--set", "loss.tau=0.1", "--set", "seed=3"]
    options = experiment._parse("?", Options, words)
    assert options["data_root"] == ["/d"]
    assert options["changes"] == ["loss.tau=0.1", "seed=3"]
    assert Options(**options | {"data_root": "/d", "changes": {"seed": 3}}) == Options(
        data_root="/d",
        storage="s",
        address="a",
        workers=2,
        gpus_per_worker=0.5,
        scale="demo",
        yes=True,
        max_concurrent=3,
        max_disk=1.5,
        n_trials=4,
        max_epochs=5,
        max_hours=6.0,
        changes={"seed": 3},
        retry_failed=True,
        fresh=True,
        dry_run=True,
    )
    assert Options(**experiment._parse("?", Options, [])) == Options()
    again = experiment._parse("?", Options, ["--n-trials", "7", "--gpus-per-trial", "1"])
    assert (again["n_trials"], again["gpus_per_worker"]) == (7, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "--workers 0 is not possible: it must be at least 1"),
        ({"n_trials": 0}, "--trials 0 is not possible: it must be at least 1"),
        ({"max_epochs": -1}, "--max-epochs -1 is not possible: it must be at least 1"),
        ({"max_disk": 0.0}, "--max-disk 0 is not possible: it must be above 0"),
        ({"workers": "2:8"}, "--workers 2:8 is not possible here"),
    ],
)
def test_values_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Options(**options)


SCRIPT = """
from sadcl.launch.options import TrainOptions, takes_options

@takes_options(TrainOptions)
def train(config, options):
    print("trains")

import study  # as the import path of a part of this file does
"""


@pytest.mark.parametrize(
    ("end", "code", "output"),
    [("train(None)", 2, ""), ("if __name__ == '__main__':\n    train(None)", 0, "trains\n")],
)
def test_a_script_that_starts_a_run_while_it_is_imported_is_told(tmp_path, end, code, output):
    file = tmp_path / "study.py"
    file.write_text(SCRIPT + end + "\n")
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, output)
    words = "line 9, starts sadcl.train while the file is imported as 'study'"
    assert (words in done.stderr) == (code == 2)
