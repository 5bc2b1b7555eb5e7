"""A limit for the bytes of checkpoints in a storage, kept while a search runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sadcl import storage
from sadcl.console import bytes_text
from sadcl.errors import UserError
from sadcl.results import store
from sadcl.results.status import Status
from sadcl.search.plan import Plan
from sadcl.search.ranking import best_trials
from sadcl.search.trial import Phase
from sadcl.study.record import StudyRecord, checkpoint_bytes


@dataclass(frozen=True)
class CheckpointQuota:
    """The bytes that the checkpoints below a storage may take.

    Attributes:
        root: the storage root.
        limit: the bytes that all checkpoints together may take; None for no limit.
        final_bytes: the bytes that a run leaves behind.
        running_bytes: the bytes that a run takes on top of that while it trains.
    """

    root: str
    limit: float | None
    final_bytes: int = 0
    running_bytes: int = 0

    def make_room(self, plan: Plan, concurrent: int) -> bool:
        """Make room for another trial.

        The checkpoints of failed trials go first, then those of the worst ones, until another trial
        fits next to the trials that run and the runs that come after the search. The rows stay, and
        so do the checkpoints of the best trials.

        Args:
            plan: the plan of the search.
            concurrent: the number of trials that run at once, including the new one.

        Returns:
            Whether another trial fits.
        """
        if self.limit is None:
            return True
        sizes = checkpoint_bytes(self.root)
        available = self.limit - concurrent * (self.final_bytes + self.running_bytes)
        # Without rows the number of runs is an upper bound: if it fits, no table need be read.
        if sizes["."] <= available - _runs_after_search(plan, []) * self.final_bytes:
            return True
        rows = StudyRecord(self.root, plan).rows
        available -= _runs_after_search(plan, rows) * self.final_bytes
        used = sizes["."] - sum(
            sizes[row["key"]] for row in rows if row["status"] == Status.RUNNING
        )
        best = {row["key"] for row in best_trials(rows, plan.search.confirm_top)}
        candidates = [
            row for row in rows if row["phase"] == Phase.SEARCH and row["key"] not in best
        ]
        for row in sorted(candidates, key=_worth):
            if used > available and row["status"] != Status.RUNNING and sizes[row["key"]]:
                store.amend(self.root, row["key"], checkpoint=None)
                storage.delete(storage.join(self.root, "checkpoints", row["key"]))
                used -= sizes[row["key"]]
        return used <= available

    def explain(self) -> UserError:
        """Return the error to raise if there is no room."""
        used = bytes_text(checkpoint_bytes(self.root)["."])
        return UserError(
            f"Checkpoints take {used} of the {bytes_text(self.limit or 0)} that they may take in "
            f"{self.root!r}. Those of worse trials are removed already, and another trial, with "
            "the runs after the search, does not fit. Raise --max-disk or free some space; the "
            "same command then resumes the search."
        )


def _runs_after_search(plan: Plan, rows: list[dict[str, Any]]) -> int:
    """Return the number of runs still to come besides the search's own trials."""
    return plan.remaining_work(rows).runs - plan.remaining_trials(rows)


def _worth(row: Mapping[str, Any]) -> tuple[bool, float]:
    """Return the key by which rows are sorted, the least useful checkpoints first."""
    value = row["val_mAP"]
    return row["status"] != Status.FAILED, value if isinstance(value, float) else -1.0
