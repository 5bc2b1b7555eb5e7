"""Which fields of a search matter: Optuna's figures, with what resampling and chance make of them."""

from __future__ import annotations

import json
import math

import numpy as np
import optuna
import pytest
from optuna.importance import (
    FanovaImportanceEvaluator,
    PedAnovaImportanceEvaluator,
    get_param_importances,
)

from sadcl import storage
from sadcl.errors import UserError
from sadcl.ray_backend.optuna_study import _distribution as searched
from sadcl.reports import importance
from sadcl.results import RunWriter
from sadcl.search.space import Choice, Float, Int, When, describe, plain

UNIT = {"a": "0 to 1", "b": "0 to 1", "c": "0 to 1"}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Enough for p < 0.05 of three fields."""
    monkeypatch.setattr(importance, "RESAMPLED", 10)
    monkeypatch.setattr(importance, "SHUFFLED", 120)


def trials(figure, count, *, fields="abc", seed=0, **more):
    """Complete trials with settings drawn evenly."""
    rng = np.random.default_rng(seed)
    settings = [{field: float(rng.random()) for field in fields} for _ in range(count)]
    return [
        {
            "status": "complete",
            "val_mAP": 60 + figure(s, rng),
            "params": json.dumps(s),
            "key": f"k{i}",
            **more,
        }
        for i, s in enumerate(settings)
    ]


def a_alone(setting, rng):
    return 5 * setting["a"] + rng.normal(0, 0.3)


def noise(setting, rng):
    return rng.normal(0, 1)


def test_the_field_that_does_it_comes_out_and_no_other():
    rows, calls = trials(a_alone, 24), []
    found = importance.importances("s", rows, UNIT, progress=lambda *at: calls.append(at))
    first, *others = found.fields
    assert (first.field, first.verdict, first.trials) == ("a", "matters", 24)
    assert {one.verdict for one in others} == {"not shown"}
    assert first.p == pytest.approx(1 / 121)  # no deal of the figures came up to it
    assert first.corrected == pytest.approx(3 / 121)
    assert sum(one.share for one in found.fields) == pytest.approx(1)
    assert all(0 <= one.low <= one.share <= one.high <= 1 for one in found.fields)
    assert first.low > max(one.share for one in others)
    assert calls == [(i, 130) for i in range(1, 131)]
    assert importance.importances("s", rows, UNIT) == found


def test_of_noise_nothing_is_shown():
    found = importance.importances("s", trials(noise, 24), UNIT)
    assert {one.verdict for one in found.fields} == {"not shown"}
    text = " ".join(importance.importance_sentences(found))
    assert "Of 24 complete trials, no field is shown to matter" in text
    assert "each of 3 fields that do nothing has about 0.33" in text
    assert "the best 6 trials" in text


@pytest.mark.parametrize(
    ("evaluator", "theirs"),
    [
        ("ped-anova", PedAnovaImportanceEvaluator(target_quantile=5.5 / 24)),
        ("fanova", FanovaImportanceEvaluator(n_trees=16, max_depth=3, seed=0)),
    ],
)
def test_shares_are_optunas(evaluator, theirs, monkeypatch):
    monkeypatch.setattr(importance, "SHUFFLED", 5)
    rows = trials(a_alone, 24, fields="ab")
    study = optuna.create_study(direction="maximize")
    unit = optuna.distributions.FloatDistribution(0, 1)
    for row in rows:
        params = json.loads(row["params"])
        study.add_trial(
            optuna.trial.create_trial(
                params=params, distributions=dict.fromkeys(params, unit), value=row["val_mAP"]
            )
        )
    found = importance.importances("s", rows, {"a": "0 to 1", "b": "0 to 1"}, evaluator)
    assert {one.field: one.share for one in found.fields} == pytest.approx(
        get_param_importances(study, evaluator=theirs)
    )


def test_trials_that_were_stopped_early_count_as_not_among_the_best(monkeypatch):
    """All that have high values of a were stopped, so that the complete ones alone do not tell."""
    rows = trials(noise, 60)
    for row in rows:
        if json.loads(row["params"])["a"] > 0.35:
            row.update(status="pruned", val_mAP=99.0)  # an early figure, of another epoch
    complete = [row for row in rows if row["status"] == "complete"]
    assert 10 <= len(complete) < 30
    found = importance.importances("s", rows, UNIT)
    assert (found.fields[0].field, found.fields[0].verdict) == ("a", "matters")
    assert (found.complete, found.pruned) == (len(complete), 60 - len(complete))
    assert found.fields[0].trials == 60
    alone = importance.importances("s", complete, UNIT)
    assert "matters" not in {one.verdict for one in alone.fields}
    monkeypatch.setattr(importance, "SHUFFLED", 5)
    left_out = importance.importances("s", rows, UNIT, "fanova")
    assert left_out.fields[0].trials == len(complete)
    assert "count as not among the best" in " ".join(importance.importance_sentences(found))
    assert "are left out, and with them what was bad" in " ".join(
        importance.importance_sentences(left_out)
    )


def test_few_trials_show_nothing():
    rows = trials(a_alone, 12)
    rows[0]["val_mAP"], rows[1]["val_mAP"] = None, math.nan
    rows[2]["status"] = "failed"
    found = importance.importances("s", rows, UNIT)
    assert (found.complete, found.failed, found.fields) == (9, 3, ())
    assert list(importance.importance_sentences(found)) == [
        "Too few trials are complete to show which field matters: 9; at least 10 are needed."
    ]
    rows[0]["val_mAP"] = 60.0
    found = importance.importances("s", rows, UNIT)
    assert len(found.fields) == 3
    assert "2 trials without a figure are left out" in " ".join(
        importance.importance_sentences(found)
    )


def test_a_space_is_read_as_the_study_describes_it():
    space = {
        "f": Float(0.05, 0.5),
        "log": Float(1 / 3, 64 / 3, log=True),  # whose text is rounded
        "i": Int(1, 9),
        "ilog": Int(1, 512, log=True),
        "when": When("c", "fifo", Int(4, 64)),
        "c": Choice("fifo", "slot"),
        "numbers": Choice(8, 16, None),
    }
    values = {
        "f": [0.1, 0.2],
        "log": [1 / 3, 2.0],
        "i": [2, 3],
        "ilog": [2, 3],
        "when": [4, 5],
        "c": ["slot", "fifo"],
        "numbers": [8, None],
    }
    told = describe(space)
    for field, distribution in space.items():
        ours, theirs = (
            importance._distribution(values[field], told[field]),
            searched(plain(distribution)),
        )
        assert type(ours) is type(theirs), field
        if not isinstance(ours, optuna.distributions.CategoricalDistribution):
            assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-5), (
                field
            )
            assert ours.log == theirs.log, field
            assert ours.low <= min(values[field])
    assert importance._distribution(["slot", "fifo"], told["c"]).choices == ('"fifo"', '"slot"')
    assert importance._distribution([8, None], told["numbers"]).choices == ("8", "null")
    assert importance._distribution([True, False], "").choices == ("false", "true")
    unknown = importance._distribution([0.5, 2.0, 1.0], "")
    assert (unknown.low, unknown.high, unknown.log) == (0.5, 2.0, False)
    assert importance._distribution([0.5, 0.5], "0 to 1") is None


def test_conditional_choices_and_constants(monkeypatch):
    def figure(setting, rng):
        setting["c"] = "fifo" if setting.pop("x") > 0.7 else [1, 2]
        if setting["c"] == "fifo":
            setting["size"] = int(4 + 60 * rng.random())
        setting["same"] = 3
        return 6 * (setting["c"] == "fifo") + rng.normal(0, 0.3)

    rng = np.random.default_rng(0)
    settings = [{"x": float(rng.random())} for _ in range(40)]
    rows = [
        {"status": "complete", "val_mAP": figure(s, rng), "params": json.dumps(s), "key": "k"}
        for s in settings
    ]
    some = sum("size" in s for s in settings)
    assert 5 < some < 20
    space = {
        "c": "one of 'fifo', (1, 2)",
        "size": "4 to 64, whole numbers, where c is fifo",
        "same": "1 to 5, whole numbers",
    }
    found = importance.importances("s", rows, space)
    assert {one.field: one.trials for one in found.fields} == {"c": 40, "size": some}
    assert found.fields[0].verdict == "matters"
    assert found.constant == ("same",)
    monkeypatch.setattr(importance, "SHUFFLED", 5)
    plain = importance.importances("s", rows, space, "fanova")
    assert [one.field for one in plain.fields] == ["c"]
    assert plain.constant == ("same", "size")
    assert (
        "Left out, because the trials do not differ in them or not all have them: same, size."
        in list(importance.importance_sentences(plain))
    )
    nothing = importance.importances("s", [{**row, "params": '{"same": 3}'} for row in rows], space)
    assert "differ in no field" in next(importance.importance_sentences(nothing))


def test_a_search_from_the_tables(tmp_path):
    root = str(tmp_path)
    for row in trials(a_alone, 12):
        for phase, more in (("search", 0.0), ("confirm", 9.0)):  # which is of chosen settings only
            about = {
                "study": "s",
                "phase": phase,
                "params": row["params"],
                "arm": "tuned",
                "seed": 0,
            }
            RunWriter(root, phase + row["key"], about).finish(
                "complete", metrics={"val_mAP": row["val_mAP"] + more}
            )
    RunWriter(root, "other", {"study": "ab", "phase": "arm", "params": "{}"}).finish("complete")
    storage.write(f"{root}/studies/s.json", json.dumps({"name": "s", "space": UNIT}).encode())
    storage.write(f"{root}/studies/ab.json", b'{"kind": "ablation"}')
    found = importance.field_importances(root, "s")
    assert (found.study, found.complete, found.fields[0].field) == ("s", 12, "a")
    rows = sorted(trials(a_alone, 12), key=lambda row: row["key"])
    assert found == importance.importances("s", rows, UNIT)
    for words, message in (
        (("t",), "no study 't' here; there are ab, s"),
        (("ab",), "is an ablation, which searches nothing"),
        (("s", "anova"), "no evaluator 'anova'; did you mean 'fanova'"),
    ):
        with pytest.raises(UserError, match=message):
            importance.field_importances(root, *words)
