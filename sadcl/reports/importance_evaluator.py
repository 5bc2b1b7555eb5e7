"""Optuna's importance evaluators, applied to rows of the trials table."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
from optuna.trial import create_trial

from sadcl.search.space import Choice, Float, Int, plain
from sadcl.search.space import Distribution as SpaceDistribution

Distribution = BaseDistribution
"""So that other files need not import Optuna for their annotations."""


class Evaluator:
    """An evaluator of Optuna with the settings of some trials.

    Args:
        settings: of each trial, by field.
        distributions: of the fields to evaluate.
        name: ``ped-anova`` or ``fanova``.
        num_best: for PED-ANOVA, how many trials count as the best.
    """

    def __init__(
        self,
        settings: Sequence[Mapping[str, Any]],
        distributions: Mapping[str, BaseDistribution],
        name: str,
        num_best: int,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.fields = list(distributions)
        self.evaluator = (
            PedAnovaImportanceEvaluator(target_quantile=(num_best - 0.5) / len(settings))
            if name == "ped-anova"
            else FanovaImportanceEvaluator(n_trees=16, max_depth=3, seed=0)
        )
        self.trials = [self._trial(setting, distributions) for setting in settings]
        self.study = self._study(range(len(settings)))

    def __call__(
        self, mAP_N: NDArray[np.float64], index_N: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """Evaluate the fields.

        Args:
            mAP_N: of each trial, (N,).
            index_N: evaluate a resample: the trials at these positions, (N,).

        Returns:
            The importance of each field in the evaluator's own unit, (F,), at least 0.
        """
        study = self.study if index_N is None else self._study(index_N)
        value_N = mAP_N if index_N is None else mAP_N[index_N]
        with warnings.catch_warnings():
            # PED-ANOVA warns that it minimises a target, which is what the minus is for.
            warnings.simplefilter("ignore")
            importance = self.evaluator.evaluate(study, target=lambda t: -value_N[t.number])
        return np.array([max(float(importance.get(field, 0.0)), 0.0) for field in self.fields])

    def _trial(
        self, setting: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
    ) -> optuna.trial.FrozenTrial:
        of_trial = {field: distributions[field] for field in self.fields if field in setting}
        params = {
            field: json.dumps(setting[field])
            if isinstance(distribution, CategoricalDistribution)
            else setting[field]
            for field, distribution in of_trial.items()
        }
        return create_trial(params=params, distributions=of_trial, value=0.0)

    def _study(self, index_N: Sequence[int] | NDArray[np.int64]) -> optuna.Study:
        study = optuna.create_study(direction="maximize")
        study.add_trials([self.trials[i] for i in index_N])
        return study


def distribution_of(
    values: Sequence[Any], searched: SpaceDistribution | None
) -> Distribution | None:
    """Return the distribution of a field.

    Args:
        values: that the trials have for the field.
        searched: of the study's space; without one, the field's range is that of the values.

    Returns:
        The distribution, wide enough for all values; None for fewer than two different values.
    """
    texts = {json.dumps(value) for value in values}
    if len(texts) < 2:
        return None
    domain = None if searched is None else plain(searched)
    are_numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    if isinstance(domain, Choice) or not are_numbers:
        return CategoricalDistribution(sorted(texts))
    low, high, log = min(values), max(values), False
    if domain is not None:  # bounds of an older storage are rounded, so that a value lies outside
        low, high, log = min(low, domain.low), max(high, domain.high), domain.log
    is_on_steps = domain is not None and all(domain.contains(value) for value in values)
    is_integer = all(isinstance(value, int) for value in values) and not isinstance(domain, Float)
    if is_integer:
        step = domain.step if isinstance(domain, Int) and is_on_steps else 1
        return IntDistribution(int(low), int(high), log=log, step=step)
    step_size = domain.step if isinstance(domain, Float) and is_on_steps else None
    return FloatDistribution(low, high, log=log, step=step_size)
