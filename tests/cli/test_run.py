"""An experiment's file: with Python and with ``sadcl run``."""

from __future__ import annotations

import pytest

HOW = [("python",), ("sadcl", "run")]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            '"loss.tau"',
            '"loss.tua"',
            "There is no configuration field 'loss.tua'. Did you mean 'loss.tau'?",
        ),
        (
            "Float(0.05, 0.5, log=True)",
            "Float(0.5, 0.05)",
            "low < high must hold, but got low=0.5, high=0.05.",
        ),
        (
            "confirm_seeds=",
            "confirm_sedes=",
            "A Search has no 'confirm_sedes'. Did you mean 'confirm_seeds'?",
        ),
        (
            "recipes.coco14()",
            'recipes.coco14("relesed")',
            "variant must be 'released' or 'paper', but got 'relesed'",
        ),
        (
            "recipes.coco14()",
            'recipes.coco14().override({"loss.tau": -1})',
            "loss.tau = -1 is not possible",
        ),
    ],
)
@pytest.mark.parametrize("how", HOW)
def test_a_mistake_in_the_experiments_file(command, study_file, how, old, new, words):
    """It is made while the file is read, before any function of the package is called."""
    file = study_file()
    file.write_text(file.read_text().replace(old, new))
    done = command(*how, file, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("how", HOW)
def test_other_errors_keep_their_traceback(command, tmp_path, how):
    (tmp_path / "x.py").write_text("import sadcl.errors\n1 / 0\n")
    done = command(*how, "x.py", check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("how", HOW)
def test_flags_are_the_same_and_quick(command, study_file, how):
    file = study_file()
    text = command(*how, file, "--help", COLUMNS="80").stdout
    assert "Does the path hold?" in text
    for flag in ("--data-root", "--gpus-per-worker", "--gpus-per-trial", "--trials", "--n-trials"):
        assert flag in text
    assert max(map(len, text.splitlines())) <= 80
    done = command(*how, file, "--gpus-per-wroker", "1", check=False)
    assert done.returncode == 2
    nearest = "(Possible options: --gpus-per-worker, --gpus-per-trial)"
    assert done.stderr == f"error: No such option: --gpus-per-wroker {nearest}. See --help.\n"


def test_flags_are_read_before_torch_and_ray_are_imported(command, study_file):
    file = study_file()
    check = "import atexit, sys\natexit.register(lambda: print(sorted(sys.modules)))\n"
    file.write_text(check + file.read_text())
    modules = command("python", file, "--help").stdout.splitlines()[-1]
    assert "'sadcl.cli.experiment'" in modules
    for name in ("torch", "ray", "optuna", "pyarrow", "pandas"):
        assert f"'{name}'" not in modules


SEARCH = """
from sadcl import Search, recipes
from sadcl.search import Float
from helper import NAME

search = Search(
    name=NAME,
    question="?",
    base=recipes.coco14(),
    demo=recipes.demo(),
    space={"loss.tau": Float(0.05, 0.5)},
)
"""


@pytest.fixture
def plain_file(tmp_path):
    """A file that only defines a search, and a module next to it, in a folder of their own."""
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "helper.py").write_text("NAME = 'plain'\n")
    (folder / "plain.py").write_text(SEARCH)
    return folder / "plain.py"


@pytest.mark.parametrize("end", ["", "again = search\n", "many = [search]\ndel search\n"])
def test_a_file_that_only_defines_a_study_is_run(command, plain_file, end):
    plain_file.write_text(SEARCH + end)
    text = command("sadcl", "run", plain_file, "--dry-run", "--trials", "5").stdout
    assert "study plain-demo: scenes" in text
    assert "5 trials" in text


def test_a_file_that_calls_main_is_run_once(command, study_file):
    text = command("sadcl", "run", study_file(), "--dry-run").stdout
    assert text.count("study tiny-demo") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "plain.py defines no study. Let it define a sadcl.Search"),
        (SEARCH + "import dataclasses\nother = dataclasses.replace(search, name='other')\n",
         "plain.py defines several studies: search, other. Let it call sadcl.main(...)"),
        ("x = (\n", "plain.py, line 1: '(' was never closed."),
        (None, "There is no file "),
    ],
)  # fmt: skip
def test_files_that_cannot_be_run(command, plain_file, text, message):
    plain_file.unlink()
    if text is not None:
        plain_file.write_text(text)
    done = command("sadcl", "run", plain_file, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_commands_explain_themselves_and_name_the_nearest(command):
    text = command("sadcl", "--help", COLUMNS="80").stdout
    for name in ("run", "new", "config", "results", "studies", "data", "evaluate", "predict"):
        assert f"│ {name} " in text
    done = command("sadcl", "rsults", check=False)
    assert done.returncode == 2
    assert "No such command 'rsults'. Did you mean 'results'?" in done.stderr
