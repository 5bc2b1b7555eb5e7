"""The commands `sadcl results ablation` and `sadcl studies`."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from sadcl import recipes, results, storage
from sadcl.cli.app import app
from sadcl.config import Config
from sadcl.errors import UserError
from sadcl.results import store
from sadcl.study import record
from tests.reports.ablations import ablation, add
from tests.results.runs import run
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
        "On coco14, both against stage2: +0.60 mAP (-0.67 to +1.87), p = 0.105 corrected: not shown."
        in out
    )
    assert out[-4:-2] == ["# runs without a figure", "dataset\tarm\tseed\twhat\tkey\tcause"]
    assert out[-2:] == [
        "coco14\tstage2\t2\tmissing\t\t",
        "coco14\tboth\t2\tunfinished\tab-both-coco14-s2\t",
    ]
    other = sadcl(
        "results", "ablation", "--study", "ab", "--baseline", "both", "--metric", "val_mAP"
    )
    assert "On coco14, stage2 against both: -0.60 mAP" in other


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


@pytest.mark.parametrize(
    "config",
    [
        recipes.coco14().override(
            {"data.name": "coco14", "loss.tau": 0.123456789, "loss.prototype_tau": None, "seed": 3}
        ),
        recipes.voc2012("paper").override(
            {"model.frozen": (), "model.start": 'it\'s/"x".pt', "optim.ema_warmup": True}
        ),
        recipes.demo("nuswide").override({"stage2.augmentation.multiscale": (1.0, 0.5)}),
        recipes.vg500(),
    ],
)
def test_a_recipe_pasted_is_the_same_configuration(tmp_path, sadcl, config):
    run(tmp_path, config=config)
    pasted = {}
    text = sadcl("results", "recipe", "k")
    exec(text, pasted)
    assert pasted["config"].digest() == config.digest()
    assert text.count("\n") <= 12
    assert "# The run was made" not in text


def test_a_recipe_of_an_older_configuration_says_so(tmp_path, sadcl):
    tree = recipes.demo().model_dump(mode="json")
    del tree["loss"]["anchor_mask"]
    run(tmp_path, config=recipes.demo())
    store.amend(str(tmp_path), "k", config=json.dumps(tree), config_digest="000000000000")
    text = sadcl("results", "recipe", "k")
    assert "another version of the package: its configuration had the digest 000000000000" in text
    assert Config.parse(tree).digest() in text


@pytest.mark.parametrize(
    "what",
    [
        "top",
        "studies",
        "compare",
        "verify",
        "compact",
        "export trials",
        "sql 1",
        "show k",
        "recipe k",
    ],
)
def test_a_folder_that_is_no_store(sadcl, what):
    words = ["sql", "select 1 from trials"] if what == "sql 1" else what.split()
    with pytest.raises(UserError, match="holds no results: it has no folder 'tables'"):
        sadcl("results", *words)


@pytest.mark.parametrize(
    "words",
    [
        ("top",),
        ("compare",),
        ("sql", "select count(*) from trials"),
        ("export", "trials", "--latex"),
        ("recipe", "k"),
        ("verify",),
        ("compact",),
    ],
)
def test_commands_import_nothing_heavy(tmp_path, words):
    """So they start in half a second: no torch, Ray, Optuna, pandas, matplotlib, scipy.stats."""
    run(tmp_path, config=recipes.demo())
    heavy = {
        "torch",
        "ray",
        "optuna",
        "pandas",
        "matplotlib",
        "scipy.stats",
        "sklearn",
        "pyarrow.dataset",
    }
    code = (
        "import atexit, sys; from sadcl.cli.app import main\n"
        f"atexit.register(lambda: print({heavy} & sys.modules.keys(), file=sys.stderr))\n"
        "main()"
    )
    storage.write(f"{tmp_path}/studies/s.json", b'{"name": "s"}')
    words = [sys.executable, "-c", code, "results", *words, "--storage", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "set()\n")
    assert done.stdout
