"""The plan of a study in sentences."""

from sadcl import Ablation, recipes
from sadcl.search import ASHA, AblationPlan, Choice, Plan
from sadcl.search.plan_text import plan_lines
from sadcl.search.trial import DataContext
from tests.search.test_search import search


def test_the_lines_of_a_search():
    value = search(pruner=ASHA(2, 3), max_hours=3, confirm_top=2, confirm_seeds=(7, 8))
    assert list(plan_lines(Plan(value, "full", value.base, 40, "d1", "d2"))) == [
        "  bank.epsilon: 0.3 to 0.7",
        "  loss.tau: 0.05 to 0.5, log scale",
        "  one shared stage 1, baseline and control, 40 trials, the best 2 again over seeds 7, 8, "
        "one final run; at most 80 + 80 epochs each",
        "  sampler tpe, stopped early by ASHA from epoch 2, reduction 3, "
        "at most 3 hours of training",
    ]
    whole = value.base.override({"stage1.patience": None, "stage2.patience": None})
    assert "run; 80 + 80 epochs each" in "".join(
        plan_lines(Plan(value, "full", whole, 40, "d1", "d2"))
    )
    few = search(space={"bank.policy": Choice("slot", "fifo")})
    lines = list(plan_lines(Plan(few, "full", few.base, 40, "d1", "d2")))
    assert "2 trials, which is all that the space holds, the best again" in lines[1]
    assert lines[2] == "  sampler tpe, no early stopping"


def test_a_space_that_changes_stage_1_has_one_for_each_setting():
    value = search(space={"model.dropout": Choice(0.1, 0.2)})
    lines = list(plan_lines(Plan(value, "full", value.base, 40, "d1", "d2")))
    assert "a stage 1 for each trial that changes it, baseline and stage2, 2 trials" in lines[1]


def test_the_lines_of_an_ablation():
    arms = {"x": {}, "y": {"loss.tau": 0.3, "bank.size": 8}}
    value = Ablation("a", recipes.coco14(), arms, "x", seeds=(0, 1))
    plan = AblationPlan(value, "full", {"coco": DataContext("a", recipes.coco14(), "d")})
    assert list(plan_lines(plan)) == [
        "  x (the others are compared with it): the unchanged base",
        "  y: tau = 0.3, size = 8",
        "  2 arms over seeds 0, 1 on coco: 6 runs, 2 of them a stage 1",
    ]


def test_what_all_arms_share_is_said_once():
    arms = {"x": {"loss.tau": 0.3}, "y": {"loss.tau": 0.3, "bank.epsilon": 0.4}}
    value = Ablation("a", recipes.coco14(), arms, "x", seeds=(0, 1))
    plan = AblationPlan(value, "full", {"coco": DataContext("a", recipes.coco14(), "d")})
    assert list(plan_lines(plan))[:3] == [
        "  all arms: tau = 0.3",
        "  x (the others are compared with it): nothing else",
        "  y: epsilon = 0.4",
    ]


def test_the_plan_at_demo_scale_says_which_number_of_trials_holds():
    value = search(n_trials=40, n_demo_trials=4)
    plan = Plan(value, "demo", value.demo, 4, "d1", "d2")
    text = "".join(plan_lines(plan))
    assert "4 trials (n_demo_trials; n_trials = 40 is for full scale)" in text
