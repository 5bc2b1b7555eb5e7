"""In what a study differs from the one on disk: fields and values, never digests."""

from __future__ import annotations

import dataclasses
import json

import pytest

from sadcl import Search, recipes
from sadcl.errors import UserError
from sadcl.results import RunWriter
from sadcl.search import Float, Plan
from sadcl.study.record import StudyRecord
from sadcl.study.study_differences import Difference, another_study

BASE = recipes.coco14()
SEARCH = Search(
    name="s", question="?", base=BASE, demo=recipes.demo(), space={"loss.tau": Float(0.05, 0.5)}
)
PLAN = Plan(SEARCH, "full", BASE, 3, "d1", "d2")


@pytest.fixture
def root(tmp_path):
    """A storage with a study that has one trial, as another --trials left it."""
    StudyRecord(str(tmp_path), PLAN).claim()
    trial = PLAN.search_trial({"loss.tau": 0.11})
    row = {name: getattr(trial, name) for name in ("study", "phase", "arm")}
    row |= {"seed": 0, "params": json.dumps(dict(trial.params)), "data_name": "coco14"}
    writer = RunWriter(str(tmp_path), trial.key, {**row, "config": trial.config.json_text()})
    writer.finish("complete", metrics={"val_mAP": 60.0})
    return str(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base": BASE.override({"data.name": "coco17"}), "digest": "x"}, "data: coco before, "),
        ({"n_trials": 5}, None),
        ({"base": BASE.override({"optim.batch_size": 8})}, "optim.batch_size: 64 before, 8 now"),
        ({"digest": "x"}, "data: the file names, the labels or the split are others than before"),
    ],
)
def test_fields_and_values_are_named(root, changes, words):
    other = StudyRecord(root, dataclasses.replace(PLAN, **changes))
    if words is None:
        other.check_same()
        return
    with pytest.raises(UserError) as error:
        other.check_same()
    text = str(error.value)
    assert text.startswith(f"The study 's' in {root!r} is another one ({words}")
    assert text.endswith("another --name or --storage. To discard them: --fresh.")
    assert PLAN.base.digest() not in text


def test_corrected_labels_are_not_taken_for_other_settings(root):
    """The stage 1 of a confirmation is that of one of its arms, whose losses the base has not."""
    trial = PLAN.planned_trials([])[0]
    config = trial.config.override({"loss.sample_weight": 0.5})
    row = {name: getattr(trial, name) for name in ("study", "phase", "arm")} | {"seed": 0}
    writer = RunWriter(root, "other", {**row, "params": "{}", "config": config.json_text()})
    writer.finish("complete", metrics={"val_mAP": 60.0})
    with pytest.raises(UserError, match=r"is another one \(data: the file names, the labels or "):
        StudyRecord(root, dataclasses.replace(PLAN, digest="x")).check_same()


def test_an_edited_module_is_named_by_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "top_cells.py").write_text("")
    found = [Difference(("sources", "top_cells"), "a", "b")]
    text = another_study(PLAN, "runs", [], found)
    assert text.startswith("top_cells.py was edited after this study began. To keep the former")


def test_a_confirmation_with_another_configuration_cannot_be_left_out_later(tmp_path):
    real = {"model.dropout": 0.3}
    search = dataclasses.replace(SEARCH, confirm_with=real)
    StudyRecord(str(tmp_path), dataclasses.replace(PLAN, search=search)).claim()
    with pytest.raises(UserError, match=r"confirm_with of model.dropout: 0.3 before, not there"):
        StudyRecord(str(tmp_path), PLAN).check_same()
