"""Which fields of a search matter: Optuna's figures, resampled and compared with chance."""

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
from sadcl.reports import importance
from sadcl.reports.importance_text import importance_sentences
from sadcl.results import RunWriter
from sadcl.search.study_file import read_space
from tests.reports.searches import UNIT, UNIT_TEXTS, a_alone, noise, trials


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Enough for p < 0.05 of three fields."""
    monkeypatch.setattr(importance, "RESAMPLES", 10)
    monkeypatch.setattr(importance, "PERMUTATIONS", 120)


def test_the_field_with_an_effect_is_significant_and_no_other():
    rows, calls = trials(a_alone, 24), []
    result = importance.importances("s", rows, UNIT, progress=lambda *at: calls.append(at))
    first, *others = result.fields
    assert (first.field, first.verdict, first.trials) == ("a", "significant", 24)
    assert {one.verdict for one in others} == {"not significant"}
    assert first.p == pytest.approx(1 / 121)  # no permutation reaches it
    assert first.p_corrected == pytest.approx(3 / 121)
    assert sum(one.share for one in result.fields) == pytest.approx(1)
    assert all(0 <= one.low <= one.share <= one.high <= 1 for one in result.fields)
    assert first.low > max(one.share for one in others)
    assert calls == [(i, 130) for i in range(1, 131)]
    assert importance.importances("s", rows, UNIT) == result


def test_of_noise_nothing_is_significant():
    result = importance.importances("s", trials(noise, 24), UNIT)
    assert {one.verdict for one in result.fields} == {"not significant"}
    text = " ".join(importance_sentences(result))
    assert (
        "Over 24 complete trials, no field is significantly more important than chance explains"
        in text
    )
    assert "if none of the 3 fields had an effect, each would have about 0.33" in text
    assert "the best 6 trials" in text


@pytest.mark.parametrize(
    ("evaluator", "theirs"),
    [
        ("ped-anova", PedAnovaImportanceEvaluator(target_quantile=5.5 / 24)),
        ("fanova", FanovaImportanceEvaluator(n_trees=16, max_depth=3, seed=0)),
    ],
)
def test_shares_are_optunas(evaluator, theirs, monkeypatch):
    monkeypatch.setattr(importance, "PERMUTATIONS", 5)
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
    result = importance.importances("s", rows, UNIT, evaluator)
    assert {one.field: one.share for one in result.fields} == pytest.approx(
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
    result = importance.importances("s", rows, UNIT)
    assert (result.fields[0].field, result.fields[0].verdict) == ("a", "significant")
    assert (result.complete, result.pruned) == (len(complete), 60 - len(complete))
    assert result.fields[0].trials == 60
    alone = importance.importances("s", complete, UNIT)
    assert "significant" not in {one.verdict for one in alone.fields}
    monkeypatch.setattr(importance, "PERMUTATIONS", 5)
    left_out = importance.importances("s", rows, UNIT, "fanova")
    assert left_out.fields[0].trials == len(complete)
    assert "count as not among the best" in " ".join(importance_sentences(result))
    assert "are left out, and with them the evidence against" in " ".join(
        importance_sentences(left_out)
    )


def test_few_trials_rank_no_field():
    rows = trials(a_alone, 12)
    rows[0]["val_mAP"], rows[1]["val_mAP"] = None, math.nan
    rows[2]["status"] = "failed"
    result = importance.importances("s", rows, UNIT)
    assert (result.complete, result.failed, result.fields) == (9, 3, ())
    assert list(importance_sentences(result)) == [
        "There are too few complete trials to rank fields: 9; at least 10 are needed."
    ]
    rows[0]["val_mAP"] = 60.0
    result = importance.importances("s", rows, UNIT)
    assert len(result.fields) == 3
    assert "2 trials without a figure are left out" in " ".join(importance_sentences(result))


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
    domains = read_space({"space": space})
    result = importance.importances("s", rows, domains)
    assert {one.field: one.trials for one in result.fields} == {"c": 40, "size": some}
    assert result.fields[0].verdict == "significant"
    assert result.omitted == ("same",)
    monkeypatch.setattr(importance, "PERMUTATIONS", 5)
    plain = importance.importances("s", rows, domains, "fanova")
    assert [one.field for one in plain.fields] == ["c"]
    assert plain.omitted == ("same", "size")
    assert (
        "Left out, because their value is the same in all trials or not all trials set them: "
        "same, size." in list(importance_sentences(plain))
    )
    nothing = importance.importances(
        "s", [{**row, "params": '{"same": 3}'} for row in rows], domains
    )
    assert "do not differ in any field" in next(importance_sentences(nothing))


def test_a_search_from_the_tables(tmp_path):
    root = str(tmp_path)
    for row in trials(a_alone, 12):
        for phase, more in (("search", 0.0), ("confirm", 9.0)):  # which is of chosen settings only
            row_of_run = {
                "study": "s",
                "phase": phase,
                "params": row["params"],
                "arm": "tuned",
                "seed": 0,
            }
            RunWriter(root, phase + row["key"], row_of_run).finish(
                "complete", metrics={"val_mAP": row["val_mAP"] + more}
            )
    RunWriter(root, "other", {"study": "ab", "phase": "arm", "params": "{}"}).finish("complete")
    storage.write(f"{root}/studies/s.json", json.dumps({"name": "s", "space": UNIT_TEXTS}).encode())
    storage.write(f"{root}/studies/ab.json", b'{"kind": "ablation"}')
    result = importance.field_importances(root, "s")
    assert (result.study, result.complete, result.fields[0].field) == ("s", 12, "a")
    rows = sorted(trials(a_alone, 12), key=lambda row: row["key"])
    assert result == importance.importances("s", rows, UNIT)
    for arguments, message in (
        (("t",), "no study 't' here; there are ab, s"),
        (("ab",), "is an ablation, which searches nothing"),
        (("s", "anova"), "no evaluator 'anova'; did you mean 'fanova'"),
    ):
        with pytest.raises(UserError, match=message):
            importance.field_importances(root, *arguments)
