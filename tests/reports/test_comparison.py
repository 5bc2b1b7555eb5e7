"""Studies side by side: what each has confirmed, and its most optimistic figure."""

from __future__ import annotations

import json
import sys
import types

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from sadcl import results, storage
from sadcl.cli.app import app
from sadcl.console import settings_text
from sadcl.errors import UserError
from sadcl.reports.comparison import compare_studies, comparison_answer, gpu_hours
from sadcl.results import RunWriter, store
from tests.reports.ablations import ablation

COST = {"data_image_size": 448, "scale": "full", "dataset": "coco14", "workers": 2, "gpus": 0.5}
CELL = {
    "dataset": "coco14",
    "metric": "mAP",
    "is_ours": True,
    "arm": None,
    "test_px": 448,
    "value": 85.6,
}


def write_search(root):
    """Write a confirmed search, of which one run has a single epoch that is far too good."""
    description = {"name": "s", "kind": "search", "scale": "full"}
    storage.write(f"{root}/studies/s.json", json.dumps(description).encode())
    for seed, (test_mAP, tau) in enumerate([(80.0, 0.1), (82.0, 0.1), (90.0, 0.2)]):
        row = {"study": "s", "phase": "confirm", "arm": "tuned", **COST}
        writer = RunWriter(root, f"c{seed}", {**row, "params": json.dumps({"loss.tau": tau})})
        for epoch in (1, 2):
            writer.epoch({"stage": 2, "epoch": epoch, "val_mAP": 50.0 + epoch})
        metrics = {"val_mAP": 70.0 - 10 * tau, "test_mAP": test_mAP, "seconds": 1800.0}
        writer.finish("complete", metrics=metrics)
    # The only trial is of tau 0.1, so the confirmation of tau 0.2 is of no best setting.
    row = {"study": "s", "phase": "search", "arm": "tuned", "params": '{"loss.tau": 0.1}'}
    lucky = RunWriter(root, "lucky", {**row, **COST})
    for epoch, value in enumerate([60.0, 99.0, 61.0, float("nan")], 1):
        lucky.epoch({"stage": 2, "epoch": epoch, "val_mAP": value})
    lucky.finish("complete", metrics={"val_mAP": 99.0, "seconds": 3600.0})


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A storage with a search and an ablation, and a paper with a row for each."""
    published = types.ModuleType("published")
    cells = [CELL | {"test_px": 576, "value": 1.0}, CELL, CELL | {"arm": "both", "value": 86.0}]
    published.table = lambda: pa.Table.from_pylist(cells)
    monkeypatch.setattr(results, "published", published, raising=False)
    monkeypatch.setitem(sys.modules, "sadcl.results.published", published)
    write_search(str(tmp_path))
    ablation(tmp_path, {"stage2": [50.0], "both": [51.0]})
    store.amend(str(tmp_path), "ab-both-coco14-s0", data_image_size=448)
    return str(tmp_path)


def test_studies_side_by_side(root):
    search, arms = compare_studies(root, ["s", "ab"])
    assert (search.setting, search.num_seeds, search.test_mAP) == ("tau=0.1", 2, 81.0)
    assert search.test_half_width == pytest.approx(12.706, abs=1e-3)
    assert (search.best_epoch, search.last_epoch) == (99.0, 61.0)
    assert (search.published, search.num_trials, search.hours, search.gpu_hours) == (
        85.6,
        4,
        2.5,
        2.5,
    )
    twins = {"bank.epsilon": 0.5, "prototypes.epsilon": 0.25, "loss.tau": 0.1}
    assert settings_text(twins) == "bank.epsilon=0.5 prototypes.epsilon=0.25 tau=0.1"
    assert (arms.setting, arms.test_mAP, arms.test_half_width, arms.published) == (
        "both",
        51.0,
        None,
        86.0,
    )


def test_a_short_name_is_of_one_field_in_all_studies(root):
    """The same search, but for its field: both have an lr, of stage 1 and of stage 2."""
    for study, field in (("one", "stage1.lr"), ("two", "stage2.lr")):
        row = {"study": study, "arm": "tuned", "params": json.dumps({field: 0.1}), **COST}
        for phase in ("search", "confirm"):
            writer = RunWriter(root, f"{study}-{phase}", {**row, "phase": phase})
            writer.finish("complete", metrics={"val_mAP": 50.0, "test_mAP": 50.0})
        description = {"name": study, "kind": "search", "scale": "full"}
        storage.write(f"{root}/studies/{study}.json", json.dumps(description).encode())
    settings = [one.setting for one in compare_studies(root)]
    assert settings == ["both", "stage1.lr=0.1", "tau=0.1", "stage2.lr=0.1"]
    assert [one.setting for one in compare_studies(root, ["two"])] == ["lr=0.1"]


def test_command(root):
    def sadcl(*arguments):
        done = CliRunner().invoke(app, ["results", "compare", *arguments, "--storage", root])
        if done.exception is not None:
            raise done.exception
        return done.stdout

    lines = sadcl().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["study", "ab", "s"]
    assert "best epoch (optimistic)\tlast epoch of that run\tpaper" in lines[0]
    with pytest.raises(UserError, match="no study 'a' here; did you mean 'ab'"):
        sadcl("a")


def test_a_row_from_before_there_were_gpu_hours_has_them_from_its_parts():
    assert gpu_hours({"gpu_hours": 3.0}) == 3.0
    assert gpu_hours({"seconds": 7200.0, "workers": 2, "gpus": 0.5}) == 2.0
    assert gpu_hours({"seconds": None, "workers": None, "gpus": None}) == 0.0


def test_arms_are_ranked_over_the_seeds_that_all_of_them_have():
    row = {"status": "complete", "phase": "arm", "params": "{}", "test_mAP": None}
    figures = [("a", 0, 50.0), ("a", 1, 90.0), ("b", 0, 60.0)]
    rows = [{**row, "arm": a, "seed": s, "val_mAP": v, "key": f"{a}{s}"} for a, s, v in figures]
    arm, runs = comparison_answer(rows, {})
    assert (arm, [run["key"] for run in runs]) == ("b", ["b0"])
