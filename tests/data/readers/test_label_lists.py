"""The labels of published checkpoints: their number and their order."""

from __future__ import annotations

import json

from sadcl.data.readers import label_groups
from sadcl.data.readers.label_lists import LABELS
from sadcl.training.checkpoint import _label_pairs

VOC_IN_COCO = [4, 1, 14, 8, 39, 5, 2, 15, 56, 19, 60, 16, 17, 3, 0, 58, 18, 57, 6, 62]
"""Where the published code, which starts VOC from COCO, has VOC's labels among COCO's."""


def test_each_list_has_its_number_of_names():
    numbers = {name: len(set(labels)) for name, labels in LABELS.items()}
    assert numbers == {"coco14": 80, "voc2007": 20, "voc2012": 20, "nuswide": 81, "vg500": 500}
    assert all(len(labels) == numbers[name] for name, labels in LABELS.items())


def test_orders():
    assert label_groups.groups_of(LABELS["coco14"])
    assert LABELS["coco14"][::79] == ("person", "toothbrush")
    assert _label_pairs(LABELS["voc2007"], LABELS["coco14"]) == list(enumerate(VOC_IN_COCO))
    for name in ("voc2012", "nuswide", "vg500"):
        assert list(LABELS[name]) == sorted(LABELS[name])


def test_coco_is_in_the_publishers_order(photographs):
    content = json.loads((photographs / "annotations" / "instances_val2017.json").read_text())
    categories = sorted(content["categories"], key=lambda category: category["id"])
    assert tuple(category["name"] for category in categories) == LABELS["coco14"]
