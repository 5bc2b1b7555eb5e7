"""The tables of a page, as rows of cells."""

from __future__ import annotations

import pytest

from sadcl.reports.page.study import StudyData, study_data
from sadcl.reports.page.tables import cost_table, leaderboard
from tests.reports.ablations import ablation


def costs(*seconds, gpus=0.0):
    shared = {"arm": "a", "images": 7, "memory_mb": 9.0, "gpu_hours": None, "workers": 1}
    rows = [
        {"phase": f"phase {i}", "seconds": value, "gpus": gpus, **shared}
        for i, value in enumerate(seconds)
    ]
    return cost_table(StudyData("runs", "s", {}, rows, {}, {}))


def test_durations_are_in_minutes_where_hours_would_be_0_00():
    assert [line["minutes"] for line in costs(12.0, 7200.0)] == ["0.20", "120.00", "120.20"]
    assert [line["hours"] for line in costs(20.0, 7200.0)] == ["0.01", "2.00", "2.01"]


def test_gpu_hours_are_listed_where_there_was_a_gpu():
    assert not any("GPU" in name for name in costs(7200.0)[0])
    assert costs(7200.0, gpus=1.0)[0]["GPU hours"] == "2.00"


@pytest.mark.parametrize("name", ["baseline", "Baseline"])
def test_an_arm_called_baseline_is_told_apart_from_what_the_others_compare_with(tmp_path, name):
    root = ablation(tmp_path, {"stage2": [50.0, 51.0, 52.5], name: [40.0, 41.1, 42.4]})
    study = study_data(root, "ab")
    (rows,) = leaderboard(study, study.comparison()).values()
    assert [row["arm"] for row in rows] == ["stage2", f"the arm “{name}”"]
    assert rows[0]["difference (95 %, Bonferroni)"] == "reference"
    assert rows[1]["difference (95 %, Bonferroni)"].startswith("-10.00 (")
