"""Early stopping as the answer to a question: Optuna's pruners on a study in memory.

A trial asks after each epoch and ends by itself, so that nothing is killed, and its row, its
checkpoint and its reservation are in order. (Tune's schedulers kill trials, which leaves placement
groups behind and makes their successors wait.)
"""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.pruners import BasePruner, MedianPruner, SuccessiveHalvingPruner
from optuna.trial import Trial, TrialState

from sadcl.ray_backend.optuna_study import quiet_optuna
from sadcl.search.pruning_rules import ASHA, PruningRule


class Pruner:
    """Decides which trials of a search stop early, by their held-out mAP at the same epochs.

    Args:
        rule: When a trial stops.
        history: Key, status and held-out mAP by epoch of the trials so far, oldest first.
    """

    def __init__(
        self, rule: PruningRule, history: Sequence[tuple[str, str, dict[int, float]]]
    ) -> None:
        self.rule = str(rule)
        with quiet_optuna():
            self.study = optuna.create_study(direction="maximize", pruner=_pruner(rule))
        self.trials: dict[str, Trial] = {}
        self.reasons: dict[tuple[str, int], str | None] = {}
        for key, status, values in history:
            for epoch, value in sorted(values.items()):
                self.stop_reason(key, epoch, value)
            self.end(key, status)

    def stop_reason(self, key: str, epoch: int, value: float) -> str | None:
        """Take a trial's held-out mAP in percent, and answer why it is to stop, or None.

        If a worker is lost and an epoch is trained again, it gets the same answer as before.
        """
        if key not in self.trials:
            self.trials[key] = self.study.ask()
        trial = self.trials[key]
        if (key, epoch) not in self.reasons:
            trial.report(value, epoch)
            text = f"stopped after epoch {epoch} at {value:.2f} held-out mAP: {self.rule}"
            self.reasons[key, epoch] = text if trial.should_prune() else None
        return self.reasons[key, epoch]

    def end(self, key: str, status: str) -> None:
        """Take note that a trial has ended as ``complete``, ``pruned`` or ``failed``."""
        trial = self.trials.get(key)
        if trial is None or self.study.trials[trial.number].state.is_finished():
            return
        if status == "complete":
            self.study.tell(
                trial, max(self.study.trials[trial.number].intermediate_values.values())
            )
        elif status in ("pruned", "failed"):
            self.study.tell(
                trial, state=TrialState.PRUNED if status == "pruned" else TrialState.FAIL
            )


def _pruner(rule: PruningRule) -> BasePruner:
    if isinstance(rule, ASHA):
        return SuccessiveHalvingPruner(
            min_resource=rule.min_epochs, reduction_factor=rule.reduction
        )
    return MedianPruner(n_startup_trials=rule.min_trials, n_warmup_steps=rule.min_epochs)
