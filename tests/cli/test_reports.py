"""The commands ``sadcl results ablation``, ``importance`` and ``labels``."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sadcl import storage
from sadcl.errors import UserError
from sadcl.reports import importance
from sadcl.results import RunWriter
from tests.reports.ablations import ablation as store_ablation
from tests.reports.ablations import add as add_run
from tests.reports.labels import ABLATION, NAMES, store_of
from tests.reports.searches import UNIT_TEXTS, a_alone, trials


@pytest.fixture
def results_lines(sadcl):
    """Runs a command of ``sadcl results`` in this process, and gives the lines that it prints."""
    return lambda *words: sadcl("results", *words).splitlines()


def test_ablation_prints_table_notes_sentences_and_what_is_missing(sadcl, tmp_path):
    store_ablation(
        tmp_path,
        {"stage2": [50.0, 51.0, 52.0], "both": [50.5, 51.7, 52.6]},
        marks={"both": ["PSCL"]},
    )
    add_run(tmp_path, "both", 3, status="running")
    out = sadcl("results", "ablation", "--study", "ab").splitlines()
    assert out[:3] == [
        "ab: Why?",
        "# coco14",
        "arm\tPSCL\tmAP ± 95 %\tdifference (95 %, Bonferroni)\tp (Holm)",
    ]
    assert out[4] == "both\t✓\t51.60 ± 2.62\t+0.60 (+0.35 to +0.85)\t0.009"
    comparison = "On coco14, both compared with stage2: +0.60 mAP (+0.35 to +0.85), "
    assert comparison + "corrected p = 0.009: a significant gain." in out
    assert out[-4:-2] == ["# runs without a figure", "dataset\tarm\tseed\treason\tkey\tcause"]
    assert out[-2:] == [
        "coco14\tstage2\t3\tmissing\t\t",
        "coco14\tboth\t3\tunfinished\tab-both-coco14-s3\t",
    ]
    other = sadcl(
        "results", "ablation", "--study", "ab", "--baseline", "both", "--metric", "val_mAP"
    )
    assert "On coco14, stage2 compared with both: -0.60 mAP" in other


def test_a_document_is_all_that_is_printed(sadcl, tmp_path):
    store_ablation(tmp_path, {"stage2": [50.0, 51.0], "both": [50.5, 51.7]})
    assert sadcl("results", "ablation", "ab", "--markdown").startswith(
        "### ab: Why?\n\n| arm | mAP ± 95 % |"
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
    store_ablation(tmp_path, {"stage2": [50.0], "both": [50.5]})
    heavy = {"torch", "ray", "optuna", "matplotlib.pyplot"}
    code = "import sys; from sadcl.cli.app import app; app(standalone_mode=False); "
    code += f"sys.exit(bool({heavy} & sys.modules.keys()))"
    words = ("results", "ablation", "--storage", tmp_path, "--study")
    done = command("python", "-c", code, *words, "ab", "--plot", "x.png")
    assert "1 pair: too few" in done.stdout
    assert "cannot answer anything yet" in done.stdout
    assert "drawn in x.png." in done.stderr
    done = command("sadcl", *words, "an", check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == "error: There is no study 'an' here; did you mean 'ab'?"


@pytest.fixture
def ablation(tmp_path):
    rng = np.random.default_rng(0)
    base_SL = rng.uniform(40, 60, (3, 8))
    arms = {"stage2": base_SL, "both": base_SL + rng.normal(1, 0.2, (3, 8)), "+SSCL": base_SL + 0.5}
    return store_of(tmp_path, arms, description=ABLATION)


@pytest.mark.usefixtures("ablation")
def test_labels_prints_labels_thirds_and_sentences_and_draws(results_lines, tmp_path):
    plot = tmp_path / "x.png"
    lines = results_lines("labels", "ab", "--arm", "both", "--plot", plot)
    assert lines[:2] == [
        "# coco14",
        "label\timages\tbaseline AP\tdifference (95 %, that label alone)\tp (Benjamini-Hochberg)",
    ]
    assert [line.split("\t")[0] for line in lines[2:10]] == NAMES
    assert lines[10] == "# coco14, thirds of the labels"
    assert any(
        line.startswith("On coco14, both compared with stage2: mean AP of each third of the labels")
        for line in lines
    )
    assert plot.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match=r"must end in \.png"):
        results_lines("labels", "--study", "ab", "--plot", "x.jpeg")
    with pytest.raises(UserError, match="give --arm"):
        results_lines("labels", "--study", "ab")


def test_a_plot_is_of_one_data_set(results_lines, tmp_path):
    for dataset in ("coco14", "voc2007"):
        for arm in ("stage2", "both"):
            store_of(
                tmp_path, {arm: np.full((2, 8), 50.0)}, dataset=dataset, params=json.dumps(dataset)
            )
    storage.write(f"{tmp_path}/studies/ab.json", ABLATION.encode())
    words = ("labels", "--study", "ab", "--arm", "both")
    with pytest.raises(UserError, match="give --dataset as one of coco14, voc2007"):
        results_lines(*words, "--plot", tmp_path / "x.svg")
    results_lines(*words, "--plot", tmp_path / "x.svg", "--dataset", "voc2007")
    assert b"voc2007" in (tmp_path / "x.svg").read_bytes()
    assert sum(line.startswith("# ") for line in results_lines(*words)) == 4


def test_importance_prints_fields_and_sentences(results_lines, tmp_path, monkeypatch):
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
    lines = results_lines("importance", "s")
    assert lines[:2] == [
        "# s: ped-anova",
        "field\tshare\t95 %, that field alone\ttrials\tp (Holm)\tverdict",
    ]
    assert lines[2].startswith("a\t0.")
    assert lines[2].endswith("\t24\t0.025\tsignificant")  # of 40 permutations a field
    assert lines[5].startswith("Over 24 complete trials, more important than chance explains: a")


def test_both_load_no_more_than_they_need(command, ablation):
    heavy = {"torch", "ray", "matplotlib.pyplot"}
    code = "import sys; from sadcl.cli.app import app; app(standalone_mode=False); "
    code += f"sys.exit(bool({heavy} & sys.modules.keys()))"
    words = ("--storage", ablation, "--study")
    command(
        "python", "-c", code, "results", "labels", *words, "ab", "--arm", "both", "--plot", "x.png"
    )
    done = command(
        "python",
        "-c",
        "from sadcl.cli.app import main; main()",
        "results",
        "importance",
        *words,
        "ab",
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip().startswith("error: The study 'ab' is an ablation")


def test_the_study_is_named_once(sadcl):
    with pytest.raises(UserError, match="Which study"):
        sadcl("results", "labels")
    with pytest.raises(UserError, match="got 'a' and --study 'b'"):
        sadcl("results", "ablation", "a", "--study", "b")
