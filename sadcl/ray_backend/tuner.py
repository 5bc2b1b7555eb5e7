"""The search: Ray Tune runs the trials, Optuna chooses their settings, the tables are the truth.

Optuna's study is a journal that is made anew from the tables at every start, so that the two always agree.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from sadcl import runner
from sadcl.errors import TrialFailed, UserError
from sadcl.ray_backend import jobs
from sadcl.runner import Where
from sadcl.search.plan import Trial
from sadcl.search.space import Choice, Float, Int, Space

METRIC = "val_mAP"
_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}


def search(
    space: Space,
    total: int,
    rows: Sequence[dict[str, Any]],
    make: Callable[[dict[str, Any]], Trial],
    where: Where,
    *,
    study: str,
    journal: Path,
    seed: int,
    concurrent: int,
    scratch: str,
    board: Any,
) -> None:
    """Run what is left of a study's trials; what they gave is in the tables.

    Args:
        space: what Optuna chooses from.
        total: trials of the whole study.
        rows: of the trials table, this study's search phase: those that ended well are told to Optuna, those that were
            interrupted or failed are run first, with the same settings.
        make: settings -> trial.
        journal: file of Optuna's study, replaced.
        seed: of the sampler.
        concurrent: trials at once.
        scratch: folder for what Tune writes; nothing of it is needed afterwards.
        board: takes the trials' events.
    """
    ended = [row for row in rows if row["status"] in _STATES]
    again = [row for row in rows if row["status"] not in _STATES]
    if total <= len(ended):
        return
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {field: _distribution(d) for field, d in space.items()}
    store = _rebuild(study, journal, distributions, ended, again)
    # a resumed search must not draw the first random settings again
    sampler = optuna.samplers.TPESampler(seed=seed + 7919 * len(rows), multivariate=True, n_startup_trials=4)
    searcher = OptunaSearch(space=distributions, metric=METRIC, mode="max", storage=store, study_name=study, sampler=sampler)

    started: dict[str, dict[str, Any]] = {}

    class _Note(tune.Callback):
        """Knows the settings of every trial, also of one whose process leaves no word."""

        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            started[trial.trial_id] = trial.config

    def objective(params: dict[str, Any]) -> None:
        try:
            trial = make(params)
            row = jobs.run(trial, where, scratch, board)
        except (UserError, TrialFailed) as failure:
            # an exception is how Tune hears of a failure; the table has the whole of it
            raise RuntimeError(str(failure)) from None
        tune.report({METRIC: row[METRIC], "epoch": row["epoch"], "key": trial.key})

    reserved = jobs.resources(where)
    per_trial = {"CPU": reserved["num_cpus"], "GPU": reserved["num_gpus"]}
    if where.workers > 1:  # its workers need the CPUs; a trial that reserves nothing at all is refused
        per_trial = {"CPU": 0, "node:__internal_head__": 0.001}
    tuner = tune.Tuner(
        tune.with_resources(objective, per_trial),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=total - len(ended),
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_dirname_creator=lambda t: t.trial_id,
        ),
        run_config=tune.RunConfig(
            name=study,
            storage_path=scratch,
            verbose=0,
            callbacks=[_Note()],
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )
    tuner.fit()
    for params in started.values():
        try:
            trial = make(params)
        except UserError as error:
            raise UserError(f"The space {space} holds settings that are not possible together: {error}") from None
        if runner.finished(trial, where) is None:
            runner.fail(trial, where, "its process was lost: it was killed, or the machine ran out of memory")


def _distribution(distribution: Float | Int | Choice) -> BaseDistribution:
    if isinstance(distribution, Choice):
        return CategoricalDistribution(distribution.values)
    if isinstance(distribution, Int):
        return IntDistribution(distribution.low, distribution.high, log=distribution.log)
    return FloatDistribution(distribution.low, distribution.high, log=distribution.log)


def _rebuild(
    study: str,
    journal: Path,
    distributions: dict[str, BaseDistribution],
    ended: Sequence[dict[str, Any]],
    again: Sequence[dict[str, Any]],
) -> JournalStorage:
    """Optuna's study as the tables have it."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    for old in journal.parent.glob(f"{journal.name}*"):
        os.remove(old)
    store = JournalStorage(JournalFileBackend(str(journal)))
    made = optuna.create_study(storage=store, study_name=study, direction="maximize")
    for row in sorted(ended, key=lambda r: r["started"]):
        made.add_trial(
            create_trial(
                state=_STATES[row["status"]],
                params=_settings(row, distributions),
                distributions=distributions,
                value=row[METRIC],
                user_attrs={"key": row["key"]},
            )
        )
    for row in again:
        made.enqueue_trial(_settings(row, distributions), user_attrs={"key": row["key"]})
    return store


def _settings(row: dict[str, Any], distributions: dict[str, BaseDistribution]) -> dict[str, Any]:
    """What the search set, as it was before it went through JSON, which knows no tuples."""
    settings: dict[str, Any] = json.loads(row["params"])
    for field, value in settings.items():
        known = distributions[field]
        if isinstance(known, CategoricalDistribution):
            settings[field] = next((c for c in known.choices if json.loads(json.dumps(c)) == value), value)
    return settings
