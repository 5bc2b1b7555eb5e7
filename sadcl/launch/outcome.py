"""What a run and a study give back: typed values over rows of the tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sadcl import storage
from sadcl.results import checkpoints, store
from sadcl.search.ranking import ranked_trials


@dataclass(frozen=True, eq=False)
class Run(Mapping[str, Any]):
    """A run that has ended.

    It is also a mapping of its row: ``run["test_mAP"]``, ``run.get("cause")``, ``dict(run)``; only
    ``run["checkpoint"]`` is the URI that :attr:`checkpoint` gives.

    Attributes:
        row: Its row of the trials table, by column.
        storage: Root of tables and checkpoints.
    """

    row: Mapping[str, Any]
    storage: str

    def __getitem__(self, column: str) -> Any:
        return self.checkpoint if column == "checkpoint" else self.row[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self.row)

    def __len__(self) -> int:
        return len(self.row)

    def copy(self) -> dict[str, Any]:
        """The mapping as a dict of its own."""
        return dict(self)

    @property
    def key(self) -> str:
        """Its key in all tables."""
        return str(self.row["key"])

    @property
    def status(self) -> str:
        """``complete``, ``pruned`` or ``failed``."""
        return str(self.row["status"])

    @property
    def checkpoint(self) -> str | None:
        """URI of the selected weights; None if the run failed, or if they were removed."""
        return checkpoints.checkpoint_uri(self.storage, self.row)

    @property
    def best_checkpoint(self) -> str | None:
        """The same as :attr:`checkpoint`, which the held-out images selected."""
        return self.checkpoint

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics by name, such as ``val_mAP`` and ``test_CF1``, as far as the run has them."""
        return {
            name: value
            for name, value in self.row.items()
            if name.startswith(("val_", "test_")) and isinstance(value, int | float)
        }

    def table(self) -> pa.Table:
        """Read its rows of the epochs table, in order."""
        epochs = store.read(self.storage, "epochs", keys=[self.key])
        return epochs.sort_by([("stage", "ascending"), ("epoch", "ascending")])


@dataclass(frozen=True)
class StudyResult:
    """What one or several studies have reached.

    Whatever it does not have itself is that of :meth:`table`, so that ``result["status"]``,
    ``result.num_rows``, ``result.filter(...)`` and ``len(result)`` are those of the table.

    Attributes:
        names: Of the studies, as the tables have them.
        storage: Root of tables and checkpoints.
    """

    names: tuple[str, ...]
    storage: str
    _rows: pa.Table = field(repr=False, compare=False)

    @classmethod
    def read(cls, names: Iterable[str], root: str) -> StudyResult:
        """Read the rows of studies as they are now."""
        studies, rows = tuple(names), store.read(root, "trials")
        rows = rows.filter(pc.is_in(rows["study"], pa.array(studies, pa.string())))
        return cls(studies, storage.absolute(root), rows)

    def table(self) -> pa.Table:
        """The studies' rows of the trials table, as they were at the end of the start."""
        return self._rows

    @property
    def name(self) -> str:
        """The name of the study; several names are joined with commas."""
        return ", ".join(self.names)

    @property
    def trials(self) -> Sequence[Run]:
        """All runs, in the order of their keys."""
        return [Run(row, self.storage) for row in self._rows.to_pylist()]

    @property
    def best(self) -> Run | None:
        """The trial of a search with the highest held-out mAP.

        None for an ablation, for several studies, and where no trial is complete.
        """
        rows = [row for row in self._rows.to_pylist() if row["phase"] == "search"]
        ranked = ranked_trials(rows) if len(self.names) == 1 else []
        return Run(ranked[0], self.storage) if ranked else None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._rows, name)

    def __getitem__(self, key: Any) -> Any:
        return self._rows[key]

    def __len__(self) -> int:
        return len(self._rows)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Let ``pyarrow.table(result)`` and other Arrow libraries read it."""
        return self._rows.__arrow_c_stream__(requested_schema)
