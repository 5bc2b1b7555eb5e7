"""PruningRule rules check themselves, and are stored as JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sadcl.errors import UserError
from sadcl.search import ASHA, Median
from sadcl.search.pruning_rules import rule_from_json, rule_to_json

RULES = st.one_of(
    st.none(),
    st.builds(ASHA, st.integers(1, 100), st.integers(2, 10)),
    st.builds(Median, st.integers(1, 100), st.integers(1, 100)),
)


def test_stopping_rules_check_themselves():
    with pytest.raises(UserError, match="reduction >= 2 must hold, but got 1, 1"):
        ASHA(1, 1)
    with pytest.raises(UserError, match="min_trials >= 1"):
        Median(1, 0)


@given(RULES)
def test_a_rule_comes_back_from_json(rule):
    assert rule_from_json(json.loads(json.dumps(rule_to_json(rule)))) == rule


def test_the_stored_form():
    stored = {"name": "ASHA", "attributes": {"min_epochs": 2, "reduction": 3}}
    assert rule_to_json(ASHA(2, 3)) == stored
    with pytest.raises(UserError, match="has no pruning rule 'Hyperband'; it has ASHA, Median"):
        rule_from_json({"name": "Hyperband", "attributes": {}})
