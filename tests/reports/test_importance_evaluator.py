"""The distribution of a field, and Optuna's own figures."""

from __future__ import annotations

import warnings

import numpy as np
import optuna
import pytest

from sadcl.ray_backend.optuna_study import _distribution as searched
from sadcl.reports.importance_evaluator import Evaluator, distribution_of
from sadcl.search.space import Choice, Float, Int, When, plain, space_to_json
from sadcl.search.study_file import old_sentence, read_space


@pytest.mark.parametrize("is_json", [True, False])
def test_distributions_are_those_of_the_search(is_json):
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
    sentences = {field: old_sentence(distribution) for field, distribution in space.items()}
    domains = read_space({"space": space_to_json(space) if is_json else sentences})
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


@pytest.mark.parametrize("name", ["ped-anova", "fanova"])
def test_importances_are_those_of_an_optuna_study(name):
    """Of all trials and of a resample, to the bit."""
    rng = np.random.default_rng(0)
    settings = [{"a": float(rng.random()), "b": int(rng.integers(1, 5))} for _ in range(40)]
    mAP_N = np.array([s["a"] + rng.normal(0, 0.1) for s in settings])
    distributions = {
        field: distribution_of([s[field] for s in settings], None) for field in ("a", "b")
    }
    evaluator = Evaluator(settings, distributions, name, num_best=6)
    for index_N in (np.arange(40), rng.choice(40, 40)):
        study = optuna.create_study(direction="maximize")
        study.add_trials(
            optuna.trial.create_trial(
                params=settings[i], distributions=distributions, value=mAP_N[i]
            )
            for i in index_N
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = evaluator.evaluator.evaluate(study, target=lambda t: -t.value)
        found = evaluator(mAP_N, index_N)
        assert found.tolist() == [max(expected[field], 0.0) for field in ("a", "b")]
