"""Figures of a store that are not finite numbers: faults, or nothing to measure them on."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sadcl.results.file_faults import Fault

EPOCH_FIGURES = ("val_mAP", "loss")
MEASURED_COLUMNS = ("split", "AP")
"""Columns of the table labels that tell whether a split could be measured."""


@dataclass
class Figures:
    """What tells whether a figure could be measured, collected file by file.

    A mean over the labels is NaN where no label has a positive in the split: competitions keep the
    labels of their test images, for example. Such a run is healthy.

    Attributes:
        splits: By key and split, whether any label has an average precision there.
        epochs: File, stage, epoch and name of each epoch's figure that is not finite, by key.
        measured_epochs: Keys of the runs that have an epoch with a finite val_mAP.
    """

    splits: dict[tuple[str, str], bool] = field(default_factory=dict)
    epochs: dict[str, list[tuple[str, int, int, str]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    measured_epochs: set[str] = field(default_factory=set)

    def add_labels(self, rows: pa.Table) -> None:
        """Collect the rows of a file of the table labels."""
        if not set(MEASURED_COLUMNS) <= set(rows.column_names):
            return
        finite = pc.fill_null(pc.is_finite(pc.cast(rows["AP"], pa.float64())), False)
        for split in rows["split"].drop_null().unique().to_pylist():
            is_split = pc.equal(rows["split"], pa.scalar(split, pa.string()))
            measured = set(rows["key"].filter(pc.and_(is_split, finite)).unique().to_pylist())
            for key in rows["key"].filter(is_split).unique().to_pylist():
                self.splits[key, split] = self.splits.get((key, split), False) or key in measured

    def add_epochs(self, uri: str, rows: pa.Table) -> None:
        """Collect the rows of a file of the table epochs."""
        for name in EPOCH_FIGURES:
            if name not in rows.column_names:
                continue
            finite = pc.is_finite(pc.cast(rows[name], pa.float64()))
            for row in rows.filter(pc.fill_null(pc.invert(finite), False)).to_pylist():
                self.epochs[row["key"]].append((uri, row["stage"], row["epoch"], name))
            if name == "val_mAP":
                measured = rows["key"].filter(pc.fill_null(finite, False))
                self.measured_epochs |= set(measured.unique().to_pylist())

    def check(self, trials: Mapping[str, tuple[str, Mapping[str, Any]]]) -> Iterator[Fault]:
        """Check the epochs and the trials, whose files and rows are given by key."""
        unmeasured: dict[str, list[tuple[str, str]]] = defaultdict(list)
        yield from self._check_epochs(trials, unmeasured)
        for key, (uri, row) in trials.items():
            for split in ("val", "test"):
                value = row.get(f"{split}_mAP")
                if value is None or (math.isfinite(value) and 0 <= value <= 100):
                    continue
                if math.isnan(value) and self.splits.get((key, split)) is False:
                    unmeasured[split].append((uri, key))
                    continue
                yield Fault(
                    uri,
                    f"gives {key!r} {split}_mAP = {value}, which is not a percentage",
                    "No comparison counts it; the run's labels may show the cause.",
                )
        for split, places in unmeasured.items():
            yield _note(split, places)

    def _check_epochs(
        self, trials: Iterable[str], unmeasured: Mapping[str, list[tuple[str, str]]]
    ) -> Iterator[Fault]:
        faults: dict[tuple[str, str], list[str]] = defaultdict(list)
        for key, epochs in self.epochs.items():
            # a run that has not ended has no rows of its labels yet
            nothing_to_measure = not self.splits.get((key, "val"), key in self.measured_epochs)
            losses_are_finite = all(name != "loss" for *_, name in epochs)
            if nothing_to_measure and losses_are_finite:
                if (key, "val") not in self.splits or key not in trials:
                    unmeasured["val"].append((epochs[0][0], key))
                continue
            for uri, stage, epoch, name in epochs:
                faults[uri, name].append(f"{key} stage {stage} epoch {epoch}")
        for (uri, name), places in faults.items():
            yield Fault(
                uri,
                f"has {len(places)} epochs whose {name} is not a finite number, the first is "
                f"{places[0]}",
                "That run's figures are in doubt.",
            )


def _note(split: str, places: list[tuple[str, str]]) -> Fault:
    """Return the note about the runs whose split shows no label."""
    images = {"val": "held-out", "test": "test"}[split]
    (uri, first), others = places[0], len({key for _, key in places}) - 1
    more = f" (and {others} more)" if others else ""
    return Fault(
        uri,
        f"gives {first!r}{more} {split}_mAP = nan, which is no fault: no label has a positive "
        f"among the {images} images",
        "No comparison counts it.",
        is_note=True,
    )
