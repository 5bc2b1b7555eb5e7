"""A limit for checkpoints, watched while a search runs."""

from __future__ import annotations

from dataclasses import dataclass

from sadcl import storage, study
from sadcl.console import in_bytes
from sadcl.errors import UserError
from sadcl.results import store
from sadcl.search.plan import best


@dataclass(frozen=True)
class Disk:
    """Bytes that checkpoints below a storage may take.

    Attributes:
        limit: None is none.
        keep: best trials of a study whose checkpoints stay, whatever happens.
    """

    root: str
    limit: float | None
    keep: int

    def make_room(self, name: str) -> bool:
        """Remove checkpoints of a study's worst trials until there is room; the rows stay. Says whether there is now."""
        if self.limit is None or self._used() <= self.limit:
            return True
        rows = [r for r in store.read(self.root, "trials").to_pylist() if r["study"] == name and r["phase"] == "search"]
        kept = {row["key"] for row in best(rows, self.keep)}
        ended = [row for row in rows if row["status"] in ("complete", "pruned") and row["key"] not in kept]
        for row in sorted(ended, key=lambda r: r["val_mAP"] if r["val_mAP"] is not None else -1.0):
            if row["checkpoint"] is not None:
                storage.delete(storage.join(self.root, "checkpoints", row["key"]))
                store.amend(self.root, row["key"], checkpoint=None)
                if self._used() <= self.limit:
                    return True
        return False

    def explain(self) -> UserError:
        """What to say where there is no room."""
        return UserError(
            f"Checkpoints take {in_bytes(self._used())} of the {in_bytes(self.limit or 0)} that they may in {self.root!r}; "
            "those of worse trials are removed already. Raise --max-disk or free some; the same command goes on from here."
        )

    def _used(self) -> int:
        return study.checkpoint_bytes(self.root)["."]
