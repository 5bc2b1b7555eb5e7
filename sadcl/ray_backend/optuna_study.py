"""Optuna's study of a search, made anew from the tables; its journal, sampler and distributions."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Generator, Sequence
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
from sadcl.search.plan import OBJECTIVES, Plan
from sadcl.search.space import Choice, Int, Plain, When, plain
from sadcl.study.placement import Placement

STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


class _Journal(JournalFileBackend):
    """Optuna's journal on a storage that may fail for a while; it needs no lock, for the study has one already."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), lock_obj=_NoLock(str(path)))
        self.path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        size = storage.retry(lambda: os.path.getsize(self.path))

        def attempt() -> None:
            os.truncate(self.path, size)  # what an attempt that failed has left
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
    if isinstance(distribution, Choice):
        words = [to_optuna(value) for value in distribution.values]
        return distribution.values[words.index(trial.suggest_categorical(field, words))]
    if isinstance(distribution, Int):
        return trial.suggest_int(field, distribution.low, distribution.high, log=distribution.log)
    return trial.suggest_float(field, distribution.low, distribution.high, log=distribution.log)


def _distribution(distribution: Plain) -> BaseDistribution:
    if isinstance(distribution, Choice):
        return CategoricalDistribution([to_optuna(value) for value in distribution.values])
    if isinstance(distribution, Int):
        return IntDistribution(distribution.low, distribution.high, log=distribution.log)
    return FloatDistribution(distribution.low, distribution.high, log=distribution.log)


def _startup_trials(plan: Plan) -> int:
    """Trials at random before a sampler goes by them; the size of a generation."""
    return min(max(plan.total // 4, 4), 10)


def _sampler(plan: Plan, rows: Sequence[Any], complete: list[FrozenTrial]) -> BaseSampler:
    name, space = plan.search.sampler, plan.search.space_at(plan.scale)
    seed = plan.base.seed + 7919 * len(
        rows
    )  # a resumed search must not draw the first random settings again
    some = _startup_trials(plan)
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if (
        name == "cmaes"
    ):  # its own state is not in the tables; it starts anew from a tenth of what is there
        return optuna.samplers.CmaEsSampler(
            seed=seed, source_trials=complete if len(complete) >= 10 else None
        )
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=some)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=some)
    conditional = any(isinstance(d, When) for d in space.values())
    return optuna.samplers.TPESampler(
        seed=seed, multivariate=True, group=conditional, n_startup_trials=some
    )


def rebuild(
    plan: Plan, rows: Sequence[dict[str, Any]], placement: Placement, journal: Path
) -> optuna.Study:
    """Optuna's study as the tables have it: one trial for each row that ended; those interrupted come first."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    for old in journal.parent.glob(f"{glob.escape(journal.name)}*"):
        os.remove(old)
    store_of = JournalStorage(_Journal(journal))
    objectives = plan.search.objectives
    directions = [
        StudyDirection.MAXIMIZE if OBJECTIVES[n] == "max" else StudyDirection.MINIMIZE
        for n in objectives
    ]
    known = {
        field: _distribution(plain(d)) for field, d in plan.search.space_at(plan.scale).items()
    }
    ended = [
        _frozen_trial(row, known, objectives, placement)
        for row in sorted(rows, key=lambda r: r["started"])
        if row["status"] in STATES
    ]
    complete = [trial for trial in ended if trial.state == TrialState.COMPLETE]
    for number, trial in enumerate(complete):  # without it a generation that is restored is none
        trial.system_attrs[optuna.samplers.NSGAIISampler._get_generation_key()] = (
            number // _startup_trials(plan)
        )
    sampler = _sampler(plan, rows, complete)
    study = optuna.create_study(
        storage=store_of, study_name=plan.study, directions=directions, sampler=sampler
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
    known: dict[str, BaseDistribution],
    objectives: tuple[str, ...],
    placement: Placement,
) -> FrozenTrial:
    settings = _params_of(row)
    curve = store.curve(placement.storage, row["key"]) if len(objectives) == 1 else {}
    values = [row[name] for name in objectives]
    state = STATES[row["status"]]
    if state == TrialState.PRUNED:
        values = [list(curve.values())[-1]] if curve else None  # type: ignore[assignment]
    elif state == TrialState.FAIL or any(value is None or value != value for value in values):
        state, values = TrialState.FAIL, None  # type: ignore[assignment]
    return create_trial(
        state=state,
        params=settings,
        distributions={field: known[field] for field in settings},
        values=values,
        user_attrs={"key": row["key"]},
        intermediate_values=curve,
    )


def _params_of(row: dict[str, Any]) -> dict[str, Any]:
    """What the search set, as Optuna knows it."""
    return {field: to_optuna(value) for field, value in json.loads(row["params"]).items()}


def to_optuna(value: Any) -> Any:
    """A value that comes back from Optuna's journal as it was; that knows no tuples."""
    return (
        value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value)
    )
