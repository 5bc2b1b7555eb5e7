"""The paper's Tables 1 and 3 to 7 as a table, to stand beside the trials; its Table 2 is in ``sadcl.data.audit.published_counts``.

Source: Ma, Sun, Liu, Cao, Liu, Semantic-Aware Dual Contrastive Learning for Multi-label Image Classification, ECAI 2023
(arXiv 2307.09715). The cells are in two files in the layout of the paper: ``published.csv``, and ``published_AP.csv`` with
the AP of each of VOC's labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv

_F, _I, _S = pa.float64(), pa.int64(), pa.string()
COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "source": (_S, "the paper's table: Table 1, ..."),
    "dataset": (_S, "as in trials"),
    "method": (_S, "as printed, SADCL for the paper's own; in Table 7 the arm"),
    "reference": (_I, "number in the paper's list"),
    "arm": (_S, "of experiments/ablate_components.py; Table 7 only"),
    "is_ours": (pa.bool_(), "the whole of SADCL, not one of Table 7's other arms"),
    "split": (_S, "test, which chose each run's epoch too"),
    "metric": (_S, "as printed: mAP, CP ... OF1, the same with _top3, or AP of one label"),
    "label": (_S, "of an AP, by the name that our labels have"),
    "value": (_F, "percent; null where the paper prints a dash"),
    "beside": (_S, "the column of ours that it stands beside"),
    "train_px": (_I, "side of the training images; null where not printed"),
    "test_px": (_I, "side of the test images; null where not printed"),
    "backbone": (_S, "null where the paper does not say"),
    "footnote": (_S, "what the method's asterisk says"),
    "source_note": (
        _S,
        "why the cell cannot be what was measured, or how the garbled row was read; it stays as printed",
    ),
}
REPRODUCED, FROM_COCO = "reproduced with the paper's own implementation", "pre-trained on COCO"
_FOOTNOTES = {
    3: f"{REPRODUCED}, or {FROM_COCO}: the text has one mark for both",
    4: FROM_COCO,
}
_BACKBONES = {
    "SADCL": "ResNet-101",
    "ResNet101": "ResNet-101",
    "ResNet-101": "ResNet-101",
    "CCD-R101": "ResNet-101",
}


@cache
def table() -> pa.Table:
    """One row a cell, with the columns of ``COLUMNS``."""
    lines = [line for name in ("published", "published_AP") for line in _lines(name)]
    rows = [
        cell
        for line in sorted(lines, key=lambda line: line["table"])
        for cell in _cells(line, lines)
    ]
    return pa.table(
        {name: pa.array([row[name] for row in rows], kind) for name, (kind, _) in COLUMNS.items()}
    )


def _lines(name: str) -> list[dict[str, Any]]:
    path = Path(__file__).with_name(f"{name}.csv")
    lines: list[dict[str, Any]] = csv.read_csv(
        path, convert_options=csv.ConvertOptions(strings_can_be_null=True, null_values=[""])
    ).to_pylist()
    return lines


def _cells(line: dict[str, Any], lines: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    number, method = line["table"], line["method"]
    marked = line["mark"] is not None
    same = number == 7 or method == "SADCL" or (method == "ResNet101" and marked)
    about = {
        **{name: line[name] for name in ("dataset", "method", "reference", "train_px", "test_px")},
        "source": f"Table {number}",
        "arm": line.get("arm"),
        "is_ours": method == "SADCL",
        "split": "test",
        "backbone": "ResNet-101" if number == 7 else _BACKBONES.get(method),
        "footnote": _FOOTNOTES.get(number, REPRODUCED) if marked else None,
    }
    doubtful = (line["doubtful"] or "").split()
    printed = [
        c for c in line if any(other[c] is not None for other in lines if other["table"] == number)
    ]
    for column in printed:
        if column in about or column in ("table", "mark", "doubtful", "source_note"):
            continue
        label = column if column.islower() else None  # no metric is
        metric = "AP" if label else column
        yield {
            **about,
            "metric": metric,
            "label": label,
            "value": line[column],
            "beside": "labels.AP"
            if label
            else f"trials.test_{metric.replace('CF1', 'CF1_macro') if same else metric}",
            "source_note": line["source_note"] if column in doubtful or "arm" in doubtful else None,
        }
