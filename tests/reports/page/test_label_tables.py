"""AP by label on the page."""

from __future__ import annotations

import math
import re

import pytest

from sadcl.reports.page import html
from sadcl.reports.page.label_tables import label_tables
from sadcl.reports.page.study import study_data
from sadcl.results import RunWriter
from tests.reports.ablations import ablation


@pytest.fixture
def root(tmp_path):
    """Two arms with two seeds each, of which one has no AP of the label."""
    root = ablation(
        tmp_path, {"stage2": [50.0, 51.0], "both": [50.5, 51.7]}, datasets={"coco14": {}}
    )
    for arm, seed, AP in (
        ("stage2", 0, 40.0),
        ("stage2", 1, 50.0),
        ("both", 0, 47.0),
        ("both", 1, float("nan")),
    ):
        key = f"ab-{arm}-coco14-s{seed}"
        row = study_data(root, "ab").rows[0] | {"arm": arm, "seed": seed, "key": key}
        label = {"split": "test", "label": "cat", "AP": AP, "support": 9.0}
        RunWriter(root, key, row).finish(
            "complete", metrics={"test_mAP": 50.0 + seed}, labels=[label]
        )
    return root


def test_labels_are_compared_over_shared_seeds(root):
    (table,) = label_tables(study_data(root, "ab"))
    (line,) = table.lines
    stage2, both = line.cells
    assert (table.arms, table.num_labels, table.largest_difference) == (("stage2", "both"), 1, 7.0)
    assert (line.label, line.support) == ("cat", 9.0)
    assert (stage2.AP, stage2.num_pairs) == (45.0, 0)
    assert math.isnan(stage2.difference)
    assert (both.AP, both.difference, both.num_pairs) == (47.0, 7.0, 1)
    assert table.findings == (
        (
            "both compared with stage2",
            ("1 seed decides nothing, at least 3 are needed to test a label.",),
        ),
    )


def test_the_page_shows_them(root):
    text = re.sub(r"\s+", " ", html.study_page(root, "ab"))
    assert (
        'cat</th><td class="n">9</td><td class="n">45.0</td>'
        '<td class="n gain" style="--v:100">47.0<small>+7.0<'
    ) in text
