"""Settings of a space: conditional fields, listing, checking, and transfer to another space."""

import json

import pytest

from sadcl import Search, recipes
from sadcl.errors import UserError
from sadcl.search import Choice, Float, Int, When, contrast_space
from sadcl.search.settings import all_settings, check_setting, draw, setting_of, transfer

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
            return policy if field == "bank.policy" else distribution.boundary_values[0]

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


def test_a_setting_keeps_its_place_between_the_bounds():
    there, here = contrast_space(recipes.coco14()), contrast_space(recipes.voc2007())
    published = setting_of(recipes.coco14(), there)
    assert published["loss.sample_weight"] == 8.0
    moved = transfer(published, there, here)
    assert moved == pytest.approx(setting_of(recipes.voc2007(), here))
    assert moved["loss.sample_weight"] == pytest.approx(2.0)
    twice = transfer({"loss.sample_weight": 16.0, "loss.tau": 0.123}, there, here)
    assert twice == {"loss.sample_weight": pytest.approx(4.0), "loss.tau": 0.123}
    source = {"n": Int(0, 10), "policy": Choice("a", "b"), "gone": Float(0, 1)}
    target = {"n": Int(0, 100), "policy": Choice("a", "c")}
    ints = transfer({"n": 10, "policy": "a", "gone": 1.0}, source, target)
    assert ints == {"n": 100, "policy": "a"}
    assert (
        transfer({"policy": "b"}, {"policy": Choice("a", "b")}, {"policy": Choice("a", "c")}) == {}
    )
    assert transfer({"x": 0.5}, {"x": Float(0, 1)}, {"x": Choice(1, 2)}) == {}


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


def test_a_space_of_whole_numbers_and_choices_is_counted_and_listed():
    space = {
        "bank.size": When("bank.policy", "fifo", Int(4, 6)),
        "bank.policy": Choice("slot", "fifo"),
        "seed": Choice(1, 2),
    }
    settings = list(all_settings(space))
    assert len(settings) == len({json.dumps(s, sort_keys=True) for s in settings}) == (1 + 3) * 2
    assert {"bank.policy": "slot", "seed": 2} in settings
    assert {"bank.policy": "fifo", "bank.size": 6, "seed": 1} in settings
    assert list(all_settings({**space, "loss.tau": Float(0.1, 0.2)})) == []


def test_a_space_with_steps_is_listed_and_hit_by_a_transfer():
    space = {"loss.tau": Float(0.1, 0.7, step=0.2), "bank.size": Int(4, 12, step=4)}
    values = [(s["loss.tau"], s["bank.size"]) for s in all_settings(space)]
    assert values == [
        (tau, size) for tau in (0.1, pytest.approx(0.3), 0.5, 0.7) for size in (4, 8, 12)
    ]
    assert max(tau for tau, _ in values) == 0.7
    for tau, size in values:
        check_setting(space, {"loss.tau": tau, "bank.size": size}, recipes.demo())
    for setting in ({"loss.tau": 0.2}, {"bank.size": 6}):
        with pytest.raises(UserError, match=", step "):
            check_setting(space, setting, recipes.demo())
    wide = {"loss.tau": Float(0, 1), "bank.size": Int(0, 100)}
    assert transfer({"loss.tau": 0.4, "bank.size": 40}, wide, space) == {
        "loss.tau": pytest.approx(0.3),
        "bank.size": 8,
    }
    assert setting_of(recipes.demo().override({"loss.tau": 0.2, "bank.size": 8}), space) == {
        "bank.size": 8
    }
