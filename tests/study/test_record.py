"""A study on disk: who it is, who is at work on it, what it comes to."""

from __future__ import annotations

import io
import json
import math

import pytest
from rich.console import Console
from scipy import stats

from sadcl import Search, recipes, results, storage
from sadcl.errors import UserError
from sadcl.reports import search_summary
from sadcl.reports.statistics import interval
from sadcl.results import RunWriter
from sadcl.search import Float
from sadcl.study import record

SEARCH = Search(
    name="s",
    question="?",
    base=recipes.coco14(),
    demo=recipes.demo(),
    space={"loss.tau": Float(0.05, 0.5)},
    published=85.6,
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


def test_the_same_study_goes_on_and_another_of_its_name_is_refused_with_what_differs(tmp_path):
    identity = {"name": "s", "base": "aaa", "data": "d1", "space": {"loss.tau": "Float(0.1, 1)"}}
    record.claim(str(tmp_path), identity)
    record.claim(str(tmp_path), dict(identity))
    with pytest.raises(UserError, match=r"another one \(data: d1 before, d2 now\).*--fresh"):
        record.claim(str(tmp_path), {**identity, "data": "d2"})
    with pytest.raises(UserError, match=r"\(space of bank.epsilon: not there before, 0 to 1 now\)"):
        record.claim(
            str(tmp_path), {**identity, "space": {**identity["space"], "bank.epsilon": "0 to 1"}}
        )


def test_arms_and_data_sets_may_be_added_and_those_that_are_there_stay_what_they_are(tmp_path):
    def identity(**parts):
        return {
            "name": "s",
            "scale": "full",
            "arms": {"a": {"loss.tau": 0.1}},
            "datasets": {"coco14": {"base": "b"}},
            **parts,
        }

    record.claim(str(tmp_path), identity(), {"order": ["a"]})
    grown = identity(arms={"a": {"loss.tau": 0.1}, "b": {}}, datasets={"vg500": {"base": "c"}})
    record.claim(str(tmp_path), grown, {"order": ["a", "b"]})
    about = json.loads((tmp_path / "studies" / "s.json").read_text())
    assert about["order"] == ["a", "b"]
    assert about["datasets"].keys() == {"coco14", "vg500"}
    record.claim(str(tmp_path), identity(), {"order": ["a"]})  # without them they are still known
    with pytest.raises(
        UserError,
        match=r"arms of a: arms of a of loss.tau: 0.1 before, 0.2 now|loss.tau: 0.1 before, 0.2 now",
    ):
        record.claim(str(tmp_path), identity(arms={"a": {"loss.tau": 0.2}}))
    with pytest.raises(UserError, match=r"base: b before, x now"):
        record.claim(str(tmp_path), identity(datasets={"coco14": {"base": "x"}}))


def test_removal_leaves_what_other_studies_start_from(tmp_path):
    write(tmp_path, "own1", phase="stage1")
    write(tmp_path, "shared1", phase="stage1")
    write(tmp_path, "mine", stage1_key="own1")
    write(tmp_path, "other", "t", stage1_key="shared1")
    record.claim(str(tmp_path), {"name": "s"})
    record.remove_study(str(tmp_path), "s")
    assert set(results.read(tmp_path, "trials")["key"].to_pylist()) == {"shared1", "other"}
    there = {p.parent.name for p in tmp_path.rglob("best.pt")}
    assert there == {"shared1", "other"}
    record.claim(str(tmp_path), {"name": "s", "base": "another"})
    record.remove_study(str(tmp_path / "empty"), "s")  # nothing there is nothing to do


def test_one_driver_at_a_time(tmp_path):
    with record.locked(str(tmp_path), "s"):
        with pytest.raises(UserError, match="Another process is at work on the study 's'"):
            with record.locked(str(tmp_path), "s"):
                pass
        with record.locked(str(tmp_path), "t"):
            pass
    with record.locked(str(tmp_path), "s"):
        pass


def test_interval_is_students():
    values = [70.0, 71.5, 69.0, 72.0]
    mean, half = interval(values)
    low, high = stats.t.interval(0.95, 3, loc=mean, scale=stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert math.isnan(interval([1.0])[1])


def row(key, phase, arm, val, *, seed=0, params=None, test=None, status="complete", **more):
    base = {
        "stage1_key": "st",
        "scale": "full",
        "checkpoint": f"{key}.pt",
        "cause": None,
        "admitted": None,
        "study": "s",
    }
    text = json.dumps(params or {})
    return {**base, "key": key, "phase": phase, "arm": arm, "val_mAP": val, "seed": seed, "params": text, "test_mAP": test,
            "status": status, **more}  # fmt: skip


A, B = {"loss.tau": 0.1}, {"loss.tau": 0.2}


def said(rows):
    table, sentences = search_summary.summary(rows, SEARCH)
    out = io.StringIO()
    Console(file=out, width=140).print(table)
    return out.getvalue(), " ".join(sentences)


def test_summary_says_what_it_shows_and_no_more():
    rows = [
        row("st", "stage1", "stage1", 60.0),
        row("base", "baseline", "baseline", 55.0),
        row("control", "baseline", "stage2", 62.0),
        row("a", "search", "tuned", 64.0, params=A, admitted=30.0),
        row("b", "search", "tuned", 63.0, params=B, status="failed", cause="NaN"),
        row("c7", "confirm", "stage2", 61.0, seed=7),
        row("c8", "confirm", "stage2", 60.0, seed=8),
        row("a7", "confirm", "tuned", 62.1, seed=7, params=A),
        row("a8", "confirm", "tuned", 61.2, seed=8, params=A),
        row(
            "b8", "confirm", "tuned", 99.0, seed=8, params=B
        ),  # of a setting that was the best once
        row("f", "final", "tuned", None, params=A, test=65.5),
    ]
    table, text = said(rows)
    gain, half = interval([62.1 - 61.0, 61.2 - 60.0])
    assert f"{gain:+.2f} +- {half:.2f} (95 %) held-out mAP over 2 paired seeds: a gain." in text
    assert "Test mAP of the final run: 65.50 (one run, seed 0); the paper reports 85.6." in text
    assert "Best setting: loss.tau = 0.1." in text
    assert "1 runs failed; the first: b: NaN" in text
    assert "99.00" not in table
    assert "61.65 +-" in table
    assert "optimistic" in table


def test_no_gain_is_shown_where_the_interval_holds_zero():
    confirm = [row(f"c{s}", "confirm", "stage2", 60.0, seed=s) for s in (7, 8)]
    tuned = [
        row(f"a{s}", "confirm", "tuned", v, seed=s, params=A) for s, v in ((7, 65.0), (8, 59.0))
    ]
    _, text = said([row("a", "search", "tuned", 64.0, params=A), *confirm, *tuned])
    assert ": no gain is shown." in text
    losing = [row(f"a{s}", "confirm", "tuned", 58.0 + s / 100, seed=s, params=A) for s in (7, 8)]
    _, text = said([row("a", "search", "tuned", 64.0, params=A), *confirm, *losing])
    assert ": a loss." in text


def test_summary_of_a_study_without_a_result():
    table, text = said([row("b", "search", "tuned", None, params=B, status="failed", cause="NaN")])
    assert "failed" in text
    assert "held-out mAP" in table


def test_the_demo_is_not_set_beside_the_paper():
    _, text = said(
        [
            row("a", "search", "tuned", 64.0, params=A, scale="demo"),
            row("f", "final", "tuned", None, params=A, test=65.5, scale="demo"),
        ]
    )
    assert "the paper reports" not in text
