"""The commands `sadcl results importance` and `sadcl results labels`."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from sadcl import storage
from sadcl.cli.app import app
from sadcl.errors import UserError
from sadcl.reports import importance
from sadcl.results import RunWriter
from tests.reports.labels import ABLATION, NAMES, store_of
from tests.reports.searches import UNIT_TEXTS, a_alone, trials


@pytest.fixture
def sadcl(tmp_path):
    """Runs a command in this process; a mistake is raised."""

    def run(*words):
        done = CliRunner().invoke(app, ["results", *map(str, words), "--storage", str(tmp_path)])
        if done.exception is not None:
            raise done.exception
        return done.stdout.splitlines()

    return run


@pytest.fixture
def ablation(tmp_path):
    rng = np.random.default_rng(0)
    base_SL = rng.uniform(40, 60, (3, 8))
    arms = {"stage2": base_SL, "both": base_SL + rng.normal(1, 0.2, (3, 8)), "+SSCL": base_SL + 0.5}
    return store_of(tmp_path, arms, description=ABLATION)


@pytest.mark.usefixtures("ablation")
def test_labels_prints_labels_thirds_and_sentences_and_draws(sadcl, tmp_path):
    plot = tmp_path / "x.png"
    lines = sadcl("labels", "--study", "ab", "--arm", "both", "--plot", plot)
    assert lines[:2] == [
        "# coco14",
        "label\timages\tbaseline AP\tdifference\tp (Benjamini-Hochberg)",
    ]
    assert [line.split("\t")[0] for line in lines[2:10]] == NAMES
    assert lines[10] == "# coco14, thirds of the labels"
    assert any(
        line.startswith("On coco14, both compared with stage2: mean AP of each third of the labels")
        for line in lines
    )
    assert plot.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match=r"must end in \.png"):
        sadcl("labels", "--study", "ab", "--plot", "x.jpeg")
    with pytest.raises(UserError, match="give --arm"):
        sadcl("labels", "--study", "ab")


def test_a_plot_is_of_one_data_set(sadcl, tmp_path):
    for dataset in ("coco14", "voc2007"):
        for arm in ("stage2", "both"):
            store_of(
                tmp_path, {arm: np.full((2, 8), 50.0)}, dataset=dataset, params=json.dumps(dataset)
            )
    storage.write(f"{tmp_path}/studies/ab.json", ABLATION.encode())
    words = ("labels", "--study", "ab", "--arm", "both")
    with pytest.raises(UserError, match="give --dataset as one of coco14, voc2007"):
        sadcl(*words, "--plot", tmp_path / "x.svg")
    sadcl(*words, "--plot", tmp_path / "x.svg", "--dataset", "voc2007")
    assert b"voc2007" in (tmp_path / "x.svg").read_bytes()
    assert sum(line.startswith("# ") for line in sadcl(*words)) == 4


def test_importance_prints_fields_and_sentences(sadcl, tmp_path, monkeypatch):
    monkeypatch.setattr(importance, "PERMUTATIONS", 60)
    for row in trials(a_alone, 24):
        about = {
            "study": "s",
            "phase": "search",
            "params": row["params"],
            "arm": "tuned",
            "seed": 0,
        }
        RunWriter(str(tmp_path), row["key"], about).finish(
            "complete", metrics={"val_mAP": row["val_mAP"]}
        )
    storage.write(
        f"{tmp_path}/studies/s.json", json.dumps({"name": "s", "space": UNIT_TEXTS}).encode()
    )
    lines = sadcl("importance", "--study", "s")
    assert lines[:2] == ["# s: ped-anova", "field\tshare\t95 % interval\ttrials\tp (Holm)\tverdict"]
    assert lines[2].startswith("a\t0.")
    assert lines[2].endswith("\t24\t0.025\tsignificant")  # of 40 permutations a field
    assert lines[5].startswith("Over 24 complete trials, more important than chance explains: a")


def test_both_load_no_more_than_they_need(command, ablation):
    heavy = {"torch", "ray", "matplotlib.pyplot"}
    code = f"import sys; from sadcl.cli import app; app(standalone_mode=False); sys.exit(bool({heavy} & sys.modules.keys()))"
    words = ("--storage", ablation, "--study")
    command(
        "python", "-c", code, "results", "labels", *words, "ab", "--arm", "both", "--plot", "x.png"
    )
    done = command(
        "python",
        "-c",
        "from sadcl.cli import main; main()",
        "results",
        "importance",
        *words,
        "ab",
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip().startswith("error: The study 'ab' is an ablation")
