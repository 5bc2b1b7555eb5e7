"""A start changes fields of a study's base, and what it cannot change it refuses."""

from __future__ import annotations

import dataclasses

import pytest

from sadcl import Ablation, Comparison, Search, recipes
from sadcl.errors import UserError
from sadcl.search import Choice, Float
from sadcl.search.changes import change_lines, with_changes

BASE, DEMO = recipes.coco14(), recipes.demo()
SEARCH = Search(
    name="s",
    question="?",
    base=BASE,
    demo=DEMO,
    space={"loss.tau": Float(0.05, 0.5), "stage2.lr": Float(1e-5, 1e-3)},
    demo_space={"loss.tau": Float(0.05, 0.5), "bank.policy": Choice("slot", "fifo")},
)
ABLATION = Ablation(
    name="a",
    base={"coco": BASE, "nuswide": recipes.nuswide()},
    demo=DEMO,
    arms={
        "none": {"loss.sample_weight": 0.0, "loss.prototype_weight": 0.0, "bank.size": 4},
        "pooled": {"model.head": "sadcl.model.heads:Pooled", "bank.size": 5},
        "both": {"bank.size": 6},
    },
    baseline="none",
)
CSRA = "sadcl.model.heads.csra:CSRA"


def test_both_scales_of_a_search_change_and_nothing_else():
    changes = {"stage2.epochs": 2, "model.head": CSRA, "model.head_arguments.lam": 0.3}
    changed = with_changes(SEARCH, changes)
    assert changed.base == BASE.override(changes) != BASE
    assert changed.demo == DEMO.override(changes) != DEMO
    assert dataclasses.replace(changed, base=BASE, demo=DEMO) == SEARCH
    assert with_changes(SEARCH, {}) is SEARCH


COMPARISON = Comparison(
    name="c",
    base=BASE,
    demo=DEMO,
    methods={"one": {"optim.kind": "adam"}, "two": {"bank.size": 4}},
    spaces={
        "one": {"stage1.lr": Float(1e-5, 1e-3)},
        "two": {"stage1.lr": Float(1e-5, 1e-3), "loss.tau": Float(0.05, 0.5)},
    },
    baseline="one",
)


def test_the_protocol_of_a_comparison_changes_and_its_methods_keep_what_they_set():
    changes = {"optim.kind": "sgd", "loss.tau": 0.3}
    changed = with_changes(COMPARISON, changes)
    assert (changed.base, changed.demo) == (BASE.override(changes), DEMO.override(changes))
    for scale in ("full", "demo"):
        kinds = {name: one.config(scale).optim.kind for name, one in changed.searches().items()}
        assert kinds == {"one": "adam", "two": "sgd"}
    assert list(change_lines(COMPARISON, changed, changes, "demo")) == [
        "  --set optim.kind = sgd, in place of adamw; not in one, which sets it",
        "  --set loss.tau = 0.3, in place of 0.2; not in two, which sets it",
    ]


def test_each_data_set_of_an_ablation_changes():
    changed = with_changes(ABLATION, {"stage1.epochs": 3})
    for scale in ("full", "demo"):
        before, now = ABLATION.bases(scale), changed.bases(scale)
        assert list(now) == list(before)
        for name, base in before.items():
            assert now[name] == base.override({"stage1.epochs": 3})
    assert changed.arms == ABLATION.arms
    alone = dataclasses.replace(ABLATION, base=BASE, demo=None)
    moved = with_changes(alone, {"data.name": "coco17"})
    assert list(moved.bases("full")) == ["coco17"]
    assert moved.bases("demo") == {}


@pytest.mark.parametrize(
    ("study", "changes", "message"),
    [
        (SEARCH, {"loss.tau": 0.1}, r"s searches loss.tau \(0.05 to 0.5\)"),
        (SEARCH, {"bank.policy": "fifo"}, r"s searches bank.policy \(one of 'slot', 'fifo'\)"),
        (SEARCH, {"seed": 1001}, r"confirm_seeds .* must not hold the search's own seed 1001"),
        (SEARCH, {"loss.tua": 1}, r"no configuration field 'loss.tua'"),
        (SEARCH, {"optim.batch_size": 0}, r"optim.batch_size = 0 .* \(at full scale\)"),
        (SEARCH, {"data.prepared": 128}, r"128 < \d+: prepare larger copies \(at full scale\)"),
        (
            SEARCH,
            {"stage2.class_loss.arguments.gamma": 2},
            r"arguments are those of a class loss of your own, but kind is 'bce' \(at full",
        ),
        (
            SEARCH,
            {"loss.contrast_arguments.x": 2},
            r"contrast_arguments are those of another contrast than Eq. 4",
        ),
        (COMPARISON, {"stage1.lr": 1e-4}, r"c: each of its methods sets or searches it"),
        (COMPARISON, {"seed": 1}, r"seeds \(1, 2, 3\) must not hold the seed 1"),
        (ABLATION, {"seed": 4}, r"its seeds are 0, 1, 2"),
        (ABLATION, {"data.name": "voc2007"}, r"each of its data sets has its own base"),
        (ABLATION, {"bank.size": 8}, r"each of its arms sets it"),
        (
            dataclasses.replace(
                ABLATION, arms={"none": {"loss.sample_weight": 0.0}, "both": {}}, baseline="none"
            ),
            {"loss.sample_weight": 0.0},
            r"'none' and 'both' are the same setting",
        ),
    ],
)
def test_what_cannot_change_is_refused_with_its_reason(study, changes, message):
    with pytest.raises(UserError, match=message):
        with_changes(study, changes)


def test_a_change_is_shown_with_the_former_value_and_the_arms_without_it():
    changes = {"loss.sample_weight": 3.0, "model.head": CSRA, "model.head_arguments.lam": 0.3}
    lines = list(change_lines(ABLATION, with_changes(ABLATION, changes), changes, "full"))
    assert lines == [
        "  --set loss.sample_weight = 3.0, in place of 8.0 or 8.1; not in none, which sets it",
        f"  --set model.head = {CSRA}, in place of sadcl.model.heads:SARL; not in pooled, which "
        "sets it",
        "  --set model.head_arguments.lam = 0.3; not in pooled, which sets it",
    ]
    lines = list(change_lines(SEARCH, with_changes(SEARCH, changes), changes, "demo"))
    assert lines[1].endswith("not in baseline, which sets it")
