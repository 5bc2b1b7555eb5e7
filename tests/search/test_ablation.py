"""An ablation as a value, and its plan: what is refused, shared, and left to run."""

from __future__ import annotations

import pytest

from sadcl import Ablation, recipes
from sadcl.errors import UserError
from sadcl.search import AblationPlan
from sadcl.search.plan_text import plan_lines
from sadcl.search.trial import DataContext

ARMS = {
    "baseline": {"model.arch": "pooled"},
    "sarl": {"stage2.epochs": 0},
    "stage2": {"loss.sample_weight": 0.0, "loss.prototype_weight": 0.0},
    "both": {},
}


DEMO = recipes.demo().override({"model.encoder_layers": 1})


def ablation(**changes):
    options = {
        "name": "a",
        "base": recipes.coco14(),
        "arms": ARMS,
        "baseline": "stage2",
        "demo": DEMO,
    }
    return Ablation(**options | changes)


def comparison(value=None, **changes):
    value = value or ablation(**changes)
    contexts = {
        name: DataContext("a", base, f"d-{name}") for name, base in value.bases("full").items()
    }
    return AblationPlan(value, "full", contexts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"arms": {**ARMS, "x": {"loss.tua": 1.0}}},
            r"no configuration field 'loss.tua'. Did you mean 'loss.tau'",
        ),
        (
            {"arms": {**ARMS, "x": {"loss.tau": 0.2}}},
            r"arms 'both' and 'x' are the same setting on coco: {'loss.tau': 0.2}",
        ),
        ({"arms": {**ARMS, "x": {"loss.tau": -1}}}, r"loss.tau = -1 is not possible"),
        (
            {"arms": {**ARMS, "x": {"seed": 3}}},
            r"The arm 'x' sets seed, which belongs to the seeds",
        ),
        (
            {"arms": {**ARMS, "x": {"data.name": "vg500"}}},
            r"sets data.name, which belongs to the base",
        ),
        (
            {"arms": {"one": {}}, "baseline": "one"},
            r"compares arms with its baseline 'one', but has one",
        ),
        ({"baseline": "stage3"}, r"its baseline 'stage3', but has baseline, sarl, stage2, both"),
        ({"seeds": ()}, r"seeds must hold at least one seed, and each once, but got \(\)"),
        ({"seeds": (1, 1)}, r"and each once, but got \(1, 1\)"),
        ({"seeds": (-1,)}, r"seed = -1"),
        ({"marks": {"sarll": ("SARL",)}}, r"marks names the arm 'sarll'"),
        ({"published": {"bth": {}}}, r"published names the arm 'bth'"),
        ({"name": "a/b"}, r"must be a file name"),
        ({"name": "a" * 240}, r"has 240 bytes; 150 are possible"),
        ({"sedes": (1,)}, r"An Ablation has no 'sedes'. Did you mean 'seeds'"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_made(changes, message):
    with pytest.raises(UserError, match=message):
        ablation(**changes)


def test_arms_share_the_stage_1_of_their_seed_and_one_of_them_is_it():
    runs = {(t.arm, t.config.seed): t for t in comparison().trials("coco")}
    assert len(runs) == 4 * 3
    shared = {
        seed: {runs[arm, seed].stage1.key for arm in ("sarl", "stage2", "both")}
        for seed in (0, 1, 2)
    }
    assert all(len(keys) == 1 for keys in shared.values())
    assert len(set.union(*shared.values())) == 3
    assert runs["sarl", 0].epochs == 0  # nothing of its own is left to train
    assert runs["sarl", 0].stage1.epochs == runs["stage2", 0].epochs == 80
    assert runs["baseline", 0].stage1 is None
    assert runs["baseline", 0].epochs == 160
    other = comparison(arms={**ARMS, "no-encoder": {"model.encoder_layers": 0, "stage2.epochs": 0}})
    lone = next(t for t in other.trials("coco") if t.arm == "no-encoder")
    assert lone.stage1.key not in set.union(*shared.values())


def test_a_key_is_the_name_of_a_folder_whatever_the_arm_is_called():
    plan = comparison(
        arms={"baseline": {"model.arch": "pooled"}, "../ +SSCL 🙂": {}},
        baseline="baseline",
        seeds=(0,),
    )
    assert plan.trials("coco")[1].key.startswith("a-..-+SSCL--s0-")


def test_what_is_left_is_what_has_not_ended():
    plan = comparison()
    runs, epochs = plan.remaining_work([])
    assert (runs, epochs) == (3 + 12, 3 * (80 + 160 + 0 + 80 + 80))
    keys = [t.key for t in plan.planned_trials()]
    assert len(set(keys)) == runs
    assert not plan.is_complete([])
    ended = [{"key": key, "status": "failed" if i else "complete"} for i, key in enumerate(keys)]
    assert plan.is_complete(ended)
    assert plan.remaining_work(ended) == (0, 0)
    assert not plan.is_complete([{**ended[0], "status": "running"}, *ended[1:]])


def test_several_data_sets_each_with_a_base_of_its_own():
    both = ablation(base={"coco": recipes.coco14(), "nuswide": recipes.nuswide()}, seeds=(5,))
    plan = comparison(both)
    keys = {name: {t.key for t in plan.trials(name)} for name in plan.contexts}
    assert not keys["coco"] & keys["nuswide"]
    assert plan.identity()["datasets"].keys() == {"coco", "nuswide"}
    text = " ".join(plan_lines(plan))
    assert "4 arms over seeds 5 on coco, nuswide: 10 runs, 2 of them a stage 1" in text
    assert "stage2 (the others are compared with it)" in text
    assert both.bases("demo").keys() == {"scenes"}
    assert ablation(demo=None).bases("demo") == {}
