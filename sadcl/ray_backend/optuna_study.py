"""Optuna's study of a search, rebuilt from the tables: its journal, sampler and distributions."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import warnings
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from sadcl import storage
from sadcl.results import store
from sadcl.search.plan import Plan
from sadcl.search.ranking import objective
from sadcl.search.space import Choice, Int, Plain, When, plain
from sadcl.study.placement import Placement

STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence Optuna's log below errors, and its warnings, for as long as the block runs."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


class _Journal(JournalFileBackend):
    """Optuna's journal on a storage that may fail for a while; the study's own lock protects it."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), lock_obj=_NoLock(str(path)))
        self.path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        size = storage.retry(lambda: os.path.getsize(self.path))

        def attempt() -> None:
            os.truncate(self.path, size)  # removes what a failed attempt has written
            super(_Journal, self).append_logs(logs)

        storage.retry(attempt)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        yield from storage.retry(lambda: list(super(_Journal, self).read_logs(log_number_from)))


class _NoLock(JournalFileSymlinkLock):
    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return


def suggest(trial: optuna.Trial, field: str, distribution: Plain) -> Any:
    """Let Optuna choose a field's value."""
    if isinstance(distribution, Choice):
        choices = [to_optuna(value) for value in distribution.values]
        return distribution.values[choices.index(trial.suggest_categorical(field, choices))]
    if isinstance(distribution, Int):
        return trial.suggest_int(
            field, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    return trial.suggest_float(
        field, distribution.low, distribution.high, step=distribution.step, log=distribution.log
    )


def _distribution(distribution: Plain) -> BaseDistribution:
    if isinstance(distribution, Choice):
        return CategoricalDistribution([to_optuna(value) for value in distribution.values])
    if isinstance(distribution, Int):
        return IntDistribution(
            distribution.low, distribution.high, log=distribution.log, step=distribution.step
        )
    return FloatDistribution(
        distribution.low, distribution.high, log=distribution.log, step=distribution.step
    )


def _startup_trials(plan: Plan) -> int:
    """Return the number of random trials before a sampler uses results, and of a generation."""
    return min(max(plan.n_trials // 4, 4), 10)


def _sampler(plan: Plan, rows: Sequence[Any], complete: list[FrozenTrial]) -> BaseSampler:
    name, space = plan.search.sampler, plan.search.space_at(plan.scale)
    # a resumed search must not draw the first random settings again
    seed = plan.base.seed + 7919 * len(rows)
    startup = _startup_trials(plan)
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "cmaes":  # the tables lack its own state; with ten trials it starts from those
        return optuna.samplers.CmaEsSampler(
            seed=seed, source_trials=complete if len(complete) >= 10 else None
        )
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=startup)
    conditional = any(isinstance(d, When) for d in space.values())
    return optuna.samplers.TPESampler(
        seed=seed, multivariate=True, group=conditional, n_startup_trials=startup
    )


def rebuild(
    plan: Plan, rows: Sequence[dict[str, Any]], placement: Placement, journal: Path
) -> optuna.Study:
    """Make Optuna's study from the tables, with one trial for each row that has ended.

    Settings of interrupted trials come first, then those that the plan tries first.

    Args:
        rows: The search's rows of the trials table.
        placement: The storage, whose epochs table has the curves.
        journal: The file of the study, which is replaced.
    """
    journal.parent.mkdir(parents=True, exist_ok=True)
    for old in journal.parent.glob(f"{glob.escape(journal.name)}*"):
        os.remove(old)
    objectives = plan.search.objectives
    distributions = {
        field: _distribution(plain(d)) for field, d in plan.search.space_at(plan.scale).items()
    }
    ended = [
        _frozen_trial(row, distributions, objectives, placement)
        for row in sorted(rows, key=lambda r: r["started"])
        if row["status"] in STATES
    ]
    complete = [trial for trial in ended if trial.state == TrialState.COMPLETE]
    for number, trial in enumerate(complete):  # a restored generation counts only with its number
        trial.system_attrs[optuna.samplers.NSGAIISampler._get_generation_key()] = (
            number // _startup_trials(plan)
        )
    study = optuna.create_study(
        storage=JournalStorage(_Journal(journal)),
        study_name=plan.study,
        directions=[
            StudyDirection.MAXIMIZE if objective(n)[1] == "max" else StudyDirection.MINIMIZE
            for n in objectives
        ],
        sampler=_sampler(plan, rows, complete),
    )
    study.add_trials(ended)
    for row in rows:
        if row["status"] not in STATES:
            study.enqueue_trial(_params_of(row), user_attrs={"key": row["key"]})
    for setting in plan.first_settings(rows):
        study.enqueue_trial({field: to_optuna(value) for field, value in setting.items()})
    return study


def _frozen_trial(
    row: dict[str, Any],
    distributions: dict[str, BaseDistribution],
    objectives: tuple[str, ...],
    placement: Placement,
) -> FrozenTrial:
    params = _params_of(row)
    curve = store.curve(placement.storage, row["key"]) if len(objectives) == 1 else {}
    values: Any = [row.get(objective(name)[0]) for name in objectives]
    state = STATES[row["status"]]
    if state == TrialState.PRUNED:
        values = [list(curve.values())[-1]] if curve else None
    elif state == TrialState.FAIL or not all_numbers(values):
        state, values = TrialState.FAIL, None
    return create_trial(
        state=state,
        params=params,
        distributions={field: distributions[field] for field in params},
        values=values,
        user_attrs={"key": row["key"]},
        intermediate_values=curve,
    )


def all_numbers(values: Sequence[float | None]) -> bool:
    """Tell whether there is a number for each objective; None and NaN are none."""
    return not any(value is None or value != value for value in values)


def _params_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return what the search set, in Optuna's terms."""
    return {field: to_optuna(value) for field, value in json.loads(row["params"]).items()}


def to_optuna(value: Any) -> Any:
    """Convert a value so that it comes back from Optuna's journal as it was; that has no tuples."""
    return (
        value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value)
    )
