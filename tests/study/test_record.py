"""A study on disk: its identity, its rows, its lock and its removal."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import pytest

from sadcl import Search, recipes, results, storage
from sadcl.errors import UserError
from sadcl.results import RunWriter
from sadcl.search import Float, Plan
from sadcl.study import record
from sadcl.study.record import StoredStudy, StudyRecord

SEARCH = Search(
    name="s",
    question="?",
    base=recipes.coco14(),
    demo=recipes.demo(),
    space={"loss.tau": Float(0.05, 0.5, log=True)},
)
PLAN = Plan(SEARCH, "full", SEARCH.base, 8, "d1", "d2")


def claim(root, plan=PLAN):
    StudyRecord(str(root), plan).claim()


def of(identity, description=None):
    """A plan of which only the identity matters."""
    return SimpleNamespace(
        study=identity["name"],
        identity=lambda: identity,
        description=lambda: description or {},
        planned_trials=lambda rows: [],
    )


def write(root, key, study_name="s", phase="search", status="complete", stage1_key=None, **row):
    writer = RunWriter(
        str(root),
        key,
        {"study": study_name, "phase": phase, "params": "{}", "stage1_key": stage1_key, **row},
    )
    kind = "stage1" if phase == "stage1" else "checkpoints"
    storage.write(f"{root}/{kind}/{key}/best.pt", b"x")
    writer.finish(status, metrics={"val_mAP": 50.0})


def test_bounds_of_seeds_that_are_changed_are_kept_for_the_report(tmp_path):
    def start(until):
        claim(tmp_path, of({"name": "s"}, {"until": until} if until else {}))
        return json.loads((tmp_path / "studies" / "s.json").read_text()).get("former_until")

    first = {"half_width": 0.5, "at_least": 5, "at_most": 20}
    assert start(None) is None  # fixed seeds before
    assert start(first) is None
    assert start({**first, "half_width": 0.3}) is None  # which no boundary depends on
    longer = {**first, "at_most": 30}
    assert start(longer) == [{**first, "half_width": 0.3}]
    assert start(longer) == [{**first, "half_width": 0.3}]


def test_the_same_study_goes_on_and_another_of_its_name_is_refused_with_what_differs(tmp_path):
    claim(tmp_path)
    claim(tmp_path, dataclasses.replace(PLAN, n_trials=9))  # which is no part of the identity
    assert json.loads((tmp_path / "studies" / "s.json").read_text())["trials"] == 9
    with pytest.raises(
        UserError, match=r"another one \(data: the file names, .* than before\).*--fresh"
    ):
        claim(tmp_path, dataclasses.replace(PLAN, digest="d2"))
    wider = {**SEARCH.space, "bank.epsilon": Float(0, 0.9), "loss.tau": Float(0.05, 0.5)}
    other = dataclasses.replace(PLAN, search=dataclasses.replace(SEARCH, space=wider))
    with pytest.raises(
        UserError,
        match=r"\(space of bank.epsilon: not there before, 0 to 0.9 now; "
        r"space of loss.tau: 0.05 to 0.5, log scale before, 0.05 to 0.5 now\)",
    ):
        claim(tmp_path, other)
    start = dataclasses.replace(PLAN, start="a")
    with pytest.raises(UserError, match=r"\(model.start: the file is another"):
        StudyRecord(str(tmp_path), start).check_same()


def test_a_claim_of_the_same_writes_nothing(tmp_path, monkeypatch):
    claim(tmp_path)
    monkeypatch.setattr(storage, "write", None)
    claim(tmp_path)


def test_arms_and_data_sets_may_be_added_and_those_that_are_there_stay_what_they_are(tmp_path):
    def identity(**parts):
        return {
            "name": "s",
            "scale": "full",
            "arms": {"a": {"loss.tau": 0.1}},
            "datasets": {"coco14": {"base": "b"}},
            **parts,
        }

    claim(tmp_path, of(identity(), {"order": ["a"]}))
    grown = identity(arms={"a": {"loss.tau": 0.1}, "b": {}}, datasets={"vg500": {"base": "c"}})
    claim(tmp_path, of(grown, {"order": ["a", "b"]}))
    about = json.loads((tmp_path / "studies" / "s.json").read_text())
    assert about["order"] == ["a", "b"]
    assert about["datasets"].keys() == {"coco14", "vg500"}
    claim(tmp_path, of(identity(), {"order": ["a"]}))  # those that are left out stay
    assert json.loads((tmp_path / "studies" / "s.json").read_text())["arms"].keys() == {"a", "b"}
    with pytest.raises(UserError, match=r"\(arms of a of loss.tau: 0.1 before, 0.2 now\)"):
        claim(tmp_path, of(identity(arms={"a": {"loss.tau": 0.2}})))
    with pytest.raises(UserError, match=r"\(arms of a of lr: not there before, None now\)"):
        claim(tmp_path, of(identity(arms={"a": {"loss.tau": 0.1, "lr": None}})))
    with pytest.raises(UserError, match=r"\(base of coco14: the configuration, which"):
        claim(tmp_path, of(identity(datasets={"coco14": {"base": "x"}})))
    claim(tmp_path / "other", of({"name": "s", "scale": "full", "space": {}}))
    with pytest.raises(
        UserError, match=r"arms: not there before, \{'a': \{'loss.tau': 0.1\}\} now"
    ):
        claim(tmp_path / "other", of(identity()))


def test_removal_leaves_what_other_studies_start_from(tmp_path):
    write(tmp_path, "own1", phase="stage1")
    write(tmp_path, "shared1", phase="stage1")
    write(tmp_path, "mine", stage1_key="own1")
    write(tmp_path, "other", "t", stage1_key="shared1")
    claim(tmp_path)
    study = StudyRecord(str(tmp_path), PLAN)
    assert {row["key"] for row in study.study_rows} == {"own1", "shared1", "mine"}
    assert study.freeable_bytes() == [1, 1]
    study.remove()
    assert set(results.read(tmp_path, "trials")["key"].to_pylist()) == {"shared1", "other"}
    assert [row["key"] for row in study.rows] == ["shared1"]  # read again
    there = {p.parent.name for p in tmp_path.rglob("best.pt")}
    assert there == {"shared1", "other"}
    claim(tmp_path, dataclasses.replace(PLAN, digest="another"))
    StudyRecord(str(tmp_path / "empty"), PLAN).remove()  # nothing there is nothing to do


def test_rows_are_read_once_until_they_are_refreshed(tmp_path, monkeypatch):
    study, reads, read = StudyRecord(str(tmp_path), PLAN), [], record.store.read
    monkeypatch.setattr(
        record.store,
        "read",
        lambda *words, **options: reads.append(words) or read(*words, **options),
    )
    assert study.rows == []
    write(tmp_path, "one")
    assert study.rows == []
    assert not reads
    assert [row["key"] for row in study.refresh()] == ["one"]
    assert [row["key"] for row in study.rows] == ["one"]
    assert len(reads) == 1


def test_rows_have_each_stage_1_that_they_start_from_and_no_other_study(tmp_path):
    start = PLAN.stage1(PLAN.base).key
    write(tmp_path, start, "t", phase="stage1")  # which the plan starts from
    write(tmp_path, "theirs", "t", phase="stage1")  # which a row starts from
    write(tmp_path, "unused", "t", phase="stage1")
    write(tmp_path, "foreign", "t")
    write(tmp_path, "nobody", None)
    write(tmp_path, "mine", stage1_key="theirs")
    study = StudyRecord(str(tmp_path), PLAN)
    assert {row["key"] for row in study.rows} == {start, "theirs", "mine"}
    assert [row["key"] for row in study.study_rows] == ["mine"]


def test_rows_with_what_their_last_epoch_admitted(tmp_path):
    write(tmp_path, "none")
    writer = RunWriter(str(tmp_path), "some", {"study": "s", "phase": "search", "params": "{}"})
    for stage, epoch, admitted in ((2, 2, 7.0), (2, 1, 3.0), (1, 5, 1.0)):
        writer.epoch({"stage": stage, "epoch": epoch, "admitted": admitted})
    rows = StudyRecord(str(tmp_path), PLAN).rows_with_admitted()
    assert {row["key"]: row["admitted"] for row in rows} == {"none": None, "some": 7.0}


def test_one_driver_at_a_time(tmp_path):
    study = StudyRecord(str(tmp_path), PLAN)
    with study.locked():
        with pytest.raises(UserError, match="Another process is at work on the study 's'"):
            with record.locked(str(tmp_path), "s"):
                pass
        with record.locked(str(tmp_path), "t"):
            pass
    with study.locked():
        pass


def test_a_study_is_removed_by_name_only_while_nobody_works_on_its_runs(tmp_path):
    write(tmp_path, "run", phase="train")
    study = StoredStudy(str(tmp_path), "s")
    with record.locked(str(tmp_path), "run"), pytest.raises(UserError, match="the study 'run'"):
        with study.locked_with_runs():
            pass
    assert study.split_rows()[0][0]["status"] == "complete"
    write(tmp_path, "late")
    with study.locked_with_runs():
        assert {row["key"] for row in study.split_rows()[0]} == {"run", "late"}
        study.remove()
    assert record.study_names(str(tmp_path)) == []


def test_studies_have_rows_or_a_file(tmp_path):
    assert record.study_names(str(tmp_path)) == []
    claim(tmp_path)
    write(tmp_path, "other", "t")
    write(tmp_path, "nobody", None)
    assert record.study_names(str(tmp_path)) == ["s", "t"]


def test_bytes_of_checkpoints(tmp_path):
    write(tmp_path, "a")
    write(tmp_path, "b", phase="stage1")
    storage.write(f"{tmp_path}/checkpoints/a/stage1/last.pt", b"1234")
    sizes = record.checkpoint_bytes(str(tmp_path))
    assert (sizes["a"], sizes["b"], sizes["."], sizes["c"]) == (5, 1, 6, 0)


def test_removal_is_complete_although_another_study_has_a_damaged_file(tmp_path):
    write(tmp_path, "mine")
    claim(tmp_path)
    write(tmp_path, "other", "t")
    (tmp_path / "tables" / "_runs" / "epochs").mkdir(exist_ok=True)
    (tmp_path / "tables" / "_runs" / "epochs" / "other.arrow").write_bytes(b"ARROW1")
    StoredStudy(str(tmp_path), "s").remove()
    assert record.study_names(str(tmp_path)) == ["t"]
    assert not (tmp_path / "studies" / "s.json").exists()
