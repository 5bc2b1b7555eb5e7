"""``--set`` on the command line of an experiment: in its plan, its identity and its runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sadcl import recipes, results
from tests.conftest import ROOT, TINY

HEAD = """
from sadcl.model import HeadOutput
from torch import nn


class Linear(nn.Module):
    def __init__(self, task, *, dropout: float = 0.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(task.channels[-1], len(task.labels))

    def forward(self, map_BCHW):
        return HeadOutput(self.classifier(self.dropout(map_BCHW.mean((2, 3)))))
"""
TRAIN = """
from sadcl import recipes
from sadcl.cli.experiment import main_train

main_train(recipes.coco14(), recipes.demo().override({changes!r}), name="one")
"""


def sets(*texts):
    return [word for text in texts for word in ("--set", text)]


@pytest.mark.parametrize("how", [("python",), ("sadcl", "run")])
def test_the_plan_shows_what_is_set(command, study_file, tmp_path, how):
    """The head's module is in the folder that the command is given in, the file elsewhere."""
    (tmp_path / "my_lab.py").write_text(HEAD)
    (tmp_path / "experiments").mkdir()
    file = study_file().rename(tmp_path / "experiments" / "tiny.py")
    words = sets(
        "stage2.epochs=0", "model.head=my_lab:Linear", "model.head_arguments.dropout=0.25",
        "stage1.augmentation.multiscale=[1,0.8]", "optim.batch_size=8",
    )  # fmt: skip
    text = command(*how, file, "--dry-run", *words).stdout
    assert "  --set stage2.epochs = 0, in place of 3\n" in text
    assert "  --set model.head = my_lab:Linear, in place of sadcl.model.heads:SARL; not in " in text
    assert "  --set model.head_arguments.dropout = 0.25; not in baseline, which sets it\n" in text
    assert "  --set stage1.augmentation.multiscale = [1.0, 0.8], in place of []\n" in text
    assert "one final run; 2 epochs each" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 120
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["loss.tau=0.1"], "--set loss.tau=0.1 is not possible: tiny searches loss.tau (0.05 to"),
        (["loss.tau=high"], "--set loss.tau=high is not possible: loss.tau must be a number from"),
        (["seed=7"], "must not hold the search's own seed 7"),
        (["model.head=my_lab:Linera", "stage2.epochs=0"], "my_lab has no 'Linera'; it has Linear"),
        (
            ["model.head=my_lab:Linear", "model.head_arguments.dropuot=0.1", "stage2.epochs=0"],
            "my_lab:Linear has no argument 'dropuot'; it takes dropout",
        ),
        (
            ["model.head=my_lab:Linear", "model.head_arguments.dropout=x", "stage2.epochs=0"],
            "model.head_arguments.dropout = 'x' is not possible for my_lab:Linear",
        ),
        (["model.weights=/no/file.pth"], "model.weights = '/no/file.pth' is not a file"),
    ],
)
def test_a_mistake_is_found_before_anything_is_reserved(
    command, study_file, tmp_path, texts, message
):
    (tmp_path / "my_lab.py").write_text(HEAD)
    done = command("python", study_file(), *sets(*texts), check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/studies/*"))


def test_a_flag_that_is_mistyped_is_near_to_set(command, study_file):
    done = command("python", study_file(), "--sett", "seed=1", check=False)
    assert "No such option: --sett (Possible options: --set, " in done.stderr


def test_other_values_make_another_study(command, study_file, tmp_path):
    """What a start sets is part of what the study is, as if its file had it."""
    from sadcl.search.trial import DataContext

    config = recipes.demo().override(TINY)
    file = study_file()
    record = tmp_path / "runs" / "studies" / "tiny-demo.json"
    record.parent.mkdir(parents=True)
    other = DataContext("tiny-demo", config.override({"optim.batch_size": 8}), "d").identity()
    record.write_text(json.dumps({"name": "tiny-demo", "scale": "demo", "base": other["base"]}))
    done = command("python", file, "--dry-run", check=False)
    assert done.returncode == 2
    assert "base: the configuration, which includes all of --set, is another one" in done.stderr
    done = command("python", file, "--dry-run", *sets("optim.batch_size=8"), check=False)
    assert "base:" not in done.stderr


def test_several_searches_all_change(command, study_file):
    file = study_file()
    several = "searches = [search, dataclasses.replace(search, name='other')]\nmain(searches)\n"
    file.write_text(
        "import dataclasses\n"
        + file.read_text().replace("main(Search(", "search = (Search(")
        + several
    )
    words = (file, "--dry-run", *sets("stage2.epochs=2"))
    text = command("python", *words).stdout
    assert text.count("  --set stage2.epochs = 2, in place of 3\n") == 2
    done = command("python", *words, "--set", "data.name=coco17", check=False)
    assert "each of the searches has its own" in done.stderr


def test_every_experiment_takes_it(command):
    for file in sorted((ROOT / "experiments").glob("*.py")):
        if file.name != "visualize.py":
            assert "--set FIELD=VALUE" in command("python", file, "--help").stdout, file.name


def test_a_single_run_is_trained_with_it(command, tmp_path):
    Path(tmp_path / "one.py").write_text(TRAIN.format(changes=TINY))
    (tmp_path / "my_lab.py").write_text(HEAD)
    words = sets("model.head=my_lab:Linear", "stage1.epochs=1", "stage2.epochs=0")
    text = command("python", "one.py", "--seed", "3", *words).stdout
    assert "--set stage1.epochs = 1\n" in text
    (row,) = results.read(str(tmp_path / "runs"), "trials").to_pylist()
    config = json.loads(row["config"])
    assert config["model"]["head"] == "my_lab:Linear"
    assert (config["stage1"]["epochs"], row["epochs_done"], config["seed"]) == (1, 1, 3)
    done = command("python", "one.py", "--set", "seed=3", check=False)
    assert "--set seed=3 is not possible: --seed is the flag for it." in done.stderr
