"""The trials of a search: Ray Tune runs them, Optuna chooses settings, the tables are the truth.

Optuna's study is a journal that is rebuilt from the tables at every start, so that the two always
agree.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from ray import tune
from ray.tune.execution import class_cache
from ray.tune.search import Searcher

from sadcl.errors import TrialFailed, UserError
from sadcl.ray_backend import tasks
from sadcl.ray_backend.event_channel import EventChannel
from sadcl.ray_backend.optuna_study import (
    STATES,
    all_numbers,
    interrupted_trials,
    propose,
    quiet_optuna,
    random_numbers,
    rebuild,
    sampler,
    suggest,
    to_optuna,
)
from sadcl.results import store
from sadcl.search import ranking
from sadcl.search.plan import Plan, training_spent
from sadcl.search.settings import MAX_COUNTED, all_settings, draw
from sadcl.study import execute
from sadcl.study.checkpoint_quota import CheckpointQuota
from sadcl.study.failure import MAX_RESTARTS, cause_of
from sadcl.study.placement import Placement

_REPEATS = 5
"""A sampler may propose so many tried settings in a row; then a random new one is drawn."""


def run_trials(
    plan: Plan,
    rows: Sequence[dict[str, Any]],
    placement: Placement,
    *,
    journal: Path,
    max_concurrent: int,
    scratch: str,
    channel: EventChannel,
    quota: CheckpointQuota,
) -> None:
    """Run the trials of a search that are still to come; their results are in the tables.

    Args:
        rows: The search's rows of the trials table: Optuna is told of those that have ended, and
            those that were interrupted run first, with the same settings. What is proposed then is
            what an uninterrupted search proposes (:mod:`sadcl.ray_backend.optuna_study`).
        journal: The file of Optuna's study, which is replaced.
        max_concurrent: The number of trials at once.
        scratch: A folder for what Tune writes; nothing of it is needed afterwards.

    Raises:
        UserError: For a space with settings that are not possible together, or where the limit of
            the disk is reached.
    """
    with quiet_optuna():
        study = rebuild(plan, rows, placement, journal)
        count = plan.remaining_trials(rows)
        if not count:
            return
        searcher = _AskAndTell(plan, rows, placement, study, quota, max_concurrent)
        _tune(plan, placement, searcher, count, max_concurrent, scratch, channel)
        if searcher.impossible is not None:
            raise UserError(
                f"The space holds settings that are not possible together: {searcher.impossible}"
            )
        _record_lost_trials(plan, placement, searcher.settings)
        if searcher.repeated:
            # Optuna has failed trials for settings that were proposed twice; the tables have not
            all_rows = store.read(placement.storage, "trials").to_pylist()
            tried = [row for row in all_rows if row["key"] in searcher.tried]
            rebuild(plan, tried, placement, journal)
        if searcher.full:
            raise quota.explain()


def _tune(
    plan: Plan,
    placement: Placement,
    searcher: Searcher,
    count: int,
    max_concurrent: int,
    scratch: str,
    channel: EventChannel,
) -> None:
    """Run up to so many trials with Ray Tune, until the searcher has no more."""
    reserved = tasks.resources(placement)
    per_trial = {"CPU": reserved["num_cpus"], "GPU": reserved["num_gpus"]}
    if placement.workers > 1:
        # its workers need the CPUs, and Tune refuses a trial that reserves nothing at all
        per_trial = {"CPU": 0, "node:__internal_head__": 0.001}
    tuner = tune.Tuner(
        tune.with_resources(_objective(plan, placement, scratch, channel), per_trial),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=count,
            max_concurrent_trials=max_concurrent,
            # on CPUs memory_mb is the peak of the process, which must not be that of a former trial
            reuse_actors=placement.gpus > 0 or "memory_mb" not in plan.search.objectives,
            trial_dirname_creator=lambda t: t.trial_id,
        ),
        run_config=tune.RunConfig(
            name=plan.study,
            storage_path=scratch,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=MAX_RESTARTS),
        ),
    )
    with _secrets_kept_out_of_logs():
        tuner.fit()


@contextlib.contextmanager
def _secrets_kept_out_of_logs() -> Iterator[None]:
    """Keep Tune from copying AWS keys of the driver's environment into that of its trials.

    Ray logs the environment of each trial on its node, in plain text. Nodes have credentials of
    their own, as the tasks of a study need them too.
    """
    secrets = {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(secrets)
    try:
        yield
    finally:
        class_cache.ENV_VARS_TO_PROPAGATE.update(secrets)


def _objective(
    plan: Plan, placement: Placement, scratch: str, channel: EventChannel
) -> Callable[[dict[str, Any]], None]:
    """Make the function that trains a setting and reports its objectives to Tune."""

    def objective(params: dict[str, Any]) -> None:
        trial = plan.search_trial(params)
        try:
            row: Mapping[str, Any] | None = tasks.run_trial(trial, placement, scratch, channel)
        except (UserError, TrialFailed) as error:
            # what would fail again is a row, and no reason for Tune to try again
            row = execute.ended_row(trial, placement) or execute.record_failure(
                trial, placement, cause_of(error)
            )
        columns = [ranking.objective(name)[0] for name in plan.search.objectives]
        names = ("status", "epochs_done", "seconds", *columns)
        tune.report({name: (row or {"status": "failed"}).get(name) for name in names})

    return objective


def _record_lost_trials(
    plan: Plan, placement: Placement, settings: Sequence[Mapping[str, Any]]
) -> None:
    """Write rows for the trials that Tune has given up."""
    for params in settings:
        trial = plan.search_trial(params)
        if execute.ended_row(trial, placement) is None:
            reasons = (
                "it was killed, its node was taken away or lost its storage, or the machine ran "
                "out of memory"
            )
            cause = tasks.given_up_cause(trial, placement, reasons)
            execute.record_failure(trial, placement, cause)


class _AskAndTell(Searcher):
    """Optuna through its ask-and-tell interface.

    (Ray's own OptunaSearch reports trials that were stopped early as complete, counts iterations by
    itself, and supports conditional fields only where nothing was evaluated before.)
    """

    def __init__(
        self,
        plan: Plan,
        rows: Sequence[dict[str, Any]],
        placement: Placement,
        study: optuna.Study,
        quota: CheckpointQuota,
        max_concurrent: int,
    ) -> None:
        super().__init__()
        self.plan, self.placement, self.study = plan, placement, study
        self.quota, self.max_concurrent = quota, max_concurrent
        self.space = plan.search.space_at(plan.scale)
        self.tried = {row["key"] for row in rows if row["status"] != "running"}
        self.spent = training_spent(row for row in rows if row["status"] != "running")
        self.interrupted = interrupted_trials(study)
        """Trials that are still to be resumed, whatever the budget, the last one first."""
        self.interrupted.reverse()
        self.number = len(rows)
        """Of the next new trial."""
        self.running: dict[str, tuple[optuna.Trial, str]] = {}
        """Optuna's trial and the key of its row, by Tune's name."""
        self.settings: list[dict[str, Any]] = []
        self.impossible: UserError | None = None
        self.full = self.repeated = False

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override]
        """Return settings that were not tried before."""
        self.full = not self.quota.make_room(self.plan, self.max_concurrent)
        if self.full or (self._budget_is_spent() and not self.interrupted):
            return Searcher.FINISHED
        try:
            proposal = self._resume() if self.interrupted else self._propose()
        except UserError as error:
            self.impossible = error
            return Searcher.FINISHED
        if proposal is None:
            return Searcher.FINISHED
        trial, setting, key = proposal
        self.tried.add(key)
        self.running[trial_id] = (trial, key)
        self.settings.append(setting)
        trial.set_user_attr("key", key)
        return setting

    def _resume(self) -> tuple[optuna.Trial, dict[str, Any], str]:
        """Return the next trial that was interrupted, with its settings."""
        trial = self.interrupted.pop()
        setting = draw(self.space, lambda field, d: suggest(trial, field, d))
        return trial, setting, self.plan.search_trial(setting).key

    def _propose(self) -> tuple[optuna.Trial, dict[str, Any], str] | None:
        """Ask Optuna until it proposes a new setting; None where the space holds no other.

        Raises:
            UserError: For a setting that is not possible.
        """
        for repeats in itertools.count():
            if repeats >= _REPEATS:
                if (new := self._untried_setting()) is None:
                    return None
                self.study.enqueue_trial({field: to_optuna(v) for field, v in new.items()})
            self.study.sampler = sampler(self.plan, self.number, repeats)
            trial = propose(self.study)
            setting = draw(self.space, lambda field, d: suggest(trial, field, d))  # noqa: B023
            key = self.plan.search_trial(setting).key
            if key not in self.tried:
                self.number += 1
                return trial, setting, key
            self.study.tell(trial, state=TrialState.FAIL)
            self.repeated = True
        raise AssertionError

    def _untried_setting(self) -> dict[str, Any] | None:
        """Draw a random setting that was not tried; None where the space holds no other."""
        numbers = random_numbers(self.plan, self.number, "untried")
        if self.plan.num_settings:
            candidates = list(itertools.islice(all_settings(self.space), MAX_COUNTED))
            numbers.shuffle(candidates)
        else:
            uniform = optuna.samplers.RandomSampler(seed=numbers.randrange(2**31))
            study = optuna.create_study(sampler=uniform)
            candidates = []
            for _ in range(1000):
                trial = study.ask()
                candidates.append(draw(self.space, lambda field, d: suggest(trial, field, d)))  # noqa: B023
        return next(
            (
                setting
                for setting in candidates
                if self.plan.search_trial(setting).key not in self.tried
            ),
            None,
        )

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell Optuna what the tables have."""
        trial, key = self.running.pop(trial_id)
        result = result or {}
        epochs, seconds = self.spent
        self.spent = (
            epochs + (result.get("epochs_done") or 0),
            seconds + (result.get("seconds") or 0.0),
        )
        if len(self.plan.search.objectives) == 1:
            for epoch, value in store.curve(self.placement.storage, key).items():
                trial.report(value, epoch)
        state = STATES.get(result.get("status", "failed"), TrialState.FAIL)
        values = [result.get(ranking.objective(name)[0]) for name in self.plan.search.objectives]
        if state == TrialState.COMPLETE and not all_numbers(values):
            state = TrialState.FAIL
        self.study.tell(trial, values if state == TrialState.COMPLETE else None, state=state)  # type: ignore[arg-type]

    def _budget_is_spent(self) -> bool:
        """Tell whether epochs or hours are used up, with what running trials have used of them."""
        search = self.plan.search
        if search.max_epochs is None and search.max_hours is None:
            return False
        epochs, seconds = self.spent
        for _, key in self.running.values():
            rows = store.epochs_of(self.placement.storage, key)
            epochs += len(rows)
            seconds += sum(row["seconds"] or 0.0 for row in rows)
        return self.plan.used_up(epochs, seconds)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the tables are the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: the tables are the truth."""
