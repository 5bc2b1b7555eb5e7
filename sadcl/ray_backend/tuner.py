"""The search: Ray Tune runs the trials, Optuna chooses their settings, the tables are the truth.

Optuna's study is a journal that is made anew from the tables at every start, so that the two always agree.
"""

from __future__ import annotations

import glob
import itertools
import json
import os
import random
import warnings
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray import tune
from ray.tune.search import Searcher

from sadcl import runner, storage
from sadcl.errors import TrialFailed, UserError
from sadcl.ray_backend import jobs
from sadcl.ray_backend.board import Board
from sadcl.ray_backend.disk import Disk
from sadcl.results import store
from sadcl.runner import Where
from sadcl.search.plan import MOST, OBJECTIVES, Plan, spent
from sadcl.search.space import Choice, Int, Plain, When, draw, every, plain

_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
_REPEATS = 5
"""Settings in a row that a sampler may propose although they were tried; then one that was not is drawn at random."""


def search(
    plan: Plan,
    rows: Sequence[dict[str, Any]],
    where: Where,
    *,
    journal: Path,
    concurrent: int,
    scratch: str,
    board: Board,
    disk: Disk,
) -> None:
    """Run what is left of a study's trials; what they gave is in the tables.

    Args:
        rows: of the trials table, this study's search phase: those that ended are told to Optuna, those that were
            interrupted are run first, with the same settings.
        journal: file of Optuna's study, replaced.
        concurrent: trials at once.
        scratch: folder for what Tune writes; nothing of it is needed afterwards.

    Raises:
        UserError: for a space that holds settings that are not possible together, or where the disk's limit is reached.
    """
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = _rebuild(plan, rows, where, journal)
    left = plan.left_to_try(rows)
    if not left:
        return
    searcher = _Search(plan, rows, where, study, disk, concurrent)

    def objective(params: dict[str, Any]) -> None:
        trial = plan.try_out(params)
        try:
            row: Mapping[str, Any] | None = jobs.run(trial, where, scratch, board)
        except (UserError, TrialFailed) as error:  # a failure is a row, and no reason for Tune to try again
            row = runner.finished(trial, where) or runner.fail(trial, where, runner.cause_of(error))
        names = ("status", "epochs_done", "seconds", *plan.search.objectives)
        tune.report({name: (row or {"status": "failed"}).get(name) for name in names})

    reserved = jobs.resources(where)
    per_trial = {"CPU": reserved["num_cpus"], "GPU": reserved["num_gpus"]}
    if where.workers > 1:  # its workers need the CPUs; a trial that reserves nothing at all is refused
        per_trial = {"CPU": 0, "node:__internal_head__": 0.001}
    tuner = tune.Tuner(
        tune.with_resources(objective, per_trial),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=left,
            max_concurrent_trials=concurrent,
            reuse_actors=where.gpus > 0 or "memory_mb" not in plan.search.objectives,  # on CPUs that is the process's peak
            trial_dirname_creator=lambda t: t.trial_id,
        ),
        run_config=tune.RunConfig(
            name=plan.study,
            storage_path=scratch,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=jobs.LOST),
        ),
    )
    tuner.fit()
    if searcher.impossible is not None:
        raise UserError(f"The space holds settings that are not possible together: {searcher.impossible}")
    for params in searcher.settings:
        trial = plan.try_out(params)
        if runner.finished(trial, where) is None:
            reasons = "it was killed, its node was taken away or lost its storage, or the machine ran out of memory"
            runner.fail(trial, where, jobs.lost(reasons))
    if searcher.repeated:  # Optuna has failed trials for settings that were proposed twice; the tables have not
        there = store.read(where.storage, "trials").to_pylist()
        _rebuild(plan, [row for row in there if row["key"] in searcher.tried], where, journal)
    if searcher.full:
        raise disk.explain()


class _Journal(JournalFileBackend):
    """Optuna's journal on a storage that may fail for a while; it needs no lock, for the study has one already."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), lock_obj=_NoLock(str(path)))
        self.path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        size = storage.patiently(lambda: os.path.getsize(self.path))

        def attempt() -> None:
            os.truncate(self.path, size)  # what an attempt that failed has left
            super(_Journal, self).append_logs(logs)

        storage.patiently(attempt)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        yield from storage.patiently(lambda: list(super(_Journal, self).read_logs(log_number_from)))


class _NoLock(JournalFileSymlinkLock):
    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return


class _Search(Searcher):
    """Optuna by its ask-and-tell interface.

    (Ray's own OptunaSearch tells trials that were stopped early as complete, reports by its own count of iterations, and
    knows conditional fields only where nothing was evaluated before.)
    """

    def __init__(
        self,
        plan: Plan,
        rows: Sequence[dict[str, Any]],
        where: Where,
        study: optuna.Study,
        disk: Disk,
        at_once: int,
    ) -> None:
        super().__init__()
        self.plan, self.where, self.study, self.disk, self.at_once = plan, where, study, disk, at_once
        self.space = plan.search.space_at(plan.scale)
        self.tried = {row["key"] for row in rows if row["status"] != "running"}
        self.spent = spent(row for row in rows if row["status"] != "running")
        self.again = sum(row["status"] == "running" for row in rows)
        self.asked: dict[str, tuple[optuna.Trial, str]] = {}
        self.settings: list[dict[str, Any]] = []
        self.impossible: UserError | None = None
        self.full = self.repeated = False
        self.random = random.Random(plan.base.seed + len(rows))

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override]
        """Settings that were not tried before."""
        self.full = not self.disk.make_room(self.plan, self.at_once)
        if self.full or (self._used_up() and not self.again):
            return Searcher.FINISHED
        try:
            for repeats in itertools.count():
                if repeats >= _REPEATS:
                    if (other := self._untried()) is None:
                        return Searcher.FINISHED
                    self.study.enqueue_trial({field: _word(value) for field, value in other.items()})
                trial = self.study.ask()
                setting = draw(self.space, lambda field, d: _suggest(trial, field, d))  # noqa: B023
                key = self.plan.try_out(setting).key
                if key not in self.tried:
                    break
                self.study.tell(trial, state=TrialState.FAIL)
                self.repeated = True
        except UserError as error:
            self.impossible = error
            return Searcher.FINISHED
        self.again = max(self.again - 1, 0)
        self.tried.add(key)
        self.asked[trial_id] = (trial, key)
        self.settings.append(setting)
        trial.set_user_attr("key", key)
        return setting

    def _untried(self) -> dict[str, Any] | None:
        """A setting at random that was not tried; None where the space holds no other."""
        if self.plan.settings:
            candidates = list(itertools.islice(every(self.space), MOST))
            self.random.shuffle(candidates)
        else:
            sampler = optuna.samplers.RandomSampler(seed=self.random.randrange(2**31))
            others = optuna.create_study(sampler=sampler)
            candidates = []
            for _ in range(1000):
                trial = others.ask()
                candidates.append(draw(self.space, lambda field, d: _suggest(trial, field, d)))  # noqa: B023
        return next((setting for setting in candidates if self.plan.try_out(setting).key not in self.tried), None)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna what the table says."""
        trial, key = self.asked.pop(trial_id)
        found = result or {}
        self.spent = (self.spent[0] + (found.get("epochs_done") or 0), self.spent[1] + (found.get("seconds") or 0.0))
        if len(self.plan.search.objectives) == 1:
            for epoch, value in store.curve(self.where.storage, key).items():
                trial.report(value, epoch)
        state = _STATES.get(found.get("status", "failed"), TrialState.FAIL)
        values = [found.get(name) for name in self.plan.search.objectives]
        if state == TrialState.COMPLETE and any(value is None or value != value for value in values):
            state = TrialState.FAIL
        self.study.tell(trial, values if state == TrialState.COMPLETE else None, state=state)  # type: ignore[arg-type]

    def _used_up(self) -> bool:
        """Whether the budget of epochs or hours is, with what trials under way have used of it."""
        search = self.plan.search
        if search.max_epochs is None and search.max_hours is None:
            return False
        epochs, seconds = self.spent
        for _, key in self.asked.values():
            done = store.epochs_of(self.where.storage, key)
            epochs, seconds = epochs + len(done), seconds + sum(row["seconds"] or 0.0 for row in done)
        return self.plan.used_up(epochs, seconds)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the tables are the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the tables are the truth."""


def _suggest(trial: optuna.Trial, field: str, distribution: Plain) -> Any:
    if isinstance(distribution, Choice):
        words = [_word(value) for value in distribution.values]
        return distribution.values[words.index(trial.suggest_categorical(field, words))]
    if isinstance(distribution, Int):
        return trial.suggest_int(field, distribution.low, distribution.high, log=distribution.log)
    return trial.suggest_float(field, distribution.low, distribution.high, log=distribution.log)


def _distribution(distribution: Plain) -> BaseDistribution:
    if isinstance(distribution, Choice):
        return CategoricalDistribution([_word(value) for value in distribution.values])
    if isinstance(distribution, Int):
        return IntDistribution(distribution.low, distribution.high, log=distribution.log)
    return FloatDistribution(distribution.low, distribution.high, log=distribution.log)


def _some(plan: Plan) -> int:
    """Trials at random before a sampler goes by them; the size of a generation."""
    return min(max(plan.total // 4, 4), 10)


def _sampler(plan: Plan, rows: Sequence[Any], complete: list[FrozenTrial]) -> BaseSampler:
    name, space = plan.search.sampler, plan.search.space_at(plan.scale)
    seed = plan.base.seed + 7919 * len(rows)  # a resumed search must not draw the first random settings again
    some = _some(plan)
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "cmaes":  # its own state is not in the tables; it starts anew from a tenth of what is there
        return optuna.samplers.CmaEsSampler(seed=seed, source_trials=complete if len(complete) >= 10 else None)
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=some)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=some)
    conditional = any(isinstance(d, When) for d in space.values())
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=conditional, n_startup_trials=some)


def _rebuild(plan: Plan, rows: Sequence[dict[str, Any]], where: Where, journal: Path) -> optuna.Study:
    """Optuna's study as the tables have it: one trial for each row that ended; those interrupted come first."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    for old in journal.parent.glob(f"{glob.escape(journal.name)}*"):
        os.remove(old)
    store_of = JournalStorage(_Journal(journal))
    objectives = plan.search.objectives
    directions = [StudyDirection.MAXIMIZE if OBJECTIVES[n] == "max" else StudyDirection.MINIMIZE for n in objectives]
    known = {field: _distribution(plain(d)) for field, d in plan.search.space_at(plan.scale).items()}
    ended = [
        _told(row, known, objectives, where) for row in sorted(rows, key=lambda r: r["started"]) if row["status"] in _STATES
    ]
    complete = [trial for trial in ended if trial.state == TrialState.COMPLETE]
    for number, trial in enumerate(complete):  # without it a generation that is restored is none
        trial.system_attrs[optuna.samplers.NSGAIISampler._get_generation_key()] = number // _some(plan)
    sampler = _sampler(plan, rows, complete)
    study = optuna.create_study(storage=store_of, study_name=plan.study, directions=directions, sampler=sampler)
    study.add_trials(ended)
    for row in rows:
        if row["status"] not in _STATES:
            study.enqueue_trial(_words(row), user_attrs={"key": row["key"]})
    for setting in plan.first_settings(rows):
        study.enqueue_trial({field: _word(value) for field, value in setting.items()})
    return study


def _told(row: dict[str, Any], known: dict[str, BaseDistribution], objectives: tuple[str, ...], where: Where) -> FrozenTrial:
    settings = _words(row)
    curve = store.curve(where.storage, row["key"]) if len(objectives) == 1 else {}
    values = [row[name] for name in objectives]
    state = _STATES[row["status"]]
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


def _words(row: dict[str, Any]) -> dict[str, Any]:
    """What the search set, as Optuna knows it."""
    return {field: _word(value) for field, value in json.loads(row["params"]).items()}


def _word(value: Any) -> Any:
    """A value that comes back from Optuna's journal as it was; that knows no tuples."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value)
