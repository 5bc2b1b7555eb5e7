"""A search as a value: an impossible one is refused, and old names of arguments still work."""

import dataclasses
import inspect
import warnings

import numpy as np
import pytest

from sadcl import Search, recipes
from sadcl.errors import UserError
from sadcl.search import ASHA, Choice, Float, Int, Until, When

SPACE = {"loss.tau": Float(0.05, 0.5, log=True), "bank.epsilon": Float(0.3, 0.7)}
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
        "space": SPACE,
    }
    return Search(**options | changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Float(3, 1), r"low < high must hold, but got low=3, high=1"),
        (lambda: Float(0, 1, log=True), r"low > 0, but got low=0"),
        (lambda: Float(0, float("inf")), r"low < high"),
        (lambda: Int(1, 2.5), r"whole bounds, but got low=1, high=2.5"),
        (lambda: Choice("a"), r"two different values"),
        (lambda: Choice(1, 1), r"two different values"),
        (lambda: Choice(True, 1), r"two different values"),
        (lambda: Choice(2, np.float32(2)), r"two different values"),
        (lambda: search(space={}), r"space is empty"),
        (
            lambda: search(space={"loss.tua": Float(0.1, 1)}),
            r"no configuration field 'loss.tua'. Did you mean 'loss.tau'",
        ),
        (
            lambda: search(space={"loss.tau": Float(-1, 1)}),
            r"loss.tau = -1 is not possible: .* greater than or equal to 0.005",
        ),
        (lambda: search(space={"bank.policy": Choice("slot", "lifo")}), r"bank.policy = 'lifo'"),
        (lambda: search(baselines={"x": {"model.haed": "pooled"}}), r"model.head"),
        (
            lambda: search(baselines={"warm": {"model.start": "x.pt"}}),
            r"model.start belongs to the base",
        ),
        (lambda: search(name="a/b"), r"must be a file name"),
        (lambda: search(name="ž" * 80), r"has 160 bytes; 150 are possible, because"),
        (lambda: search(confirm_seeds=(0, 1)), r"must not hold the search's own seed 0"),
        (lambda: search(confirm_seeds=Until(0.5)), r"Until is for the seeds of an Ablation"),
        (lambda: search(confirm_seeds=(1, 1)), r"confirm_seeds must hold each seed once, but got"),
        (lambda: search(confirm_top=9), r"confirm_top=9"),
        (
            lambda: search(demo=recipes.demo().override({"data.holdout": 0.0})),
            r"data.holdout must be above 0",
        ),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_made(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sampler": "tpee"},
            r"sampler must be one of tpe, random, cmaes, gp, nsga2, but got 'tpee'",
        ),
        ({"sampler": "cmaes"}, r"numbers only, but the space has a Choice or a When"),
        ({"sampler": "gp"}, r"cannot search conditional fields"),
        ({"objectives": ("seconds",)}, r"val_mAP first"),
        ({"objectives": ("val_mAP", "test_mAP")}, r"objectives must be val_mAP first, then any of"),
        ({"objectives": ("val_mAP", "seconds"), "pruner": ASHA()}, r"goes by one objective"),
        ({"max_epochs": 0}, r"max_epochs >= 1 must hold, but got 0"),
        ({"max_hours": -1.0}, r"max_hours > 0 must hold, but got -1"),
    ],
)
def test_methods_that_cannot_be_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        search(**{"space": BANK} | changes)


def test_old_names_of_arguments_work_with_a_warning():
    with pytest.warns(DeprecationWarning, match="of a Search is now called") as caught:
        value = search(trials=5, demo_trials=3, stopping=ASHA())
    assert [str(w.message) for w in caught] == [
        "'trials' of a Search is now called 'n_trials'.",
        "'demo_trials' of a Search is now called 'n_demo_trials'.",
        "'stopping' of a Search is now called 'pruner'.",
    ]
    assert {w.filename for w in caught} == {__file__}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert value == search(n_trials=5, n_demo_trials=3, pruner=ASHA())
        assert dataclasses.replace(value, n_trials=6).n_trials == 6
    for old, expected in (("trials", 5), ("demo_trials", 3), ("stopping", ASHA())):
        with pytest.warns(DeprecationWarning, match=f"'{old}' of a Search"):
            assert getattr(value, old) == expected
    with (
        pytest.warns(DeprecationWarning, match="'trials'"),
        pytest.raises(UserError, match="got 'n_trials' twice: 'trials' is its old name"),
    ):
        search(trials=5, n_trials=5)


def test_a_mistyped_argument_is_named_and_editors_see_the_right_ones():
    with pytest.raises(UserError, match="A Search has no 'n_trails'. Did you mean 'n_trials'"):
        search(n_trails=5)
    assert list(inspect.signature(Search).parameters)[:2] == ["name", "question"]


def test_a_copy_takes_old_names_too():
    value = search(n_trials=5)
    with pytest.warns(DeprecationWarning, match="'trials' of a Search is now called 'n_trials'"):
        assert dataclasses.replace(value, trials=7).n_trials == 7
    with (
        pytest.warns(DeprecationWarning, match="'trials'"),
        pytest.raises(UserError, match="got 'n_trials' twice"),
    ):
        search(n_trials=5, trials=7)
