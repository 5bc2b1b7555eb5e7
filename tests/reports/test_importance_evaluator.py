"""The distribution of a field, and Optuna's own figures."""

from __future__ import annotations

import optuna
import pytest

from sadcl.ray_backend.optuna_study import _distribution as searched
from sadcl.reports.importance_evaluator import distribution_of
from sadcl.reports.search_space import space_domains
from sadcl.search.space import Choice, Float, Int, When, describe, plain


def test_distributions_are_those_of_the_search():
    space = {
        "f": Float(0.05, 0.5),
        "log": Float(1 / 3, 64 / 3, log=True),  # whose text is rounded
        "i": Int(1, 9),
        "ilog": Int(1, 512, log=True),
        "when": When("c", "fifo", Int(4, 64)),
        "c": Choice("fifo", "slot"),
        "numbers": Choice(8, 16, None),
    }
    values = {
        "f": [0.1, 0.2],
        "log": [1 / 3, 2.0],
        "i": [2, 3],
        "ilog": [2, 3],
        "when": [4, 5],
        "c": ["slot", "fifo"],
        "numbers": [8, None],
    }
    domains = space_domains({"space": describe(space)})
    for field, searched_distribution in space.items():
        distribution, expected = (
            distribution_of(values[field], domains[field]),
            searched(plain(searched_distribution)),
        )
        assert type(distribution) is type(expected), field
        if not isinstance(distribution, optuna.distributions.CategoricalDistribution):
            assert (distribution.low, distribution.high) == pytest.approx(
                (expected.low, expected.high), rel=1e-5
            ), field
            assert distribution.log == expected.log, field
            assert distribution.low <= min(values[field])
    assert distribution_of(["slot", "fifo"], domains["c"]).choices == ('"fifo"', '"slot"')
    assert distribution_of([8, None], domains["numbers"]).choices == ("8", "null")
    assert distribution_of([True, False], None).choices == ("false", "true")
    unknown = distribution_of([0.5, 2.0, 1.0], None)
    assert (unknown.low, unknown.high, unknown.log) == (0.5, 2.0, False)
    assert distribution_of([0.5, 0.5], domains["f"]) is None
