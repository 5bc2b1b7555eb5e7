"""Conditional fields, settings that are tried first, and what one study hands to the next."""

import json

import pytest

from sadcl import Search, recipes
from sadcl.errors import UserError
from sadcl.search import ASHA, Choice, Float, Int, Median, Plan, When, contrasts
from sadcl.search.space import check, check_setting, draw, every, setting_of, transfer

BANK = {
    "bank.size": When("bank.policy", "fifo", Int(4, 64, log=True)),  # before what it depends on
    "bank.policy": Choice("slot", "fifo", "none"),
    "loss.tau": Float(0.05, 0.5, log=True),
}


def search(**changes):
    options = {
        "name": "s",
        "question": "?",
        "base": recipes.coco14(),
        "demo": recipes.demo(),
        "space": BANK,
    }
    return Search(**options | changes)


def test_a_conditional_field_is_drawn_only_where_its_condition_holds():
    asked = []

    def suggest(policy):
        def one(field, distribution):
            asked.append(field)
            return policy if field == "bank.policy" else distribution.probes[0]

        return one

    assert draw(BANK, suggest("fifo")) == {"bank.policy": "fifo", "loss.tau": 0.05, "bank.size": 4}
    assert asked[-1] == "bank.size"
    assert draw(BANK, suggest("slot")) == {"bank.policy": "slot", "loss.tau": 0.05}
    nested = {
        "a": Choice(1, 2),
        "b": When("a", (1, 2), Choice(3, 4)),
        "c": When("b", 4, Choice(5, 6)),
    }
    assert draw(nested, lambda field, d: d.values[-1]) == {"a": 2, "b": 4, "c": 6}
    assert draw(nested, lambda field, d: d.values[0]) == {"a": 1, "b": 3}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            {"bank.size": When("bank.policy", "fifo", Int(4, 8))},
            r"bank.size is searched where bank.policy is .*no Choice",
        ),
        (
            {**BANK, "bank.size": When("bank.policy", "lifo", Int(4, 8))},
            r"is 'lifo', which the space never takes",
        ),
        (
            {**BANK, "bank.size": When("loss.tau", 0.1, Int(4, 8))},
            r"that is no Choice of the space",
        ),
        ({"bank.size": When("bank.size", 4, Choice(4, 5))}, r"that is no Choice"),
        (
            {**BANK, "bank.size": When("bank.policy", "fifo", Int(0, 8))},
            r"bank.size = 0 is not possible",
        ),
        (
            {"loss.tau": (0.1, 0.5)},
            r"The space of loss.tau must be a Float, Int, Choice or When, but got \(0.1, 0.5\)",
        ),
    ],
)
def test_conditions_that_cannot_hold_are_refused(space, message):
    with pytest.raises(UserError, match=message):
        check(space, recipes.demo())


def test_conditions_in_a_circle_are_refused():
    circle = {
        "bank.size": When("optim.batch_size", 4, Choice(4, 8)),
        "optim.batch_size": When("bank.size", 4, Choice(4, 8)),
    }
    with pytest.raises(UserError, match="that is no Choice"):
        check(circle, recipes.demo())
    with pytest.raises(UserError, match="needs a Float, an Int or a Choice"):
        When("a", 1, When("b", 2, Int(1, 2)))


def test_a_setting_keeps_its_place_between_the_bounds():
    there, here = contrasts(recipes.coco14()), contrasts(recipes.voc2007())
    published = setting_of(recipes.coco14(), there)
    assert published["loss.sample_weight"] == 8.0
    moved = transfer(published, there, here)
    assert moved == pytest.approx(setting_of(recipes.voc2007(), here))
    assert moved["loss.sample_weight"] == pytest.approx(2.0)
    twice = transfer({"loss.sample_weight": 16.0, "loss.tau": 0.123}, there, here)
    assert twice == {"loss.sample_weight": pytest.approx(4.0), "loss.tau": 0.123}
    ints = transfer({"n": 10, "policy": "a", "gone": 1.0}, {"n": Int(0, 10), "policy": Choice("a", "b"), "gone": Float(0, 1)},
                    {"n": Int(0, 100), "policy": Choice("a", "c")})  # fmt: skip
    assert ints == {"n": 100, "policy": "a"}
    assert (
        transfer({"policy": "b"}, {"policy": Choice("a", "b")}, {"policy": Choice("a", "c")}) == {}
    )
    assert transfer({"x": 0.5}, {"x": Float(0, 1)}, {"x": Choice(1, 2)}) == {}


def test_settings_to_try_first():
    space = contrasts(recipes.demo(), epsilon=(0.3, 0.7))
    value = search(space=contrasts(recipes.coco14()), demo_space=space)
    plan = Plan(value, "demo", value.demo, 8, "d1", "d2")
    (recipe,) = plan.first_settings([])
    assert (
        recipe["prototypes.epsilon"] == recipe["bank.epsilon"] == 0.5
    )  # the recipe has one threshold for both
    assert plan.first_settings([{"phase": "search", "params": json.dumps(recipe)}]) == []
    alone = search(recipe_first=False, start_with=({"loss.tau": 0.1},))
    assert Plan(alone, "full", alone.base, 8, "d1", "d2").first_settings([]) == [{"loss.tau": 0.1}]
    outside = search(space={"loss.tau": Float(0.3, 0.5)})  # does not hold the recipe's 0.2
    assert Plan(outside, "full", outside.base, 8, "d1", "d2").first_settings([]) == []


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"loss.tau": 0.7}, r"has loss.tau = 0.7, but the space has 0.05 to 0.5"),
        ({"loss.tua": 0.1}, r"Did you mean 'loss.tau'"),
        ({"bank.epsilon": 0.5}, r"sets 'bank.epsilon', which is not in the space"),
        ({"bank.policy": "slot", "bank.size": 2}, r"bank.size = 2, but the space has 4 to 64"),
    ],
)
def test_a_setting_outside_the_space_is_refused(setting, message):
    with pytest.raises(UserError, match=message):
        check_setting(BANK, setting, recipes.demo())
    with pytest.raises(UserError, match=message):
        search(start_with=(setting,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sampler": "tpee"},
            r"sampler must be one of tpe, random, cmaes, gp, nsga2, but got 'tpee'",
        ),
        ({"sampler": "cmaes"}, r"numbers only, but the space has a Choice or a When"),
        ({"sampler": "gp"}, r"no conditional fields"),
        ({"objectives": ("seconds",)}, r"val_mAP first"),
        ({"objectives": ("val_mAP", "test_mAP")}, r"objectives must be val_mAP first, then any of"),
        ({"objectives": ("val_mAP", "seconds"), "stopping": ASHA()}, r"goes by one objective"),
        ({"max_epochs": 0}, r"max_epochs >= 1 must hold, but got 0"),
        ({"max_hours": -1.0}, r"max_hours > 0 must hold, but got -1"),
    ],
)
def test_methods_that_cannot_be_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        search(**changes)


def test_stopping_rules_check_themselves():
    with pytest.raises(UserError, match="reduction >= 2 must hold, but got 1, 1"):
        ASHA(1, 1)
    with pytest.raises(UserError, match="min_trials >= 1"):
        Median(1, 0)


def test_a_budget_of_epochs_or_hours_ends_the_search():
    def trial(status, epochs=4, seconds=1800.0):
        return {
            "key": f"{status}{epochs}",
            "phase": "search",
            "status": status,
            "epochs_done": epochs,
            "seconds": seconds,
        }

    def plan(**budget):
        value = search(**budget)
        return Plan(value, "full", value.base, 10, "d1", "d2")

    ended = [trial("complete"), trial("pruned"), trial("failed")]
    assert plan().left_to_try(ended) == 7  # a failed trial was tried too
    assert plan(max_epochs=12).left_to_try(ended) == 0
    assert plan(max_epochs=13).left_to_try(ended) == 7
    assert plan(max_hours=1.5).left_to_try(ended) == 0
    assert plan(max_hours=1.6).left_to_try(ended) == 7
    assert (
        plan(max_epochs=12).left_to_try([*ended, trial("running", None, None)]) == 1
    )  # what was begun ends


def test_what_another_study_has_found_is_tried_after_the_recipe_in_a_demo_space_too():
    value = search(space=contrasts(recipes.coco14()), demo_space={"loss.tau": Float(0.05, 0.5)})
    plan = Plan(value, "demo", value.demo, 8, "d1", "d2", warm=({"loss.tau": 0.07},))
    assert plan.first_settings([]) == [{"loss.tau": 0.2}, {"loss.tau": 0.07}]
    assert plan.first_settings(
        [{"phase": "search", "params": '{"bank.epsilon": 0.4, "loss.tau": 0.07}'}]
    ) == [{"loss.tau": 0.2}]


def test_a_space_of_whole_numbers_and_choices_is_counted_and_listed():
    space = {
        "bank.size": When("bank.policy", "fifo", Int(4, 6)),
        "bank.policy": Choice("slot", "fifo"),
        "seed": Choice(1, 2),
    }
    settings = list(every(space))
    assert len(settings) == len({json.dumps(s, sort_keys=True) for s in settings}) == (1 + 3) * 2
    assert {"bank.policy": "slot", "seed": 2} in settings
    assert {"bank.policy": "fifo", "bank.size": 6, "seed": 1} in settings
    assert list(every({**space, "loss.tau": Float(0.1, 0.2)})) == []


def test_a_condition_may_hold_away_from_the_base_only():
    """The final run's stage 1 is known early where no setting changes it, each field looked at where it is searched."""
    demo = recipes.demo().override({"bank.policy": "fifo", "bank.size": 8})
    space = {
        "bank.policy": Choice("slot", "fifo"),
        "loss.anchor_mask": When("bank.policy", "slot", Choice("activated", "released")),
    }
    value = search(base=demo, demo=demo, space=space)
    plan = Plan(value, "demo", demo, 8, "d1", "d2")
    assert plan.early_stage1({"epoch": 3, "weights": "raw"}) is not None
