"""The command ``sadcl studies``."""

from __future__ import annotations

import os
import subprocess

import pytest

from sadcl import results, storage
from sadcl.errors import UserError
from sadcl.study import record
from tests.study.test_record import write


@pytest.fixture
def two(tmp_path):
    """Studies s and t; t starts from a stage 1 that s trained."""
    write(tmp_path, "own1", phase="stage1")
    write(tmp_path, "shared1", phase="stage1")
    write(tmp_path, "mine", stage1_key="own1")
    write(tmp_path, "other", "t", stage1_key="shared1")
    storage.write(f"{tmp_path}/checkpoints/mine/stage1/last.pt", b"1234")
    storage.write(f"{tmp_path}/checkpoints/stray/last.pt", b"12345")
    storage.write(f"{tmp_path}/studies/s.json", b'{"name": "s"}')


@pytest.mark.usefixtures("two")
def test_list_has_the_bytes_of_each_study(sadcl):
    lines = [line.split("\t") for line in sadcl("studies", "list").splitlines()]
    assert lines[0][:4] == ["study", "dataset", "scale", "trials"]
    assert {line[0]: (line[3], line[-1]) for line in lines[1:]} == {
        "s": ("3", "7"),
        "t": ("1", "1"),
    }
    assert "checkpoint_bytes" not in sadcl("results", "studies")


@pytest.mark.usefixtures("two")
def test_delete_says_what_goes_and_leaves_what_others_need(sadcl, tmp_path):
    out = sadcl("studies", "delete", "s", "--yes")
    assert "2 runs with all rows, and 2 checkpoint folders (6 bytes)." in out
    assert "It keeps 1 stage-1 run that other studies start from." in out
    assert out.endswith("Removed.\n")
    assert set(results.read(tmp_path, "trials")["key"].to_pylist()) == {"shared1", "other"}
    assert not (tmp_path / "studies" / "s.json").exists()
    assert {p.parent.name for p in tmp_path.rglob("best.pt")} == {"shared1", "other"}


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("s",), r"\(6 bytes\)\. It keeps 1 stage-1 run .* Pass --yes to continue"),
        (("S", "--yes"), "There is no study 'S'"),
    ],
)
def test_delete_refuses(sadcl, tmp_path, words, message):
    with pytest.raises(UserError, match=message):
        sadcl("studies", "delete", *words)
    assert len(results.read(tmp_path, "trials")) == 4


@pytest.mark.parametrize("held", ["s", "run"])
def test_delete_waits_for_no_driver(sadcl, tmp_path, held):
    """A driver holds the lock of its study; one that trains a single run holds that of the run."""
    write(tmp_path, "run", phase="train")
    with (
        record.locked(str(tmp_path), held),
        pytest.raises(UserError, match=f"at work on the study '{held}'"),
    ):
        sadcl("studies", "delete", "s", "--yes")
    assert len(results.read(tmp_path, "trials")) == 1
    sadcl("studies", "delete", "s", "--yes")
    assert len(results.read(tmp_path, "trials")) == 0


@pytest.mark.parametrize(("answer", "code", "left"), [(b"y\n", 0, 0), (b"\n", 2, 1)])
def test_delete_asks_on_a_terminal(command, tmp_path, answer, code, left):
    write(tmp_path, "one")
    ours, theirs = os.openpty()
    os.write(ours, answer)
    words = ["sadcl", "studies", "delete", "s", "--storage", str(tmp_path)]
    done = subprocess.run(
        words, stdin=theirs, capture_output=True, text=True, env=command.environment, timeout=60
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == code, done.stderr
    assert "1 run with all rows, and 1 checkpoint folder (1 byte)" in done.stdout
    assert "Continue?" in done.stdout
    assert "Nothing was changed." in done.stderr + "Nothing was changed." * (code == 0)
    assert len(results.read(tmp_path, "trials")) == left
