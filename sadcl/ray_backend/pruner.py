"""Early stopping as an answer to a question: Optuna's pruners on a study in memory.

A trial asks after each epoch and ends by itself, so nothing is killed: its row, its checkpoint and what it had reserved are
in order. (Tune's schedulers kill; see the placement groups and stalls that leaves behind.)
"""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.pruners import BasePruner, MedianPruner, SuccessiveHalvingPruner
from optuna.trial import Trial, TrialState

from sadcl.search.stopping import ASHA, Stopping


class Pruner:
    """Decides which trials of a search stop early, by their held-out mAP at the same epochs.

    Args:
        stopping: the rule.
        history: key, status and held-out mAP by epoch of the trials so far, oldest first.
    """

    def __init__(
        self, stopping: Stopping, history: Sequence[tuple[str, str, dict[int, float]]]
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.rule = str(stopping)
        self.study = optuna.create_study(direction="maximize", pruner=_pruner(stopping))
        self.trials: dict[str, Trial] = {}
        self.verdicts: dict[tuple[str, int], str | None] = {}
        for key, status, values in history:
            for epoch, value in sorted(values.items()):
                self.stops(key, epoch, value)
            self.ended(key, status)

    def stops(self, key: str, epoch: int, value: float) -> str | None:
        """Why the trial is to stop after this epoch; None where it goes on."""
        if key not in self.trials:
            self.trials[key] = self.study.ask()
        trial = self.trials[key]
        if (
            (key, epoch) not in self.verdicts
        ):  # an epoch that is trained again after a loss gets the answer that it had
            trial.report(value, epoch)
            text = f"stopped after epoch {epoch} at {value:.2f} held-out mAP: {self.rule}"
            self.verdicts[key, epoch] = text if trial.should_prune() else None
        return self.verdicts[key, epoch]

    def ended(self, key: str, status: str) -> None:
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


def _pruner(stopping: Stopping) -> BasePruner:
    if isinstance(stopping, ASHA):
        return SuccessiveHalvingPruner(
            min_resource=stopping.min_epochs, reduction_factor=stopping.reduction
        )
    return MedianPruner(n_startup_trials=stopping.min_trials, n_warmup_steps=stopping.min_epochs)
