"""A limit for checkpoints, watched while a search runs."""

from __future__ import annotations

from dataclasses import dataclass

from sadcl import storage
from sadcl.console import bytes_text
from sadcl.errors import UserError
from sadcl.results import store
from sadcl.search.plan import Plan
from sadcl.search.ranking import best_trials
from sadcl.study import record


@dataclass(frozen=True)
class CheckpointQuota:
    """Bytes that checkpoints below a storage may take.

    Attributes:
        limit: None is none.
        kept, state: bytes that a run leaves, and that it takes besides while it is under way.
    """

    root: str
    limit: float | None
    kept: int = 0
    state: int = 0

    def make_room(self, plan: Plan, at_once: int) -> bool:
        """Remove what failed trials and the worst ones left until another fits, beside those that run and what is still
        to come after the search; rows stay, and so does what the best have. Says whether it fits.

        Args:
            at_once: trials that run at once, the new one among them.
        """
        if self.limit is None:
            return True
        taken = record.checkpoint_bytes(self.root)
        most_beside = plan.left([])[0] - plan.left_to_try([])
        if taken["."] + at_once * (self.kept + self.state) + most_beside * self.kept <= self.limit:
            return True  # whatever was run: the tables need not be read before each trial
        rows = record.study_rows(self.root, plan)
        beside = plan.left(rows)[0] - plan.left_to_try(rows)
        most = self.limit - at_once * (self.kept + self.state) - beside * self.kept
        used = taken["."] - sum(taken[row["key"]] for row in rows if row["status"] == "running")
        kept = {row["key"] for row in best_trials(rows, plan.search.confirm_top)}
        for row in sorted(
            (row for row in rows if row["phase"] == "search" and row["key"] not in kept), key=_worth
        ):
            if used > most and row["status"] != "running" and taken[row["key"]]:
                store.amend(self.root, row["key"], checkpoint=None)
                storage.delete(storage.join(self.root, "checkpoints", row["key"]))
                used -= taken[row["key"]]
        return used <= most

    def explain(self) -> UserError:
        """What to say where there is no room."""
        return UserError(
            f"Checkpoints take {bytes_text(record.checkpoint_bytes(self.root)['.'])} of the {bytes_text(self.limit or 0)} that "
            f"they may in {self.root!r}, those of worse trials are removed already, and another trial, with what comes after "
            "the search, does not fit. Raise --max-disk or free some; the same command goes on from here."
        )


def _worth(row: dict[str, object]) -> tuple[bool, float]:
    value = row["val_mAP"]
    return row["status"] != "failed", value if isinstance(value, float) else -1.0
