"""The paper's Tables 1 and 3 to 7 as a table, for comparison with the trials.

Its Table 2 is in ``sadcl.data.audit.published_counts``. The cells are in two files in the layout of
the paper: ``published.csv``, and ``published_AP.csv`` with the AP of each of VOC's labels.

Source: Ma, Sun, Liu, Cao, Liu, Semantic-Aware Dual Contrastive Learning for Multi-label Image
Classification, ECAI 2023 (arXiv 2307.09715).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv

from sadcl.results.schema import Columns

_FLOAT, _INT, _TEXT = pa.float64(), pa.int64(), pa.string()
COLUMNS: Columns = {
    "source": (_TEXT, "the paper's table: Table 1, ..."),
    "dataset": (_TEXT, "name of the data set, as in trials"),
    "method": (_TEXT, "as printed, SADCL for the paper's own; in Table 7 the arm"),
    "reference": (
        _INT,
        "number in the paper's list of references; null for the paper's own methods",
    ),
    "arm": (_TEXT, "the arm of experiments/ablate_components.py; null outside Table 7"),
    "is_ours": (pa.bool_(), "the whole of SADCL, not one of Table 7's other arms"),
    "split": (_TEXT, "test, which also chose each run's epoch"),
    "metric": (_TEXT, "as printed: mAP, CP ... OF1, the same with _top3, or AP of one label"),
    "label": (_TEXT, "of an AP, by the name that this package uses; null for other metrics"),
    "value": (_FLOAT, "percent; null where the paper prints a dash"),
    "beside": (_TEXT, "the column of trials or labels to compare it with"),
    "train_px": (_INT, "side of the training images in pixels; null where not printed"),
    "test_px": (_INT, "side of the test images in pixels; null where not printed"),
    "backbone": (_TEXT, "null where the paper does not say"),
    "footnote": (_TEXT, "what the asterisk of the method says; null without one"),
    "source_note": (
        _TEXT,
        "why the printed cell cannot be what was measured, or how a garbled row was read; null "
        "where neither applies",
    ),
}
REPRODUCED, FROM_COCO = "reproduced with the paper's own implementation", "pre-trained on COCO"
_FOOTNOTES = {
    3: f"{REPRODUCED}, or {FROM_COCO}: the text has one mark for both",
    4: FROM_COCO,
}
"""What an asterisk says, by the number of the table; :data:`REPRODUCED` in the others."""
_BACKBONES = {
    "SADCL": "ResNet-101",
    "ResNet101": "ResNet-101",
    "ResNet-101": "ResNet-101",
    "CCD-R101": "ResNet-101",
}
_NOT_METRICS = ("table", "mark", "doubtful", "source_note")


@cache
def table() -> pa.Table:
    """Return one row for each cell of the paper's tables, with the columns of :data:`COLUMNS`."""
    lines = [line for name in ("published", "published_AP") for line in _read_lines(name)]
    rows = [
        cell
        for line in sorted(lines, key=lambda line: line["table"])
        for cell in _cells(line, lines)
    ]
    return pa.table(
        {name: pa.array([row[name] for row in rows], kind) for name, (kind, _) in COLUMNS.items()}
    )


def _read_lines(name: str) -> list[dict[str, Any]]:
    path = Path(__file__).with_name(f"{name}.csv")
    options = csv.ConvertOptions(strings_can_be_null=True, null_values=[""])
    lines: list[dict[str, Any]] = csv.read_csv(path, convert_options=options).to_pylist()
    return lines


def _cells(line: dict[str, Any], lines: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the cells of a line whose column is printed in the line's table."""
    number, method = line["table"], line["method"]
    is_marked = line["mark"] is not None
    # Only the authors' own evaluation takes the mean of the labels' F1 for CF1.
    is_macro = number == 7 or method == "SADCL" or (method == "ResNet101" and is_marked)
    common = {
        **{name: line[name] for name in ("dataset", "method", "reference", "train_px", "test_px")},
        "source": f"Table {number}",
        "arm": line.get("arm"),
        "is_ours": method == "SADCL",
        "split": "test",
        "backbone": "ResNet-101" if number == 7 else _BACKBONES.get(method),
        "footnote": _FOOTNOTES.get(number, REPRODUCED) if is_marked else None,
    }
    doubtful = (line["doubtful"] or "").split()
    for column in line:
        if column in common or column in _NOT_METRICS:
            continue
        if all(other[column] is None for other in lines if other["table"] == number):
            continue
        label = column if column.islower() else None  # labels are in lower case, metrics are not
        metric = "AP" if label else column
        counterpart = metric.replace("CF1", "CF1_macro") if is_macro else metric
        yield {
            **common,
            "metric": metric,
            "label": label,
            "value": line[column],
            "beside": "labels.AP" if label else f"trials.test_{counterpart}",
            "source_note": line["source_note"] if column in doubtful or "arm" in doubtful else None,
        }
