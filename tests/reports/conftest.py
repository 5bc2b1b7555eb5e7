"""Data that several tests read."""

from __future__ import annotations

import numpy as np
import pytest

from sadcl.reports.ablation import ablation_report
from tests.reports.ablations import EVIL, FIGURES, MARKS, PAPER, ablation, add


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A storage with an ablation on two data sets, one of them with a failed and a missing run."""
    tmp_path = tmp_path_factory.mktemp("ablation")
    ablation(tmp_path, FIGURES, marks=MARKS, published=PAPER)
    for arm, value in (("stage2", 60.0), ("both", 61.0)):
        add(tmp_path, arm, 0, value, dataset="nuswide")
    add(tmp_path, "+SSCL", 0, dataset="nuswide", status="failed", cause="Diverged: step 3")
    add(tmp_path, "former", 0, 50.0)
    add(tmp_path, "stage1", 0, 40.0, phase="stage1")
    return str(tmp_path)


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """Names, question, components and cause that contain every special character."""
    tmp_path = tmp_path_factory.mktemp("evil")
    marks, published = {EVIL: [EVIL + "!"]}, {EVIL: {"coco14": 85.6}}
    root = ablation(
        tmp_path,
        {"[base]*": [50.0, 51.0], EVIL: [50.5, 51.7]},
        marks=marks,
        published=published,
        question=EVIL,
    )
    add(root, EVIL, 0, dataset="voc2007", status="failed", cause=f"a\nb {EVIL}")
    return ablation_report(root, "ab")


@pytest.fixture(scope="module")
def arrays():
    """APs of a baseline and an arm, 4 seeds by 8 labels."""
    rng = np.random.default_rng(0)
    base_SL = rng.uniform(40, 60, (4, 8))
    return base_SL, base_SL + rng.normal(0.5, 0.4, (4, 8)) + np.arange(8) / 8
