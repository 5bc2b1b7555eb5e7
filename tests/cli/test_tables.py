"""The commands `sadcl results ablation` and `sadcl studies`."""

from __future__ import annotations

import os
import subprocess

import pytest
from typer.testing import CliRunner

from sadcl import results, storage
from sadcl.cli.app import app
from sadcl.errors import UserError
from sadcl.study import record
from tests.reports.ablations import ablation, add
from tests.study.test_record import write


@pytest.fixture
def sadcl(tmp_path):
    """Runs a command in this process; a mistake is raised."""

    def run(*words):
        done = CliRunner().invoke(app, [*map(str, words), "--storage", str(tmp_path)])
        if done.exception is not None:
            raise done.exception
        return done.stdout

    return run


def test_ablation_prints_table_notes_sentences_and_what_is_missing(sadcl, tmp_path):
    ablation(tmp_path, {"stage2": [50.0, 51.0], "both": [50.5, 51.7]}, marks={"both": ["PSCL"]})
    add(tmp_path, "both", 2, status="running")
    out = sadcl("results", "ablation", "--study", "ab").splitlines()
    assert out[:3] == ["ab: Why?", "# coco14", "arm\tPSCL\tmAP\tdifference\tp (Holm)"]
    assert out[4] == "both\t✓\t51.10 ± 0.85\t+0.60 (-0.67 to +1.87)\t0.105"
    assert (
        "On coco14, both compared with stage2: +0.60 mAP (-0.67 to +1.87), corrected p = 0.105: "
        "no significant difference." in out
    )
    assert out[-4:-2] == ["# runs without a figure", "dataset\tarm\tseed\treason\tkey\tcause"]
    assert out[-2:] == [
        "coco14\tstage2\t2\tmissing\t\t",
        "coco14\tboth\t2\tunfinished\tab-both-coco14-s2\t",
    ]
    other = sadcl(
        "results", "ablation", "--study", "ab", "--baseline", "both", "--metric", "val_mAP"
    )
    assert "On coco14, stage2 compared with both: -0.60 mAP" in other


def test_a_document_is_all_that_is_printed(sadcl, tmp_path):
    ablation(tmp_path, {"stage2": [50.0, 51.0], "both": [50.5, 51.7]})
    assert sadcl("results", "ablation", "--study", "ab", "--markdown").startswith(
        "### ab: Why?\n\n| arm | mAP |"
    )
    plot = tmp_path / "x.svg"
    assert sadcl("results", "ablation", "--study", "ab", "--latex", "--plot", plot).endswith(
        "\\end{table}\n"
    )
    assert plot.read_bytes().startswith(b"<?xml")
    with pytest.raises(UserError, match="cannot both be printed"):
        sadcl("results", "ablation", "--study", "ab", "--latex", "--markdown")
    with pytest.raises(UserError, match=r"must end in \.png"):
        sadcl("results", "ablation", "--study", "ab", "--plot", "x.jpeg")


def test_ablation_needs_no_pyplot_and_a_mistake_is_one_paragraph(command, tmp_path):
    ablation(tmp_path, {"stage2": [50.0], "both": [50.5]})
    heavy = {"torch", "ray", "optuna", "matplotlib.pyplot"}
    code = f"import sys; from sadcl.cli import app; app(standalone_mode=False); sys.exit(bool({heavy} & sys.modules.keys()))"
    words = ("results", "ablation", "--storage", tmp_path, "--study")
    done = command("python", "-c", code, *words, "ab", "--plot", "x.png")
    assert "one seed" in done.stdout
    assert "drawn in x.png" in done.stderr
    done = command("sadcl", *words, "an", check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == "error: There is no study 'an' here; did you mean 'ab'?"


@pytest.fixture
def two(tmp_path):
    """Studies s and t; t starts from a stage 1 that s trained."""
    write(tmp_path, "own1", phase="stage1")
    write(tmp_path, "shared1", phase="stage1")
    write(tmp_path, "mine", stage1_key="own1")
    write(tmp_path, "other", "t", stage1_key="shared1")
    storage.write(f"{tmp_path}/checkpoints/mine/stage1/last.pt", b"1234")
    storage.write(f"{tmp_path}/checkpoints/stray/last.pt", b"12345")
    record.claim(str(tmp_path), {"name": "s"})


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
    assert (
        "2 runs with all their rows, and the checkpoints of 2 (6 bytes), would be removed; 1 runs of stage 1"
        in out
    )
    assert out.endswith("Removed.\n")
    assert set(results.read(tmp_path, "trials")["key"].to_pylist()) == {"shared1", "other"}
    assert not (tmp_path / "studies" / "s.json").exists()
    assert {p.parent.name for p in tmp_path.rglob("best.pt")} == {"shared1", "other"}


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("s",), r"\(6 bytes\), would be removed; .* Give --yes to go on"),
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
    assert "1 runs with all their rows, and the checkpoints of 1 (1 bytes)" in done.stdout
    assert "Go on?" in done.stdout
    assert "Nothing was done." in done.stderr + "Nothing was done." * (code == 0)
    assert len(results.read(tmp_path, "trials")) == left
