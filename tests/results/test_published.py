"""The paper's tables as they are printed, and what in them cannot be."""

import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from importlib.util import find_spec

import duckdb
import numpy as np
import pytest

from sadcl.data.readers.voc import LABELS
from sadcl.results import published
from tests.test_layers import ROOT


@pytest.fixture(scope="module")
def cells():
    return published.table().to_pylist()


@pytest.fixture(scope="module")
def lines(cells):
    """Values by row of the paper and by metric or label, of the cells that are not a dash."""
    found = {}
    for cell in cells:
        of = found.setdefault(
            (cell["source"], cell["dataset"], cell["method"], cell["test_px"]), {}
        )
        if cell["value"] is not None:
            of[cell["label"] or cell["metric"]] = cell["value"]
    return found


def test_every_row_of_six_tables_is_there(lines):
    rows = Counter((source, dataset) for source, dataset, *_ in lines)
    assert rows == {
        ("Table 1", "coco14"): 21,
        ("Table 3", "voc2007"): 15,
        ("Table 4", "voc2012"): 10,
        ("Table 5", "nuswide"): 10,
        ("Table 6", "vg500"): 11,
        ("Table 7", "coco14"): 6,
        ("Table 7", "nuswide"): 6,
    }


@pytest.mark.parametrize(
    ("row", "figures"),
    [
        (
            ("Table 1", "coco14", "SADCL", 576),
            {"mAP": 86.8, "CP": 86.4, "OF1": 83.2, "OR_top3": 68.7},
        ),
        (("Table 1", "coco14", "RNN-Att", None), {"CP_top3": 79.1, "OF1_top3": 72.0}),
        (
            ("Table 3", "voc2007", "SADCL", 448),
            {"mAP": 96.4, "aeroplane": 100.0, "tvmonitor": 95.3},
        ),
        (("Table 4", "voc2012", "KGGR", 576), {"mAP": 95.6, "diningtable": 88.7}),
        (("Table 5", "nuswide", "CNN-RNN", 448), {"CF1_top3": 34.7, "OF1_top3": 55.2}),
        (("Table 6", "vg500", "SADCL", 576), {"mAP": 40.5, "CF1": 41.0, "CF1_top3": 17.1}),
        (("Table 7", "nuswide", "+PSCL", 448), {"mAP": 65.7, "OF1": 74.9, "CF1": 62.7}),
    ],
)
def test_cells_that_a_reader_looks_up(lines, row, figures):
    assert {name: lines[row][name] for name in figures} == figures


def test_a_dash_is_null_and_a_metric_that_a_table_lacks_is_not_there(cells):
    of = {(c["source"], c["metric"]) for c in cells}
    assert ("Table 7", "CF1_top3") not in of
    assert ("Table 6", "CP") not in of
    (dash,) = [
        c
        for c in cells
        if (c["source"], c["method"], c["metric"]) == ("Table 5", "MulCon", "CF1_top3")
    ]
    assert dash["value"] is None


def harmonic(p, r):
    return 2 * p * r / (p + r)


def test_f1_is_the_harmonic_mean_but_for_the_cells_that_say_so(cells, lines):
    """Up to the rounding of all three."""
    odd = set()
    for row, figures in lines.items():
        for kind, top in (("C", ""), ("O", ""), ("C", "_top3"), ("O", "_top3")):
            p, r, f1 = (figures.get(f"{kind}{name}{top}") for name in ("P", "R", "F1"))
            if p is None or r is None:
                continue
            if not harmonic(p - 0.05, r - 0.05) - 0.051 < f1 < harmonic(p + 0.05, r + 0.05) + 0.051:
                odd.add((*row[2:], f"{kind}F1{top}"))
    assert odd == {
        *(("SADCL", px, f"CF1{top}") for px in (448, 576) for top in ("", "_top3")),
        ("ResNet101", 448, "CF1"),
        ("ResNet101", 448, "CF1_top3"),
        *(("GM-MLIC", 448, f"{kind}F1{top}") for kind in "CO" for top in ("", "_top3")),
        ("CCD-R101", 448, "CF1"),
        ("CCD-R101", 448, "CF1_top3"),
        ("CCD-R101", 576, "CF1"),
        ("SSGRL", 576, "CF1"),
        ("SSGRL", 576, "CF1_top3"),
        ("C-Tran", 576, "OF1_top3"),
    }
    noted = {
        (c["method"], c["test_px"], c["metric"])
        for c in cells
        if c["source_note"] and c["source"] == "Table 1"
    }
    assert noted == odd | {("C-Tran", 576, "OR_top3")}  # which of the two is wrong nobody can tell


def test_map_is_the_mean_of_the_labels_but_for_the_row_that_says_so(cells, lines):
    """Up to the rounding of all 21."""
    rows = {row: f for row, f in lines.items() if row[0] in ("Table 3", "Table 4")}
    odd = {
        row
        for row, f in rows.items()
        if abs(np.mean([f[label] for label in LABELS]) - f["mAP"]) > 0.1
    }
    assert odd == {("Table 3", "voc2007", "GM-MLIC", 448)}
    (note,) = {
        c["source_note"]
        for c in cells
        if (c["source"], c["method"], c["metric"]) == ("Table 3", "GM-MLIC", "mAP")
    }
    assert "is 95.2" in note
    (row,) = odd
    assert np.mean([rows[row][label] for label in LABELS]) == pytest.approx(95.2)


def test_a_row_whose_cells_have_slipped_is_unlike_all_others(cells, lines):
    """Labels that are hard for one method are hard for all."""
    rows = {
        row: np.array([f[label] for label in LABELS])
        for row, f in lines.items()
        if row[0] in ("Table 3", "Table 4")
    }
    alike = {}
    for row, own_L in rows.items():
        others = [
            theirs_L for other, theirs_L in rows.items() if other != row and other[0] == row[0]
        ]
        alike[row] = np.corrcoef(own_L, np.median(others, axis=0))[0, 1]
    slipped = ("Table 3", "voc2007", "SST", 448)
    assert {row for row, r in alike.items() if r < 0.8} == {slipped}
    noted = {
        c["label"]
        for c in cells
        if (c["source"], c["method"]) == ("Table 3", "SST") and c["source_note"]
    }
    own, typical = (
        rows[slipped],
        np.median([values for row, values in rows.items() if row[0] == "Table 3"], axis=0),
    )
    assert {
        label for label, a, b in zip(LABELS, own, typical, strict=True) if abs(a - b) > 5
    } < noted
    first, last = LABELS.index("boat"), LABELS.index("diningtable")
    moved = own.copy()
    moved[first + 1 : last + 2] = own[first : last + 1]
    assert np.corrcoef(np.delete(moved, first), np.delete(typical, first))[0, 1] > 0.95


def test_figures_that_are_printed_twice_agree(lines):
    for metric in ("mAP", "CF1", "OF1"):
        for table, dataset in (("Table 1", "coco14"), ("Table 5", "nuswide")):
            whole, pooled = (
                lines["Table 7", dataset, "SADCL", 448],
                lines["Table 7", dataset, "baseline", 448],
            )
            assert whole[metric] == lines[table, dataset, "SADCL", 448][metric]
            assert pooled[metric] == lines[table, dataset, "ResNet101", 448][metric]


def test_experiments_quote_the_table(lines):
    from experiments import tune_coco, tune_nuswide, tune_vg500, tune_voc2007, tune_voc2012
    from experiments.ablate_components import ablation

    quoted = {
        dataset: experiment.search.published
        for dataset, experiment in {
            "coco14": tune_coco,
            "nuswide": tune_nuswide,
            "vg500": tune_vg500,
            "voc2007": tune_voc2007,
            "voc2012": tune_voc2012,
        }.items()
    }
    for (source, dataset, method, px), figures in lines.items():
        if method == "SADCL" and px == (576 if dataset == "vg500" else 448):
            assert quoted[dataset] == figures["mAP"], source
    arms = {arm: {} for arm in ablation.published}
    for cell in published.table().to_pylist():
        if cell["arm"] is not None and cell["metric"] == "mAP":
            arms[cell["arm"]][cell["dataset"]] = cell["value"]
    assert ablation.published == arms


def test_what_a_row_is_and_what_stands_beside_it(cells):
    ours = {(c["source"], c["dataset"], c["arm"], c["test_px"]) for c in cells if c["is_ours"]}
    assert len(ours) == 8
    assert {arm for source, _, arm, _ in ours if source == "Table 7"} == {"both"}
    beside = {(c["source"], c["method"], c["metric"]): c["beside"] for c in cells}
    assert beside["Table 1", "SADCL", "CF1_top3"] == "trials.test_CF1_macro_top3"
    assert beside["Table 1", "SADCL", "OF1"] == "trials.test_OF1"
    assert beside["Table 1", "MCAR", "CF1"] == "trials.test_CF1"
    assert beside["Table 3", "SADCL", "AP"] == "labels.AP"
    notes = {(c["source"], c["method"]): c["footnote"] for c in cells}
    assert notes["Table 4", "SADCL"] == "pre-trained on COCO"
    assert "reproduced" in notes["Table 6", "TDRG"]
    assert notes["Table 6", "C-Tran"] is None
    assert {c["split"] for c in cells} == {"test"}
    for name, (kind, meaning) in published.COLUMNS.items():
        assert published.table().schema.field(name).type == kind
        assert meaning


def test_one_line_of_sql():
    published_ = published.table()  # noqa: F841
    query = """select method, value from published_ where dataset = 'voc2007' and label = 'bird'
               order by value desc limit 2"""
    assert duckdb.sql(query).fetchall() == [("SADCL", 99.5), ("MulCon", 99.3)]


@pytest.mark.skipif(
    not all(map(find_spec, ("pip", "setuptools"))), reason="pip and setuptools build a wheel"
)
def test_a_wheel_has_it(tmp_path):
    shutil.copytree(ROOT, tmp_path / "sadcl", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT.parent / name, tmp_path)
    words = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        tmp_path,
        tmp_path,
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert {"sadcl/results/published.csv", "sadcl/results/published_AP.csv"} <= set(
        zipfile.ZipFile(wheel).namelist()
    )
