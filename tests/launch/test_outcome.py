"""What a run and a study give back."""

from __future__ import annotations

import dataclasses

import pyarrow as pa
import pytest

from sadcl.launch.outcome import Run, StudyResult
from sadcl.results import RunWriter


@pytest.fixture
def root(tmp_path):
    """A storage with three runs of a search, and one of another study."""
    root = str(tmp_path)
    for key, study, phase, val_mAP in (
        ("a", "s", "search", 50.0),
        ("b", "s", "search", 60.0),
        ("c", "s", "confirm", 70.0),
        ("d", "t", "train", 80.0),
    ):
        writer = RunWriter(root, key, {"study": study, "phase": phase, "params": "{}"})
        for epoch in (1, 2):
            writer.epoch({"stage": 2, "epoch": epoch, "val_mAP": val_mAP})
        writer.finish("complete", metrics={"val_mAP": val_mAP, "checkpoint": f"{key}/best.pt"})
    return root


def test_a_run_is_typed_and_a_mapping_of_its_row(root):
    (run,) = StudyResult.read(["t"], root).trials
    assert (run.key, run.status, run.checkpoint) == ("d", "complete", "d/best.pt")
    assert run.best_checkpoint == run.checkpoint
    assert run.metrics == {"val_mAP": 80.0}
    assert run["val_mAP"] == 80.0
    assert run.get("error") is None
    assert "val_mAP" in run
    assert dict(run) == dict(run.items()) == run.row
    assert run == dict(run)
    assert Run({"key": "k", "status": "failed"}, root).checkpoint is None
    with pytest.raises(KeyError):
        run["none"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.row = {}


def test_a_run_has_its_epochs_as_a_table(root):
    (run,) = StudyResult.read(["t"], root).trials
    assert isinstance(run.table(), pa.Table)
    assert run.table()["epoch"].to_pylist() == [1, 2]
    assert set(run.table()["key"].to_pylist()) == {"d"}


def test_a_study_result_has_its_rows_as_a_table_and_acts_like_it(root):
    result = StudyResult.read(["s"], root)
    assert isinstance(result.table(), pa.Table)
    assert result.table()["key"].to_pylist() == ["a", "b", "c"]
    assert len(result) == result.num_rows == 3
    assert set(result["status"].to_pylist()) == {"complete"}
    assert [row["key"] for row in result.to_pylist()] == ["a", "b", "c"]
    assert result.filter(pa.compute.field("val_mAP") > 55).num_rows == 2
    assert pa.table(result).equals(result.table())
    assert [run.key for run in result.trials] == ["a", "b", "c"]
    with pytest.raises(AttributeError, match="to_polars"):
        _ = result.to_polars


def test_the_best_trial_is_that_of_one_search(root):
    assert StudyResult.read(["s"], root).best.key == "b"
    assert StudyResult.read(["t"], root).best is None
    both = StudyResult.read(["s", "t"], root)
    assert both.best is None
    assert both.name == "s, t"
    assert len(both) == 4
