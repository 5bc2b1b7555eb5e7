"""A comparison of methods as a value: what is refused, its searches, and its ablation."""

from __future__ import annotations

import dataclasses

import pytest

from sadcl import Comparison, recipes
from sadcl.errors import UserError
from sadcl.search import Float, Plan, Until
from sadcl.search.plan_text import plan_lines

POOLED = {"model.head": "sadcl.model.heads:Pooled", "stage2.epochs": 0}
METHODS = {"SADCL": {}, "pooled, BCE": POOLED}
SEED_1 = recipes.demo().override({"seed": 1})
RATE = {"stage1.lr": Float(1e-5, 1e-3, log=True)}


def comparison(**changes):
    options = {
        "name": "c",
        "base": recipes.coco14(),
        "demo": recipes.demo(),
        "methods": METHODS,
        "spaces": {"SADCL": {**RATE, "loss.tau": Float(0.05, 0.5)}, "pooled, BCE": RATE},
        "baseline": "SADCL",
    }
    return Comparison(**options | changes)


def plan(method, **changes):
    search = comparison(**changes).searches()[method]
    return Plan(search, "demo", search.demo, search.n_demo_trials, "d1", "d2")


def trial(key, value, **more):
    row = {"key": key, "phase": "search", "arm": "tuned", "status": "complete", "params": "{}"}
    return row | {"val_mAP": value, "stage1_key": None} | more


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spaces": {"SADCL": RATE}}, r"same methods, but only one of them has 'pooled, BCE'"),
        ({"demo_methods": {**METHODS, "x": {}}}, r"demo_methods must .* only one of them has 'x'"),
        ({"baseline": "SARL"}, r"its baseline 'SARL', but has SADCL, pooled, BCE"),
        ({"seeds": (0, 1)}, r"must not hold the seed 0, with which the settings are searched"),
        ({"seeds": Until(0.5), "demo": SEED_1}, r"must not hold the seed 1, with which"),
        ({"seeds": (1, 1)}, r"each once, but got \(1, 1\)"),
        ({"name": "a/b"}, r"must be a file name"),
        ({"sedes": (1,)}, r"A Comparison has no 'sedes'. Did you mean 'seeds'"),
        ({"n_demo_trials": 0}, r"n_demo_trials=0"),
        ({"methods": {**METHODS, "pooled BCE": {}}}, r"must name the same methods"),
        (
            {
                "methods": {**METHODS, "pooled BCE": {"loss.tau": 0.1}},
                "spaces": dict.fromkeys([*METHODS, "pooled BCE"], RATE),
            },
            r"must differ in more than signs",
        ),
        ({"methods": {"SADCL": {}, "pooled, BCE": {"modl.head": "x"}}}, r"no .* 'modl.head'"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_made(changes, message):
    with pytest.raises(UserError, match=message):
        comparison(**changes)


def test_each_method_has_a_search_with_as_many_trials_and_a_name_of_its_own():
    searches = comparison(n_trials=5, n_demo_trials=3).searches()
    assert {s.name for s in searches.values()} == {"c-SADCL", "c-pooled-BCE"}
    assert {(s.trials_at("full"), s.trials_at("demo")) for s in searches.values()} == {(5, 3)}
    assert searches["pooled, BCE"].base.stage2.epochs == 0
    assert searches["SADCL"].space_at("demo").keys() == {"stage1.lr", "loss.tau"}
    own = comparison(demo_methods={"SADCL": {}, "pooled, BCE": {**POOLED, "stage1.epochs": 7}})
    assert own.searches()["pooled, BCE"].demo.stage1.epochs == 7
    assert own.searches()["pooled, BCE"].base.stage1.epochs == 80


def test_a_search_ends_with_its_trials_and_one_of_one_stage_has_no_other_run():
    one = plan("pooled, BCE", n_demo_trials=2)
    assert one.stage1(one.base) is None
    assert one.planned_trials([]) == []
    assert one.remaining_work([]) == (2, 2 * 10)
    assert not one.is_complete([trial("a", 50.0)])
    rows = [trial("a", 50.0), trial("b", 60.0)]
    assert one.is_complete(rows)
    assert one.final_of(rows) is None
    assert one.remaining_work(rows) == (0, 0)
    assert list(plan_lines(one))[1].startswith("  one stage, 2 trials (n_demo_trials;")


def test_trials_of_two_stages_whose_rate_is_searched_train_both():
    two = plan("SADCL", n_demo_trials=2)
    assert [t.phase for t in two.planned_trials([])] == ["stage1"]
    assert two.remaining_work([]) == (1 + 2, 10 + 2 * (10 + 4))
    lone = two.search_trial({"stage1.lr": 1e-4})
    assert lone.stage1.config.stage1.lr == 1e-4


def test_the_arms_are_the_methods_with_their_settings_at_that_scale():
    own = {"SADCL": {}, "pooled, BCE": {**POOLED, "stage1.epochs": 7}}
    value = comparison(demo_methods=own)
    ablation = value.ablation("demo", {"pooled, BCE": {"stage1.lr": 1e-4}})
    assert ablation.arms["pooled, BCE"] == {**own["pooled, BCE"], "stage1.lr": 1e-4}
    assert ablation.arms["SADCL"] == {}
    assert comparison(seeds=Until(0.5)).ablation("demo", {}).until == Until(0.5)
    assert ablation.bases("full").keys() == {"coco"}
    assert ablation.bases("demo").keys() == {"scenes"}
    assert (ablation.name, ablation.seeds, ablation.costs) == ("c", (1, 2, 3), True)
    assert "stage1.epochs" not in value.ablation("full", {}).arms["pooled, BCE"]


def test_the_final_run_of_one_stage_takes_its_epoch_from_the_trial():
    search = dataclasses.replace(comparison().searches()["pooled, BCE"], confirm_seeds=(7,))
    one = Plan(search, "demo", search.demo, 1, "d1", "d2")
    final = one.final_of([trial("a", 50.0, epoch=3, weights="raw")])
    assert (final.config.stage1.epochs, final.config.stage2.epochs, final.stage1) == (3, 0, None)
    assert final.config.stage1.planned_epochs == 10
