"""Optuna's study of a search, rebuilt from the tables: its journal, sampler and distributions.

A proposal follows from the search, from the number of the new trial and from the trials that have
ended, and from nothing else: each has a sampler of its own, whose seed is made from the number, and
what a sampler keeps between proposals is made again from the trials. So a search that is
interrupted proposes the same settings as one that is not, as long as the same trials have ended at
each proposal. With one trial at a time that is certain; with several it depends on which of them
ends first.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import random
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


class NSGAIISampler(optuna.samplers.NSGAIISampler):
    """NSGA-II whose parents are in one order, whether they are chosen now or were before.

    It has the name of Optuna's, which is in what it writes about a trial.
    """

    def select_parent(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        return sorted(super().select_parent(study, generation), key=lambda trial: trial.number)


def random_numbers(plan: Plan, number: int, attempt: object) -> random.Random:
    """Return the random numbers of an attempt to propose the setting of a trial.

    Args:
        number: of the trial: how many the search had before.
        attempt: what tells several uses for one trial apart.
    """
    return random.Random(f"{plan.base.seed} {number} {attempt}")


def sampler(plan: Plan, number: int, attempt: int = 0) -> BaseSampler:
    """Make the sampler that proposes the setting of a trial; arguments as above."""
    name, space = plan.search.sampler, plan.search.space_at(plan.scale)
    seed = random_numbers(plan, number, attempt).randrange(2**31)
    startup = _startup_trials(plan)
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "cmaes":
        return optuna.samplers.CmaEsSampler(seed=seed)
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup)
    if name == "nsga2":
        return NSGAIISampler(seed=seed, population_size=startup)
    conditional = any(isinstance(d, When) for d in space.values())
    return optuna.samplers.TPESampler(
        seed=seed, multivariate=True, group=conditional, n_startup_trials=startup
    )


def rebuild(
    plan: Plan, rows: Sequence[dict[str, Any]], placement: Placement, journal: Path
) -> optuna.Study:
    """Make Optuna's study from the tables, with one trial for each row, by their start.

    Those of interrupted trials are running; :func:`interrupted_trials` gives them. The settings
    that the plan tries first come next.

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
    trials = [
        _frozen_trial(row, distributions, objectives, placement)
        for row in sorted(rows, key=lambda row: (row["started"], row["key"]))
    ]
    directions = [
        StudyDirection.MAXIMIZE if objective(name)[1] == "max" else StudyDirection.MINIMIZE
        for name in objectives
    ]
    if plan.search.sampler == "nsga2":
        _number_generations(plan, trials)
    elif plan.search.sampler == "cmaes":
        _replay(plan, trials, directions)
    study = optuna.create_study(
        storage=JournalStorage(_Journal(journal)),
        study_name=plan.study,
        directions=directions,
        sampler=sampler(plan, len(rows)),
    )
    study.set_metric_names([objective(name)[0] for name in objectives])
    for name, value in _study_attributes(plan).items():
        study.set_user_attr(name, value)
    study.add_trials(trials)
    for setting in plan.first_settings(rows):
        study.enqueue_trial({field: to_optuna(value) for field, value in setting.items()})
    return study


def _study_attributes(plan: Plan) -> dict[str, Any]:
    """Return what people who open the journal see of the study, in JSON's types."""
    search = plan.search
    return {
        "question": search.question,
        "data set": plan.base.data.name,
        "images": dict(plan.num_images),
        "scale": plan.scale,
        "sampler": search.sampler,
        "early stopping": "none" if search.pruner is None else str(search.pruner),
        "seed": plan.base.seed,
        "seeds of the confirmation": list(search.confirm_seeds),
        "selected by": "the held-out images; test images choose nothing",
    }


def propose(study: optuna.Study) -> optuna.Trial:
    """Ask for a trial; one of given settings counts in the sampler's state like a proposed one."""
    trial = study.ask()
    _ = trial.relative_params
    return trial


def interrupted_trials(study: optuna.Study) -> list[optuna.Trial]:
    """Return the trials of a study that was just rebuilt which are to be resumed."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [optuna.Trial(study, trial._trial_id) for trial in running]


def _number_generations(plan: Plan, trials: list[FrozenTrial]) -> None:
    """Give each trial the generation of NSGA-II that it had, without which it would not count."""
    num_complete = 0
    for trial in trials:
        generation = num_complete // _startup_trials(plan)
        trial.system_attrs[NSGAIISampler._get_generation_key()] = generation
        num_complete += trial.state == TrialState.COMPLETE


def _replay(plan: Plan, trials: list[FrozenTrial], directions: list[StudyDirection]) -> None:
    """Give trials the state of CMA-ES: it proposes and is told again what it was told before."""
    study = optuna.create_study(directions=directions)
    for number, frozen in enumerate(trials):
        study.sampler = sampler(plan, number)
        study.enqueue_trial(frozen.params)
        trial = study.ask(frozen.distributions)
        _ = trial.relative_params
        frozen.system_attrs.update(study.trials[number].system_attrs)
        frozen.system_attrs.pop("fixed_params", None)
        if frozen.state.is_finished():
            values = frozen.values if frozen.state == TrialState.COMPLETE else None
            study.tell(trial, values, state=frozen.state)


def _frozen_trial(
    row: dict[str, Any],
    distributions: dict[str, BaseDistribution],
    objectives: tuple[str, ...],
    placement: Placement,
) -> FrozenTrial:
    params = _params_of(row)
    state = STATES.get(row["status"], TrialState.RUNNING)
    ended = state != TrialState.RUNNING
    curve = store.curve(placement.storage, row["key"]) if ended and len(objectives) == 1 else {}
    values: Any = [row.get(objective(name)[0]) for name in objectives]
    if not ended:
        values = None
    elif state == TrialState.PRUNED:
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
