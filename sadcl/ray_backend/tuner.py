"""The search: Ray Tune runs the trials, Optuna chooses their settings, the tables are the truth.

Optuna's study is a journal that is made anew from the tables at every start, so that the two always agree.
"""

from __future__ import annotations

import itertools
import random
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from ray import tune
from ray.tune.search import Searcher

from sadcl.errors import TrialFailed, UserError
from sadcl.ray_backend import tasks
from sadcl.ray_backend.event_channel import EventChannel
from sadcl.ray_backend.optuna_study import STATES, rebuild, suggest, to_optuna
from sadcl.results import store
from sadcl.search.plan import Plan, training_spent
from sadcl.search.settings import MAX_COUNTED, all_settings, draw
from sadcl.study import execute
from sadcl.study.checkpoint_quota import CheckpointQuota
from sadcl.study.placement import Placement

_REPEATS = 5
"""Settings in a row that a sampler may propose although they were tried; then one that was not is drawn at random."""


def run_trials(
    plan: Plan,
    rows: Sequence[dict[str, Any]],
    placement: Placement,
    *,
    journal: Path,
    concurrent: int,
    scratch: str,
    channel: EventChannel,
    disk: CheckpointQuota,
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
    study = rebuild(plan, rows, placement, journal)
    left = plan.remaining_trials(rows)
    if not left:
        return
    searcher = _AskAndTell(plan, rows, placement, study, disk, concurrent)

    def objective(params: dict[str, Any]) -> None:
        trial = plan.search_trial(params)
        try:
            row: Mapping[str, Any] | None = tasks.run_trial(trial, placement, scratch, channel)
        except (
            UserError,
            TrialFailed,
        ) as error:  # a failure is a row, and no reason for Tune to try again
            row = execute.ended_row(trial, placement) or execute.record_failure(
                trial, placement, execute.cause_of(error)
            )
        names = ("status", "epochs_done", "seconds", *plan.search.objectives)
        tune.report({name: (row or {"status": "failed"}).get(name) for name in names})

    reserved = tasks.resources(placement)
    per_trial = {"CPU": reserved["num_cpus"], "GPU": reserved["num_gpus"]}
    if (
        placement.workers > 1
    ):  # its workers need the CPUs; a trial that reserves nothing at all is refused
        per_trial = {"CPU": 0, "node:__internal_head__": 0.001}
    tuner = tune.Tuner(
        tune.with_resources(objective, per_trial),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=left,
            max_concurrent_trials=concurrent,
            reuse_actors=placement.gpus > 0
            or "memory_mb" not in plan.search.objectives,  # on CPUs that is the process's peak
            trial_dirname_creator=lambda t: t.trial_id,
        ),
        run_config=tune.RunConfig(
            name=plan.study,
            storage_path=scratch,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=tasks.MAX_LOSSES),
        ),
    )
    tuner.fit()
    if searcher.impossible is not None:
        raise UserError(
            f"The space holds settings that are not possible together: {searcher.impossible}"
        )
    for params in searcher.settings:
        trial = plan.search_trial(params)
        if execute.ended_row(trial, placement) is None:
            reasons = "it was killed, its node was taken away or lost its storage, or the machine ran out of memory"
            execute.record_failure(trial, placement, tasks.lost_cause(reasons))
    if (
        searcher.repeated
    ):  # Optuna has failed trials for settings that were proposed twice; the tables have not
        there = store.read(placement.storage, "trials").to_pylist()
        rebuild(plan, [row for row in there if row["key"] in searcher.tried], placement, journal)
    if searcher.full:
        raise disk.explain()


class _AskAndTell(Searcher):
    """Optuna by its ask-and-tell interface.

    (Ray's own OptunaSearch tells trials that were stopped early as complete, reports by its own count of iterations, and
    knows conditional fields only where nothing was evaluated before.)
    """

    def __init__(
        self,
        plan: Plan,
        rows: Sequence[dict[str, Any]],
        placement: Placement,
        study: optuna.Study,
        disk: CheckpointQuota,
        at_once: int,
    ) -> None:
        super().__init__()
        self.plan, self.placement, self.study, self.disk, self.at_once = (
            plan,
            placement,
            study,
            disk,
            at_once,
        )
        self.space = plan.search.space_at(plan.scale)
        self.tried = {row["key"] for row in rows if row["status"] != "running"}
        self.spent = training_spent(row for row in rows if row["status"] != "running")
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
                    self.study.enqueue_trial(
                        {field: to_optuna(value) for field, value in other.items()}
                    )
                trial = self.study.ask()
                setting = draw(self.space, lambda field, d: suggest(trial, field, d))  # noqa: B023
                key = self.plan.search_trial(setting).key
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
        if self.plan.num_settings:
            candidates = list(itertools.islice(all_settings(self.space), MAX_COUNTED))
            self.random.shuffle(candidates)
        else:
            sampler = optuna.samplers.RandomSampler(seed=self.random.randrange(2**31))
            others = optuna.create_study(sampler=sampler)
            candidates = []
            for _ in range(1000):
                trial = others.ask()
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
        """Tell Optuna what the table says."""
        trial, key = self.asked.pop(trial_id)
        found = result or {}
        self.spent = (
            self.spent[0] + (found.get("epochs_done") or 0),
            self.spent[1] + (found.get("seconds") or 0.0),
        )
        if len(self.plan.search.objectives) == 1:
            for epoch, value in store.curve(self.placement.storage, key).items():
                trial.report(value, epoch)
        state = STATES.get(found.get("status", "failed"), TrialState.FAIL)
        values = [found.get(name) for name in self.plan.search.objectives]
        if state == TrialState.COMPLETE and any(
            value is None or value != value for value in values
        ):
            state = TrialState.FAIL
        self.study.tell(trial, values if state == TrialState.COMPLETE else None, state=state)  # type: ignore[arg-type]

    def _used_up(self) -> bool:
        """Whether the budget of epochs or hours is, with what trials under way have used of it."""
        search = self.plan.search
        if search.max_epochs is None and search.max_hours is None:
            return False
        epochs, seconds = self.spent
        for _, key in self.asked.values():
            done = store.epochs_of(self.placement.storage, key)
            epochs, seconds = (
                epochs + len(done),
                seconds + sum(row["seconds"] or 0.0 for row in done),
            )
        return self.plan.used_up(epochs, seconds)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the tables are the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the tables are the truth."""
