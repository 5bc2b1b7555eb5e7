"""A comparison before anything starts: its plan, what it refuses, and how often data are read."""

from __future__ import annotations

import json

import pytest

from sadcl import Comparison, UserError, recipes, run
from sadcl.launch import datasets
from sadcl.launch.comparison import best_settings
from sadcl.results import RunWriter
from sadcl.search import Float
from tests.launch.mistakes import DEMO, refused

RATE = {"stage1.lr": Float(1e-4, 1e-2, log=True)}
POOLED = {"model.head": "sadcl.model.heads:Pooled", "stage2.epochs": 0}


def comparison(**changes):
    options = {
        "name": "wrong",
        "base": recipes.coco14(),
        "demo": DEMO,
        "methods": {"SADCL": {}, "pooled": POOLED},
        "spaces": {"SADCL": RATE, "pooled": RATE},
        "baseline": "SADCL",
        "n_demo_trials": 2,
    }
    return Comparison(**options | changes)


def test_a_dry_run_shows_all_studies_and_reads_the_data_once(capsys, monkeypatch):
    reads = []
    read = datasets.read_data
    monkeypatch.setattr(datasets, "read_data", lambda *args: reads.append(args) or read(*args))
    assert run(comparison(), dry_run=True, n_trials=3) is None
    shown = capsys.readouterr().out
    for text in (
        "study wrong-SADCL-demo:",
        "study wrong-pooled-demo:",
        "one stage, 3 trials; 2 epochs each",
        "2 arms over seeds 1, 2, 3 on scenes",
    ):
        assert text in shown
    assert len(reads) == 1
    with pytest.raises(UserError, match="are for searches"):  # the ablation alone has no trials
        run(comparison().ablation("demo", {}), dry_run=True, n_trials=3)


def test_a_part_that_does_not_exist_is_refused_before_anything_starts(capsys):
    methods = {"SADCL": {}, "pooled": {**POOLED, "model.head": "sadcl.model.heads:Poled"}}
    error = refused(capsys, search=comparison(methods=methods))
    assert "sadcl.model.heads has no 'Poled'" in error.replace("\n", " ")


def test_the_settings_are_those_of_the_best_trials_by_the_held_out_images(tmp_path):
    def add(study, key, val, lr, status="complete", phase="search"):
        row = {"study": study, "phase": phase, "arm": "tuned", "seed": 0, "scale": "demo"}
        writer = RunWriter(str(tmp_path), key, {**row, "params": json.dumps({"stage1.lr": lr})})
        writer.finish(status, metrics={"val_mAP": val})

    add("wrong-SADCL-demo", "a", 60.0, 0.001)
    add("wrong-SADCL-demo", "b", 70.0, 0.002)
    add("wrong-SADCL-demo", "c", 80.0, 0.003, status="failed")
    add("wrong-SADCL", "d", 90.0, 0.004)
    settings = best_settings({"SADCL": "wrong-SADCL-demo"}, str(tmp_path))
    assert settings == {"SADCL": {"stage1.lr": 0.002}}
