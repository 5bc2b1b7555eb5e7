"""Which runs become which learning curve."""

from __future__ import annotations

import pytest

from sadcl.reports.page.curves import curves_section
from sadcl.reports.page.study import StudyData


def study_of(num_arms, **row):
    """Make an ablation whose arms have two runs each, and their curves in stage 2."""
    arms = [f"arm {i}" for i in range(num_arms)]
    rows = [
        {"phase": "arm", "arm": arm, "seed": seed, "key": f"{arm}-{seed}", "dataset": "coco14"}
        | {"status": "complete", **row}
        for arm in arms
        for seed in (0, 1)
    ]
    epochs = {
        row["key"]: [{"stage": 2, "epoch": e, "val_mAP": 60.0 + e + row["seed"]} for e in (1, 2)]
        for row in rows
    }
    description = {"kind": "ablation", "baseline": arms[0], "order": [*arms, "never run"]}
    return StudyData("runs", "s", description, rows, epochs, {})


def test_few_arms_share_a_chart_and_the_legend_has_those_with_a_line():
    section = curves_section(study_of(6))
    assert [len(panel.charts) for panel in section.panels] == [1]
    assert section.panels[0].caption == "Held-out mAP after each epoch of stage 2."
    assert not section.tiles
    assert [entry.name for entry in section.legend] == [f"arm {i}" for i in range(6)]
    assert len({(entry.colour, entry.dashes) for entry in section.legend}) == 6


def test_more_than_six_arms_have_a_chart_each_and_need_no_legend():
    section = curves_section(study_of(7))
    assert not section.panels
    assert not section.legend
    (tiles,) = section.tiles
    assert len(tiles.charts) == 7
    assert all(f"runs of arm {i} by" in svg for i, svg in enumerate(tiles.charts))
    assert "stage 2" in tiles.caption
    assert "grey: the means of the others" in tiles.caption
    assert "<title>arm 3, seed 1: 63.00 after epoch 2</title>" in tiles.charts[3]


@pytest.mark.parametrize("status", ["complete", "pruned"])
def test_marks_are_explained_where_there_are_any(status):
    notes = " ".join(curves_section(study_of(2, status=status)).notes)
    assert ("Crosses: runs that were stopped early." in notes) == (status == "pruned")
    assert "Dots" not in notes
