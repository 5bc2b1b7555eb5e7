"""Optuna's importance evaluators, applied to rows of the trials table."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Container, Mapping, Sequence
from typing import Any, cast

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
from optuna.trial import TrialState, create_trial

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
        once = {field: _hashed_once(distribution) for field, distribution in distributions.items()}
        self.trials = [self._trial(setting, once) for setting in settings]
        self.study = _Trials(self.trials)

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
        study = self.study
        if index_N is not None:
            study = _Trials([self.trials[i] for i in index_N])
        values = (-(mAP_N if index_N is None else mAP_N[index_N])).tolist()
        with warnings.catch_warnings():
            # PED-ANOVA warns that it minimises a target, which is what the minus is for.
            warnings.simplefilter("ignore")
            importance = self.evaluator.evaluate(
                cast(optuna.Study, study), target=lambda t: values[t.number]
            )
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


class _Float(FloatDistribution):
    __hash__ = object.__hash__


class _Int(IntDistribution):
    __hash__ = object.__hash__


class _Categorical(CategoricalDistribution):
    __hash__ = object.__hash__


def _hashed_once(distribution: BaseDistribution) -> BaseDistribution:
    """Return a distribution that is hashed by identity: PED-ANOVA hashes it for each trial.

    All trials of an evaluator share one object a field, so equal ones are the same.
    """
    for kind in (_Float, _Int, _Categorical):
        if type(distribution) in kind.__bases__:
            distribution = copy.copy(distribution)
            distribution.__class__ = kind
    return distribution


class _Trials:
    """What an evaluator asks of a study; a study itself would copy each trial several times.

    Args:
        trials: complete ones; each is numbered by its position.
    """

    def __init__(self, trials: Sequence[optuna.trial.FrozenTrial]) -> None:
        self.directions = [optuna.study.StudyDirection.MAXIMIZE]
        self.trials = [_renumbered(trial, number) for number, trial in enumerate(trials)]

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[optuna.trial.FrozenTrial]:
        """Return the trials, which nobody changes."""
        return self.trials if states is None or TrialState.COMPLETE in states else []

    def _is_multi_objective(self) -> bool:
        return False


def _renumbered(trial: optuna.trial.FrozenTrial, number: int) -> optuna.trial.FrozenTrial:
    """Copy a trial with another number, ten times as fast as ``copy.copy``."""
    renumbered = object.__new__(type(trial))
    renumbered.__dict__ = trial.__dict__ | {"_number": number, "_trial_id": number}
    return renumbered


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
