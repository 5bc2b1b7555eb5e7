"""The space and the stopping rule in a study's file, in JSON and in the sentences of before."""

import json

import pytest
from hypothesis import given, settings

from sadcl.search import ASHA, Choice, Float, Int, Median, When
from sadcl.search.pruning_rules import rule_to_json
from sadcl.search.space import space_text, space_to_json
from sadcl.search.study_file import (
    described_space,
    described_stopping,
    old_sentence,
    read_space,
    with_current_space,
)
from tests.search.test_space import SPACES

OLD = {
    "a": ("0.05 to 0.5, logarithmic", Float(0.05, 0.5, log=True)),
    "b": ("0.333333 to 21.3333", Float(1 / 3, 64 / 3)),
    "c": ("4 to 64, whole numbers", Int(4, 64)),
    "d": ("1 to 512, whole numbers, logarithmic", Int(1, 512, log=True)),
    "e": ("one of 'slot', (1, 2), None, 8", Choice("slot", (1, 2), None, 8)),
    "f": (
        "4 to 64, whole numbers, where bank.policy is fifo or slot",
        When("bank.policy", ("fifo", "slot"), Int(4, 64)),
    ),
    "g": ("-2 to 1e-05", Float(-2, 1e-5)),
}
"""Sentences that the version before stored, with their distributions."""


def test_the_old_sentences_are_those_of_the_version_before():
    assert {f: old_sentence(d) for f, (_, d) in OLD.items()} == {f: t for f, (t, _) in OLD.items()}


def test_a_space_is_read_in_either_form():
    space = {field: distribution for field, (_, distribution) in OLD.items()}
    old = {"space": {field: text for field, (text, _) in OLD.items()}}
    rounded = space | {"b": Float(0.333333, 21.3333)}
    assert read_space(old) == rounded
    assert described_space(old) == space_text(rounded)
    new = {"space": space_to_json(space)}
    assert read_space(new) == space
    assert described_space(new) == space_text(space)
    assert read_space({"space": old["space"] | space_to_json({"c": Int(1, 2)})})["c"] == Int(1, 2)
    assert read_space({}) == described_space({}) == {}


@pytest.mark.parametrize(
    "text",
    ["", "1 to 1", "a to b", "one of", "one of <object>", "one of 1", "5 to 4, where x is y"],
)
def test_a_sentence_that_cannot_be_read_is_shown_as_it_is(text):
    description = {"space": {"x": text, "y": "0 to 1"}}
    assert read_space(description) == {"y": Float(0, 1)}
    assert described_space(description) == {"x": text, "y": "0 to 1"}


@settings(deadline=None)
@given(SPACES)
def test_a_sentence_of_the_same_space_is_replaced_and_of_another_stays(space):
    current = json.loads(json.dumps(space_to_json(space)))
    old = {field: old_sentence(distribution) for field, distribution in space.items()}
    upgraded = with_current_space({"name": "s", "space": old}, space, current)
    assert upgraded == {"name": "s", "space": current}
    assert with_current_space(upgraded, space, current) == upgraded
    other = {"space": {field: f"{text}!" for field, text in old.items()}}
    assert with_current_space(other, space, current) == other


def test_a_step_makes_another_distribution_than_any_old_sentence():
    space = {"x": Float(0, 1, step=0.5), "y": Int(0, 8, step=2)}
    old = {"space": {"x": "0 to 1", "y": "0 to 8, whole numbers"}}
    assert with_current_space(old, space, space_to_json(space)) == old


def test_a_stopping_rule_is_described_in_either_form():
    for rule in (ASHA(2, 3), Median(1, 5)):
        assert described_stopping({"stopping": rule_to_json(rule)}) == str(rule)
    assert described_stopping({"stopping": "ASHA from epoch 2, reduction 3"}) == str(ASHA(2, 3))
    assert described_stopping({"stopping": None}) is described_stopping({}) is None
