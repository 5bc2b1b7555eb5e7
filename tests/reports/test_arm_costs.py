"""What arms cost, and arms that are compared with others than the baseline, in the table."""

from __future__ import annotations

import pytest

from sadcl.reports.ablation import ablation_report
from sadcl.reports.ablation_documents import markdown
from sadcl.reports.ablation_text import ablation_notes, ablation_sentences, ablation_table
from sadcl.reports.arm_costs import ArmCost, arm_costs, cost_cells
from tests.reports.ablations import FIGURES, ablation

ROWS = [
    {
        "dataset": "coco14",
        "arm": "both",
        "status": status,
        "images_per_second": speed,
        "memory_mb": memory,
    }
    for status, speed, memory in (
        ("complete", 100.0, 500.0),
        ("complete", 300.0, None),
        ("failed", 999.0, 999.0),
    )
]
COSTS = {"coco14": {"both": {"parameters": 2.5e6, "gflops": 31.25}, "stage2": {}}}


def test_means_are_over_complete_runs_that_have_the_figure():
    costs = arm_costs(COSTS, ROWS, {})
    assert costs["coco14", "both"] == ArmCost(2.5e6, 31.25, 200.0, 500.0)
    assert costs["coco14", "stage2"] == ArmCost()


def test_an_arm_that_is_a_shared_stage_1_costs_what_that_does():
    row = {**ROWS[0], "images_per_second": 0.0, "memory_mb": 900.0, "stage1_key": "k"}
    costs = arm_costs(COSTS, [row], {"k": {"images_per_second": 120.0, "memory_mb": 800.0}})
    assert costs["coco14", "both"] == ArmCost(2.5e6, 31.25, 120.0, 800.0)


def test_cells_are_rounded_and_empty_where_nothing_is_known():
    assert list(cost_cells(ArmCost(2.5e6, 31.25, 1200.4, None)).values()) == [
        "2.5",
        "31.2",
        "1,200",
        "",
    ]


def test_the_table_has_the_costs_where_the_study_asks_for_them(tmp_path):
    report = ablation_report(ablation(tmp_path / "a", FIGURES, costs=COSTS), "ab")
    line = next(r for r in ablation_table(report, "coco14") if r["arm"] == "both")
    assert (line["parameters (M)"], line["GFLOPs"]) == ("2.5", "31.2")
    assert "a multiplication and an addition being two" in " ".join(ablation_notes(report))
    assert "GFLOPs" in markdown(report)
    plain = ablation_report(ablation(tmp_path / "b", FIGURES), "ab")
    assert "GFLOPs" not in markdown(plain)


def test_an_arm_is_compared_with_its_reference(tmp_path):
    references = {"worse": "+SSCL"}
    report = ablation_report(ablation(tmp_path, FIGURES, references=references), "ab")
    by_arm = {r["arm"]: r for r in ablation_table(report, "coco14")}
    assert [r["compared with"] for r in by_arm.values()] == ["", "stage2", "stage2", "+SSCL"]
    effect = next(e for e in report.effects if e.arm == "worse")
    pairs = zip(FIGURES["worse"], FIGURES["+SSCL"], strict=True)
    assert effect.differences == pytest.approx([one - other for one, other in pairs])
    text = " ".join(ablation_sentences(report))
    assert "On coco14, worse compared with +SSCL: -10.07 mAP" in text
    assert "On coco14, both compared with stage2: +1.00 mAP" in text
    assert "Differences from the arm that each is compared with" in " ".join(ablation_notes(report))
    other = ablation_report(str(tmp_path), "ab", baseline="both")
    assert {e.reference for e in other.effects} == {"", "both"}
