"""The numbers and classes of Fig. 6, against arithmetic."""

import numpy as np
import pytest

from sadcl.figures.representations import classes_of, purity, silhouette


def test_purity_and_silhouette_by_cosine():
    angle = np.radians([0, 2, 4, 90, 93])
    rows = np.stack([np.cos(angle), np.sin(angle)], 1) * np.array([1, 5, 9, 2, 7])[:, None]
    labels = np.array([0, 0, 0, 1, 1])
    assert purity(rows, labels, 1) == 100
    assert purity(rows, labels, 2) == pytest.approx(100 * (3 * 2 + 2 * 1) / 10)
    assert silhouette(rows, labels) > 0.99
    assert silhouette(rows, np.array([0, 1, 0, 1, 0])) < 0
    assert np.isnan(silhouette(rows, np.array([0, 0, 0, 0, 1])))


def test_many_labels_are_shown_by_superclass_or_by_the_most_frequent():
    few = [f"label {i}" for i in range(3)]
    kinds, kind = classes_of(np.array([2, 2, 1, 2]), few)
    assert kinds == ["label 2", "label 1", "label 0"]
    assert kind.tolist() == [0, 0, 1, 0]
    many = [f"label {i}" for i in range(30)]
    kinds, kind = classes_of(np.array([29, 29, 3, 28]), many)
    assert len(kinds) == 24
    assert (kinds[:3], kinds[-1]) == (["label 29", "label 3", "label 28"], "others")
    assert kind.tolist() == [0, 0, 1, 2]
    coco = "person bicycle car motorcycle airplane bus train truck bench bird cat dog horse sheep "
    coco += "cow elephant bear zebra"
    coco = [
        *coco.split(),
        "giraffe",
        "backpack",
        "umbrella",
        "handbag",
        "tie",
        "suitcase",
        "frisbee",
    ]
    kinds, kind = classes_of(np.array([0, 2, 3, 24]), coco)
    assert kinds == ["person", "vehicle", "outdoor", "animal", "accessory", "sports"]
    assert kind.tolist() == [0, 1, 1, 5]
