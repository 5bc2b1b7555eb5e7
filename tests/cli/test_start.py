"""The command as a whole: its entry, its version, its help."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import sadcl
from sadcl.cli.app import app


def test_ctrl_c_while_modules_load_is_silent():
    code = (
        "import sys\n"
        "class Stop:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name == 'sadcl.cli.app': raise KeyboardInterrupt\n"
        "from sadcl.cli.start import main\n"
        "sys.meta_path.insert(0, Stop)\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_the_entry_imports_nothing():
    code = "import sys, sadcl.cli.start; print('typer' in sys.modules, 'rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False False\n"


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("words", [[], ["results"], ["results", "top"], ["export"]])
def test_help_has_two_flags(words, flag):
    assert "Usage" in CliRunner().invoke(app, [*words, flag]).stdout


def test_the_version_and_the_exit_codes():
    assert CliRunner().invoke(app, ["--version"]).stdout == f"sadcl {sadcl.__version__}\n"
    text = " ".join(CliRunner().invoke(app, ["--help"]).stdout.split())
    for code in ("0, everything is done.", "1, a run failed", "2, something", "130, the"):
        assert code in text


def test_switches_have_no_type_in_the_help(command):
    text = command("sadcl", "results", "top", "--help", COLUMNS="80").stdout
    assert "<bool>" not in text
    assert "--wide" in text


def test_train_takes_a_data_set_or_a_file(command, tmp_path):
    text = command("sadcl", "train", "coco14", "--help").stdout
    assert "--set FIELD=VALUE" in text
    assert "--seed N" in text
    done = command("sadcl", "train", "coco41", check=False)
    assert done.returncode == 2
    assert done.stderr == "error: There is no recipe for 'coco41'; did you mean 'coco14'?\n"
    (tmp_path / "x.py").write_text("print('ran')\nraise SystemExit(0)\n")
    assert command("sadcl", "train", "x.py").stdout == "ran\n"


def test_a_checkpoint_is_given_in_one_way_or_the_other(command, two_runs):
    root, row, _ = two_runs
    for words in ((row["key"],), ("--checkpoint", row["key"])):
        done = command("sadcl", "export", *words, "--storage", root, check=False)
        assert "Give one of --onnx" in done.stderr
    done = command("sadcl", "evaluate", "--storage", root, check=False)
    assert done.stderr == "error: Give one checkpoint: --checkpoint KEY.\n"


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_streams_that_are_closed_from_the_start_go_nowhere(tmp_path, closed):
    """And no file that is opened later gets their numbers."""
    code = (
        "import os, sys, sadcl.console\n"
        "file = open('out', 'w')\n"
        "assert file.fileno() > 2\n"
        "os.write(1, b'x')\n"
        "print('printed'); print('printed', file=sys.stderr)\n"
        "file.write(str(sys.stdin is not None))\n"
    )
    streams = " ".join(f"{number}>&-" for number in closed)
    words = ["sh", "-c", f'exec "$0" -c "$1" {streams}', sys.executable, code]
    done = subprocess.run(words, cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert (tmp_path / "out").read_text() == "True"


def test_a_character_that_the_terminal_lacks_is_written_as_its_code():
    code = r"import sadcl.console; print('fox \U0001f98a')"
    words = [sys.executable, "-c", code]
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=plain)
    assert (done.returncode, done.stdout) == (0, "fox \\U0001f98a\n")


def test_a_working_folder_that_was_removed_is_one_paragraph(tmp_path):
    """PyTorch's libraries end the process there without a word about it."""
    folder = tmp_path / "gone"
    folder.mkdir()
    code = "from sadcl.cli.start import main; main()"
    words = ["sh", "-c", 'rmdir "$PWD"; exec "$0" -c "$1" data check', sys.executable, code]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: The working folder was removed")
