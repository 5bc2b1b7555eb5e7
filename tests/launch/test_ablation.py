"""Ablations that are refused before anything starts."""

from __future__ import annotations

import dataclasses

import pytest

from sadcl import Ablation, UserError, recipes, run
from tests.launch.mistakes import DEMO, refused


def test_an_ablation_takes_no_budget(capsys):
    both = Ablation(
        name="wrong",
        base=DEMO,
        demo=DEMO,
        arms={"one": {}, "two": {"loss.tau": 0.4}},
        baseline="one",
    )
    with pytest.raises(UserError, match="are for searches"):
        run(both, n_trials=3)
    with pytest.raises(UserError, match="has no demo"):
        run(dataclasses.replace(both, demo=None))


def test_data_sets_that_are_the_same_scenes_are_told(capsys):
    demo = {"small": DEMO, "large": DEMO.override({"data.scene_train": 70})}
    base = {"coco": recipes.coco14()}
    value = Ablation(
        name="a",
        question="?",
        base=base,
        demo=demo,
        baseline="x",
        arms={"x": {}, "y": {"loss.tau": 0.3}},
    )
    assert (
        "Some of the data sets small, large of 'a' are the same; there are only 1: scenes"
        in refused(capsys, search=value).replace("\n", " ")
    )
