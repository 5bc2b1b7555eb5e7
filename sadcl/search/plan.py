"""The plan of a search at one scale, on one data set: its trials, and which are still to run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

from sadcl.config import Config
from sadcl.results.status import Status
from sadcl.search.pruning_rules import rule_to_json
from sadcl.search.ranking import best_trials, winning_trial
from sadcl.search.search import Search
from sadcl.search.settings import MAX_COUNTED, all_settings
from sadcl.search.space import boundary_configs, space_to_json
from sadcl.search.trial import DataContext, Phase, Trial, arm_config, study_name

Rows = Sequence[Mapping[str, Any]]
"""Rows of the trials table: those of the study, with each stage 1 that its trials start from."""


class Work(NamedTuple):
    """The runs that are still to come, and the epochs that they train."""

    runs: int
    epochs: int


@dataclass(frozen=True)
class Plan:
    """The trials of a search at one scale, on one data set.

    Attributes:
        search: the search.
        scale: ``demo`` or ``full``.
        base: the configuration at that scale, with the concrete data set.
        n_trials: the number of settings that the whole study tries.
        digest: the digest of the data, with a part held out.
        whole_digest: the digest of the data with nothing held out, on which the final run trains.
        start: the digest of the checkpoint ``model.start``; empty without one.
        warm_start: the best settings of other studies, which are tried after those that the search
            starts with.
        num_images: the number of images by split, ``train``, ``val`` and ``test``.
    """

    search: Search
    scale: str
    base: Config
    n_trials: int
    digest: str
    whole_digest: str
    start: str = ""
    warm_start: tuple[Mapping[str, Any], ...] = ()
    num_images: Mapping[str, int] = field(default_factory=dict)

    @property
    def study(self) -> str:
        """The name of the study."""
        return study_name(self.search.name, self.scale, [self.base.data.name])

    @property
    def context(self) -> DataContext:
        digests = (self.digest, self.whole_digest, self.start)
        return DataContext(self.study, self.base, *digests, self.num_images)

    @property
    def image_counts(self) -> dict[str, dict[str, int]]:
        """The number of images by data set and split; empty where it is not known."""
        return {self.base.data.name: dict(self.num_images)} if self.num_images else {}

    @property
    def sources(self) -> dict[str, str]:
        """Hash of each module of the user's that its runs import."""
        sources = dict(self.base.sources)
        for config in self.search.variants(self.scale, self.base):
            sources |= config.sources
        return sources

    @property
    def fields(self) -> list[str]:
        """The fields of the configuration that the search sets."""
        return list(self.search.space_at(self.scale))

    def identity(self) -> dict[str, Any]:
        """Return what makes two studies of one name the same study, as plain JSON."""
        search = self.search
        space = space_to_json(search.space_at(self.scale))
        identity = {"name": self.study, "scale": self.scale, **self.context.identity()}
        sources = {"sources": self.sources} if self.sources else {}
        changed = {"confirm_with": dict(search.confirm_with)} if search.confirm_with else {}
        return {**identity, "space": space, **sources, **changed}

    def description(self) -> dict[str, Any]:
        """Return what else a reader of the tables has to know, as plain JSON.

        It may change from one run of the study to the next.
        """
        search = self.search
        return {
            "kind": "search",
            "question": search.question,
            "trials": min(self.n_trials, self.num_settings or self.n_trials),
            "sampler": search.sampler,
            "stopping": rule_to_json(search.pruner),
            "objectives": list(search.objectives),
            "confirm_top": search.confirm_top,
            "confirm_seeds": list(search.confirm_seeds),
            "published": search.published,
            **({"images": self.image_counts} if self.num_images else {}),
        }

    def stage1(self, config: Config) -> Trial | None:
        """Return the stage 1 that a configuration starts from.

        None if it trains no stage 1, or nothing else.
        """
        return self.context.stage1(config) if config.stage2.epochs else None

    def baselines(self) -> list[Trial]:
        """Return the runs that the tuned setting is compared with, over the search's own seed."""
        return [
            self._trial(Phase.BASELINE, arm, arm_config(self.base, changes))
            for arm, changes in self.search.baselines.items()
        ]

    def search_trial(self, params: Mapping[str, Any]) -> Trial:
        """Return the trial of a setting."""
        return self._trial(Phase.SEARCH, "tuned", self.base.override(params), params)

    def controls(self) -> list[Trial]:
        """Return the control over the fresh seeds."""
        if "stage2" not in self.search.baselines:
            return []
        control = arm_config(self.base, self.search.baselines["stage2"])
        return [
            self._trial(Phase.CONFIRM, "stage2", self._confirmed(control, seed))
            for seed in self.search.confirm_seeds
        ]

    def confirmations(self, params: Mapping[str, Any]) -> list[Trial]:
        """Return the runs of a setting over the fresh seeds."""
        setting = self.base.override(params)
        configs = [self._confirmed(setting, seed) for seed in self.search.confirm_seeds]
        return [self._trial(Phase.CONFIRM, "tuned", config, params) for config in configs]

    def _confirmed(self, config: Config, seed: int) -> Config:
        return config.override({**self.search.confirm_with, "seed": seed})

    def final(
        self, params: Mapping[str, Any], stage1: Mapping[str, Any] | None, stage2: Mapping[str, Any]
    ) -> Trial:
        """Return the run of a setting on all training images, with ``confirm_with``.

        It trains for the epochs and reports the weights that the held-out images chose.

        Args:
            params: the values that the search chose.
            stage1: the row of the stage 1 that the setting started from, with ``epoch`` and
                ``weights``; None if there is no stage 1.
            stage2: the row of the setting's trial, likewise; of its only stage if it has one.
        """
        setting = self.base.override(params).override(self.search.confirm_with)
        changes: dict[str, Any] = {"data.holdout": 0.0}
        alone = not setting.stage2.epochs
        for name, stage, row in (
            ("stage1", setting.stage1, stage2 if alone else stage1),
            ("stage2", setting.stage2, None if alone else stage2),
        ):
            if row is not None:
                changes[f"{name}.epochs"] = row["epoch"]
                changes[f"{name}.planned_epochs"] = stage.planned_epochs or stage.epochs
                changes[f"{name}.patience"] = None
        config = setting.override(changes)
        first = None
        if stage1 is not None:
            first = self.stage1(config.override({"optim.report": stage1["weights"]}))
        config = config.override({"optim.report": stage2["weights"]})
        return Trial(self.study, Phase.FINAL, "tuned", config, dict(params), stage1=first)

    def final_of(self, rows: Rows) -> Trial | None:
        """Return the final run of the setting that is the best so far; None until one and its stage
        1 are complete, and where nothing is confirmed.

        It trains for the epochs of the setting's own trial. With ``confirm_with`` these are of
        another configuration. Then it waits for the confirming runs and takes both stages' epochs
        from the one whose epoch is the median, the lower one of two; if all have failed, from the
        trial.
        """
        if not self.search.confirm_seeds:
            return None
        winner = winning_trial(rows, self.search.confirm_top, self.search.confirm_seeds)
        if winner is None:
            return None
        chosen: Mapping[str, Any] = winner
        if self.search.confirm_with:
            keys = {trial.key for trial in self.confirmations(winner["settings"])}
            if not ended_keys(rows) >= keys:
                return None
            complete = [r for r in rows if r["key"] in keys and r["status"] == Status.COMPLETE]
            by_epoch = sorted(complete, key=lambda row: (row["epoch"], row["seed"]))
            chosen = by_epoch[(len(by_epoch) - 1) // 2] if by_epoch else winner
        stage1 = next((row for row in rows if row["key"] == chosen["stage1_key"]), None)
        if stage1 is None and chosen["stage1_key"] is not None:
            return None
        return self.final(winner["settings"], stage1, chosen)

    def early_stage1(self, stage1: Mapping[str, Any] | None) -> Trial | None:
        """Return the stage 1 of the final run if no setting of the space changes it; else None.

        With ``confirm_with`` its epochs are known after the confirmation only.

        Args:
            stage1: as for :meth:`final`.
        """
        search = self.search
        if not search.confirm_seeds or search.confirm_with or not self.shares_stage1:
            return None
        return self.final({}, stage1, {"epoch": self.base.stage2.epochs, "weights": "raw"}).stage1

    @cached_property
    def shares_stage1(self) -> bool:
        """Whether no setting of the space changes stage 1."""
        configs = boundary_configs(self.search.space_at(self.scale), self.base)
        return all(config.stage1_digest() == self.base.stage1_digest() for config in configs)

    @cached_property
    def num_settings(self) -> int:
        """The number of settings in the space; 0 if there are more than ``MAX_COUNTED``."""
        settings = all_settings(self.search.space_at(self.scale))
        count = sum(1 for _ in islice(settings, MAX_COUNTED + 1))
        return count if count <= MAX_COUNTED else 0

    def used_up(self, epochs: int, seconds: float) -> bool:
        """Return whether the trials have trained for so long that no further one starts."""
        most, hours = self.search.max_epochs, self.search.max_hours
        return (most is not None and epochs >= most) or (
            hours is not None and seconds >= 3600 * hours
        )

    def remaining_trials(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Return the number of search trials still to come.

        These are the interrupted ones, and new ones while the budget lasts.
        """
        trials = [row for row in rows if row["phase"] == Phase.SEARCH]
        interrupted = sum(row["status"] == Status.RUNNING for row in trials)
        if self.used_up(*training_spent(trials)):
            return interrupted
        total = min(self.n_trials, self.num_settings or self.n_trials)
        return max(total - len(trials), 0) + interrupted

    def first_settings(self, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the settings to try first that have not been tried yet.

        A setting that leaves fields open counts as tried as soon as a trial has its values,
        whatever the other fields.
        """
        tried = [json.loads(row["params"]).items() for row in rows if row["phase"] == Phase.SEARCH]
        # Through JSON, so that a tuple compares equal to the list that the tables hold.
        settings = [
            json.loads(json.dumps(dict(setting)))
            for setting in (*self.search.start_at(self.scale), *self.warm_start)
        ]
        return [s for s in settings if not any(all(item in t for item in s.items()) for t in tried)]

    def planned_trials(self, rows: Rows) -> list[Trial]:
        """Return the runs that are certain by now, without the search's own trials.

        Confirmations and the final run are among them once the search is over.
        """
        trials = [*self.baselines(), *self.controls()]
        if not self.remaining_trials(rows):
            for row in best_trials(rows, self.search.confirm_top):
                trials += self.confirmations(row["settings"])
            final = self.final_of(rows)
            trials += [final] if final is not None else []
        stages = [self.stage1(self.base), *(trial.stage1 for trial in trials)]
        return list(
            {trial.key: trial for trial in (*stages, *trials) if trial is not None}.values()
        )

    def is_complete(self, rows: Rows) -> bool:
        """Return whether nothing is left to run."""
        ended = ended_keys(rows)
        trials = self.planned_trials(rows)
        if self.search.confirm_seeds:
            is_over = any(trial.phase == Phase.FINAL for trial in trials)
        else:
            is_over = not self.remaining_trials(rows)
        return is_over and ended >= {trial.key for trial in trials}

    def remaining_work(self, rows: Rows) -> Work:
        """Return the runs and epochs that are still to come."""
        ended, trials = ended_keys(rows), self.planned_trials(rows)
        epochs = [trial.epochs for trial in trials if trial.key not in ended]
        stage1, stage2 = self.base.stage1.epochs, self.base.stage2.epochs
        alone = self.search_trial({}).epochs
        has_own = bool(stage1 and stage2 and not self.shares_stage1)
        epochs += [alone + stage1 * has_own] * self.remaining_trials(rows)
        epochs += self._epochs_to_plan(trials)
        return Work(len(epochs), sum(epochs))

    def confirmation_epochs(self, rows: Rows) -> int:
        """Return the epochs with ``confirm_with`` that are still to come, those of stage 1 too."""
        ended, trials = ended_keys(rows), self.planned_trials(rows)
        late = [trial for trial in trials if trial.phase in (Phase.CONFIRM, Phase.FINAL)]
        keys = {run.key for trial in late for run in (trial, trial.stage1) if run is not None}
        planned = sum(t.epochs for t in trials if t.key in keys - ended)
        return planned + sum(self._epochs_to_plan(trials))

    def _epochs_to_plan(self, trials: Iterable[Trial]) -> list[int]:
        """Return the epochs of each confirming and final run that is not among the planned ones."""
        planned = {(trial.phase, trial.arm) for trial in trials}
        if not self.search.confirm_seeds or (Phase.FINAL, "tuned") in planned:
            return []
        config = self.base.override(self.search.confirm_with)
        alone, shared = config.stage2.epochs or config.stage1.epochs, config.stage1.epochs
        runs = len(self.search.confirm_seeds) * self.search.confirm_top
        epochs = [alone] * (runs * ((Phase.CONFIRM, "tuned") not in planned) + 1)
        return [*epochs, shared] if shared and config.stage2.epochs else epochs

    def _trial(
        self, phase: Phase, arm: str, config: Config, params: Mapping[str, Any] | None = None
    ) -> Trial:
        return self.context.trial(phase, arm, config, params)


def ended_keys(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the keys of the runs that have ended, in whatever status."""
    return {row["key"] for row in rows if row["status"] != Status.RUNNING}


def training_spent(rows: Iterable[Mapping[str, Any]]) -> tuple[int, float]:
    """Return the epochs and the seconds that trials have trained."""
    rows = list(rows)
    epochs = sum(row.get("epochs_done") or 0 for row in rows)
    return epochs, sum(row.get("seconds") or 0.0 for row in rows)
