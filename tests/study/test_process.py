"""What a run sets in its process, and puts back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sadcl import storage
from sadcl.study import process

TOUCH = """
import sadcl.launch.train, torch  # as before the start of a run, which makes no tensor
from sadcl.study.process import large_pages

with large_pages():
    ones = torch.ones(64, 3, 448, 448)
lines = [line for line in open("/proc/self/smaps") if line.startswith("AnonHugePages")]
print(sum(int(line.split()[1]) for line in lines))
"""


def test_the_variable_is_put_back(monkeypatch):
    monkeypatch.delenv(process.LARGE_PAGES, raising=False)
    with process.large_pages():
        assert os.environ[process.LARGE_PAGES] == "1"
    assert process.LARGE_PAGES not in os.environ
    monkeypatch.setenv(process.LARGE_PAGES, "0")
    with process.large_pages():
        assert os.environ[process.LARGE_PAGES] == "0"
    assert os.environ[process.LARGE_PAGES] == "0"


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage/enabled").is_file()
    or "[madvise]" not in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(),
    reason="the kernel gives huge pages to all or to none",
)
def test_pages_are_large_although_torch_was_imported_before():
    environment = {k: v for k, v in os.environ.items() if k != process.LARGE_PAGES}
    done = subprocess.run(
        [sys.executable, "-c", TOUCH], capture_output=True, text=True, env=environment, check=True
    )
    assert int(done.stdout) > 100_000  # kB, of 154,000


def test_relative_paths_mean_the_folder_of_the_start_while_the_process_stands_elsewhere(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", "modules", *sys.path])
    monkeypatch.setenv("HF_HOME", "weights")
    monkeypatch.setenv("TORCH_HOME", "/torch")
    before = list(sys.path)
    with process.away_from_start_folder():
        assert os.getcwd() == "/"
        assert storage.absolute("runs") == str(tmp_path / "runs")
        assert storage.local("/a/b") == Path("/a/b")
        storage.write("runs/x", b"1")
        assert sys.path[:2] == [str(tmp_path), str(tmp_path / "modules")]
        assert os.environ["HF_HOME"] == str(tmp_path / "weights")
        assert os.environ["TORCH_HOME"] == "/torch"
        with process.away_from_start_folder():
            assert os.getcwd() == "/"
        assert storage.absolute("runs") == str(tmp_path / "runs")
        with process.back_in_start_folder():
            assert os.getcwd() == str(tmp_path)
        assert os.getcwd() == "/"
    assert os.getcwd() == str(tmp_path)
    assert sys.path == before
    assert (os.environ["HF_HOME"], os.environ["TORCH_HOME"]) == ("weights", "/torch")
    assert (tmp_path / "runs" / "x").read_bytes() == b"1"


@pytest.mark.parametrize("again", [True, False])
def test_a_start_folder_that_is_removed(tmp_path, monkeypatch, again):
    """As where a job's package is unpacked anew: the same path, another folder."""
    folder = tmp_path / "package"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with process.away_from_start_folder():
        folder.rmdir()
        assert os.getcwd() == "/"
        if again:
            folder.mkdir()
        with process.back_in_start_folder():
            assert os.getcwd() == (str(folder) if again else "/")
    assert os.getcwd() == (str(folder) if again else "/")


def test_a_start_folder_that_is_gone_before_it_can_be_left(tmp_path, monkeypatch):
    folder = tmp_path / "package"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PWD", str(folder))
    folder.rmdir()
    with process.away_from_start_folder():
        assert storage.absolute("runs") == str(folder / "runs")
