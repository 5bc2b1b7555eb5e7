"""Distributions and spaces: impossible ones are refused, and each comes back from JSON."""

import json
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from optuna.distributions import distribution_to_json, json_to_distribution

from sadcl import recipes
from sadcl.errors import UserError
from sadcl.ray_backend.optuna_study import _distribution as to_optuna
from sadcl.search import Choice, Float, Int, When, contrast_space, contrasts
from sadcl.search.space import check_space, plain, space_from_json, space_text, space_to_json

BANK = {
    "bank.size": When("bank.policy", "fifo", Int(4, 64, log=True)),  # before what it depends on
    "bank.policy": Choice("slot", "fifo", "none"),
    "loss.tau": Float(0.05, 0.5, log=True),
}

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)
TEXT = st.text("ab',é", max_size=3)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-9, 9),
    NUMBERS,
    TEXT,
    st.tuples(st.integers(0, 3), TEXT),
)


@st.composite
def floats(draw):
    low, high = sorted((draw(NUMBERS), draw(NUMBERS)))
    assume(low < high)
    log = low > 0 and draw(st.booleans())
    if log or draw(st.booleans()):
        return Float(low, high, log)
    low, step = draw(st.integers(-50, 50)) / 4, draw(st.integers(1, 20)) / 4
    return Float(low, low + step * draw(st.integers(1, 40)), step=step)


@st.composite
def integers(draw):
    low, steps = draw(st.integers(-99, 99)), draw(st.integers(1, 99))
    log = low > 0 and draw(st.booleans())
    step = 1 if log else draw(st.integers(1, 9))
    return Int(low, low + steps * step, log, step)


@st.composite
def choices(draw):
    return Choice(*draw(st.lists(VALUES, min_size=2, max_size=5, unique=True)))


PLAIN = st.one_of(floats(), integers(), choices())
WHEN = st.builds(
    When, st.just("bank.policy"), st.lists(VALUES, min_size=1, max_size=3).map(tuple), PLAIN
)
SPACES = st.dictionaries(st.sampled_from(["loss.tau", "bank.size", "stage2.lr"]), PLAIN | WHEN)


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
        check_space(space, recipes.demo())


def test_conditions_in_a_circle_are_refused():
    circle = {
        "bank.size": When("optim.batch_size", 4, Choice(4, 8)),
        "optim.batch_size": When("bank.size", 4, Choice(4, 8)),
    }
    with pytest.raises(UserError, match="that is no Choice"):
        check_space(circle, recipes.demo())
    with pytest.raises(UserError, match="needs a Float, an Int or a Choice"):
        When("a", 1, When("b", 2, Int(1, 2)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Float(0, 1, step=0), r"step > 0 must hold, but got step=0"),
        (lambda: Float(0, 1, step=-0.1), r"step > 0 must hold, but got step=-0.1"),
        (lambda: Float(0, 1, step=math.nan), r"step > 0 must hold"),
        (lambda: Float(0.1, 1, log=True, step=0.1), r"scale has no steps, .* step=0.1"),
        (lambda: Float(0, 1, step=0.3), r"step=0.3; the last step below high is at 0.9"),
        (lambda: Float(0, 1, step=2), r"step=2; the last step below high is at 0"),
        (lambda: Int(1, 9, step=0), r"step > 0 must hold, but got step=0"),
        (lambda: Int(1, 9, step=1.5), r"Int needs a whole step, but got step=1.5"),
        (lambda: Int(1, 9, log=True, step=2), r"scale has no steps"),
        (lambda: Int(1, 9, step=3), r"step=3; the last step below high is at 7"),
    ],
)
def test_steps_that_do_not_fit_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_what_a_distribution_contains():
    assert all(Float(0.1, 0.7, step=0.2).contains(v) for v in (0.1, 0.1 + 0.2, 0.5, 0.7))
    assert not any(Float(0.1, 0.7, step=0.2).contains(v) for v in (0.2, 0.9, "0.1", None))
    assert [v for v in range(12) if Int(2, 10, step=4).contains(v)] == [2, 6, 10]
    assert (Float(0, 1).count, Float(0.1, 0.7, step=0.2).count, Int(2, 10, step=4).count) == (
        None,
        4,
        3,
    )


def test_a_space_in_words():
    assert space_text({**BANK, "b": Float(0, 1, step=0.25), "a": Int(2, 10, step=4)}) == {
        "a": "2 to 10, integers, step 4",
        "b": "0 to 1, step 0.25",
        "bank.policy": "one of 'slot', 'fifo', 'none'",
        "bank.size": "4 to 64, integers, log scale, where bank.policy is fifo",
        "loss.tau": "0.05 to 0.5, log scale",
    }


@settings(deadline=None)
@given(SPACES)
def test_a_space_comes_back_from_json(space):
    stored = json.loads(json.dumps(space_to_json(space)))
    read = space_from_json(stored)
    assert read == space
    assert {k: repr(v) for k, v in read.items()} == {k: repr(v) for k, v in space.items()}
    assert space_to_json(read) == stored


@settings(deadline=None)
@given(PLAIN)
def test_the_stored_form_is_optunas(distribution):
    if isinstance(distribution, Choice):  # Optuna's values are plain; a tuple is text there
        distribution = Choice(*(repr(value) for value in distribution.values))
    stored = space_to_json({"x": distribution})["x"]
    assert json.loads(distribution_to_json(to_optuna(distribution))) == stored
    assert json_to_distribution(json.dumps(stored)) == to_optuna(distribution)


def test_lists_among_choices_become_tuples_and_unknown_forms_are_refused():
    stored = space_to_json({"x": Choice([1, [2]], 3)})
    assert space_from_json(json.loads(json.dumps(stored)))["x"] == Choice((1, (2,)), 3)
    for broken in ({"name": "Normal", "attributes": {}}, {"name": "FloatDistribution"}, "?"):
        with pytest.raises(UserError, match="stored distribution of x cannot be read"):
            space_from_json({"x": broken})


def test_the_space_of_the_contrasts_has_its_old_name_too():
    base = recipes.coco14()
    with pytest.warns(DeprecationWarning, match="is now contrast_space"):
        assert contrasts(base, epsilon=(0.1, 0.2)) == contrast_space(base, epsilon=(0.1, 0.2))
    assert plain(contrast_space(base)["loss.sample_weight"]).high == 8 * base.loss.sample_weight


@pytest.mark.parametrize(
    ("field", "distribution", "python"),
    [
        ("loss.tau", Choice(*np.linspace(0.1, 0.2, 2)), Choice(0.1, 0.2)),
        ("loss.tau", Choice(np.float32(0.5), np.float16(0.25)), Choice(0.5, 0.25)),
        ("loss.normalize", Choice(np.bool_(True), np.bool_(False)), Choice(True, False)),
        ("model.backbone", Choice(*np.array(["resnet10t", "resnet18"])), None),
        ("optim.batch_size", Int(np.int64(4), np.int32(8), step=np.int8(2)), Int(4, 8, step=2)),
        ("loss.tau", Float(np.float32(0.5), np.float64(0.75)), Float(0.5, 0.75)),
        ("stage2.augmentation.multiscale", Choice(np.array([1.0]), np.array([1.0, 0.5])), None),
    ],
)
def test_numbers_of_numpy_are_pythons(field, distribution, python):
    """They reach configurations, records and Optuna as if they had been typed."""
    space = {field: distribution}
    check_space(space, recipes.demo())
    assert space_from_json(json.loads(json.dumps(space_to_json(space)))) == space
    assert "np." not in space_text(space)[field]
    to_optuna(plain(distribution))
    if python is not None:
        assert distribution == python
        assert repr(distribution) == repr(python)
