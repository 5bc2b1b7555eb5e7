"""The tables of experiments/FIGURES.md follow from the rows in experiments/rows."""

from __future__ import annotations

import csv
import importlib
import json
from pathlib import Path
from statistics import mean

import pytest

from sadcl.reports.effect_text import difference_text, p_text
from sadcl.reports.rank_agreement import rank_agreement
from sadcl.reports.statistics import compare_arms

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FIGURES = (EXPERIMENTS / "FIGURES.md").read_text().splitlines()
ABLATIONS = {"corel5k": "ablate_photographs", "transfer": "ablate_photographs_transfer"}
SEARCHES = ("corel5k-contrasts", "corel5k-head", "coco-everything")


def rows_of(study):
    """The rows, each with all seeds of a study; empty cells are left out."""
    with (EXPERIMENTS / "rows" / f"{study}.csv").open() as file:
        rows = [{name: text for name, text in row.items() if text} for row in csv.DictReader(file)]
    numbers = ("val_mAP", "test_mAP", "sample_share", "prototype_share")
    return [
        row | {"seed": int(row["seed"])} | {n: float(row[n]) for n in numbers if n in row}
        for row in rows
    ]


def test_every_file_is_tested():
    files = {path.stem for path in (EXPERIMENTS / "rows").iterdir()}
    assert files == {*ABLATIONS, *SEARCHES}


@pytest.mark.parametrize("study", ABLATIONS)
def test_table_of_an_ablation(study, monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    ablation = importlib.import_module(ABLATIONS[study]).ablation
    rows = [row for row in rows_of(study) if row["phase"] == "arm"]
    effects = compare_arms(rows, ablation.baseline, arms=list(ablation.arms), until=ablation.seeds)
    assert {effect.arm for effect in effects} == set(ablation.arms)
    for effect in effects:
        cells = [effect.arm, str(len(effect.seeds)), f"{effect.mean:.2f} ± {effect.half_width:.2f}"]
        if effect.reference:
            cells += [difference_text(effect), p_text(effect)]
        shares = [
            [
                row[column]
                for row in rows
                if (row["arm"], row["dataset"]) == (effect.arm, effect.dataset) and column in row
            ]
            for column in ("sample_share", "prototype_share")
        ]
        cells += [" and ".join(f"{100 * mean(values):.0f}" for values in shares if values)]
        assert any(all(f"| {cell} |" in line for cell in cells if cell) for line in FIGURES), cells


def test_gradient_and_gain():
    trials = [row for row in rows_of("corel5k-contrasts") if row["phase"] == "search"]
    for term, words in (
        ("sample", "Spearman {}, {} to {}; shares"),
        ("prototype", "({}, {} to {};"),
    ):
        shares = [row[f"{term}_share"] for row in trials]
        found = rank_agreement(shares, [row["val_mAP"] for row in trials])
        figures = (f"{value:+.2f}" for value in (found.correlation, found.low, found.high))
        assert words.format(*figures) in " ".join(FIGURES)


@pytest.mark.parametrize("study", SEARCHES)
def test_figures_of_a_search(study):
    rows = rows_of(study)
    confirmed = {}
    for row in rows:
        if row["phase"] == "confirm":
            confirmed.setdefault((row["arm"], row["params"]), []).append(row)
    assert len(confirmed) >= 2
    assert all(json.loads(row["params"]) for row in rows if row["phase"] == "search")
    text = "\n".join(FIGURES)
    for runs in confirmed.values():
        values = [run["test_mAP"] for run in runs]
        assert f"{mean(values):.2f}" in text, values
