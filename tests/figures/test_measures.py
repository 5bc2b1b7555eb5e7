"""The numbers beside the figures, against enumeration and arithmetic."""

import itertools

import numpy as np
import pytest
from scipy.stats import spearmanr

from sadcl.data.readers import scenes
from sadcl.data.readers.label_groups import groups_of
from sadcl.figures.drawing import look_of
from sadcl.figures.prototypes import log_odds, mantel, together
from sadcl.figures.representations import kinds_of, purity, silhouette


def symmetric(rng, labels):
    matrix = rng.normal(size=(labels, labels))
    return matrix + matrix.T


def test_mantel_is_spearman_and_its_p_that_of_all_orders():
    rng = np.random.default_rng(1)
    one = symmetric(rng, 5)
    other = one + symmetric(rng, 5)
    upper = np.triu_indices(5, 1)
    found = mantel(one, other, permutations=20_000)
    assert found.rho == pytest.approx(spearmanr(one[upper], other[upper]).statistic)
    orders = itertools.permutations(range(5))
    each = [spearmanr(one[np.ix_(o, o)][upper], other[upper]).statistic for o in orders]
    assert found.p == pytest.approx(np.mean(np.array(each) >= found.rho - 1e-12), abs=0.01)
    assert mantel(one, other) == mantel(one, other)
    assert np.isnan(mantel(np.ones((5, 5)), other).rho)


def test_what_occurs_together():
    targets = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, -1]], dtype=np.int8)
    shares = together(targets)
    assert shares[0, 1] == shares[1, 0] == 0.5  # P(1 | 0) = 2 / 4, P(0 | 1) = 1
    assert shares[0, 2] == 0
    odds = log_odds(targets)
    assert odds[0, 1] == pytest.approx(
        np.log((2.5 * 1.5) / (2.5 * 0.5))
    )  # 2 both, 1 neither, 2 only the first
    assert (
        odds[0, 2] == odds[2, 0] == pytest.approx(np.log((0.5 * 0.5) / (3.5 * 1.5)))
    )  # the ignored image is out


def test_purity_and_silhouette_by_cosine():
    angle = np.radians([0, 2, 4, 90, 93])
    rows = np.stack([np.cos(angle), np.sin(angle)], 1) * np.array([1, 5, 9, 2, 7])[:, None]
    labels = np.array([0, 0, 0, 1, 1])
    assert purity(rows, labels, 1) == 100
    assert purity(rows, labels, 2) == pytest.approx(100 * (3 * 2 + 2 * 1) / 10)
    assert silhouette(rows, labels) > 0.99
    assert silhouette(rows, np.array([0, 1, 0, 1, 0])) < 0
    assert np.isnan(silhouette(rows, np.array([0, 0, 0, 0, 1])))


def test_superclasses():
    scene = [label.name for label in scenes.LABELS]
    assert groups_of(scene) == {label.name: label.group for label in scenes.LABELS}
    assert groups_of(["car", "boat"]) == {"car": "street", "boat": "sea"}  # scenes have both
    assert groups_of(["car", "boat", "bicycle"]) == {
        "car": "vehicle",
        "boat": "vehicle",
        "bicycle": "vehicle",
    }
    assert groups_of(["aeroplane", "sofa"]) == {"aeroplane": "vehicle", "sofa": "indoor"}
    assert groups_of(["car", "my label"]) is None


def test_looks_differ():
    assert len({(look["color"], look["marker"]) for look in map(look_of, range(132))}) == 132


def test_many_labels_are_shown_by_superclass_or_by_the_most_frequent():
    few = [f"label {i}" for i in range(3)]
    kinds, kind = kinds_of(np.array([2, 2, 1, 2]), few)
    assert kinds == ["label 2", "label 1", "label 0"]
    assert kind.tolist() == [0, 0, 1, 0]
    many = [f"label {i}" for i in range(30)]
    kinds, kind = kinds_of(np.array([29, 29, 3, 28]), many)
    assert len(kinds) == 24
    assert (kinds[:3], kinds[-1]) == (["label 29", "label 3", "label 28"], "others")
    assert kind.tolist() == [0, 0, 1, 2]
    coco = "person bicycle car motorcycle airplane bus train truck bench bird cat dog horse sheep cow elephant bear zebra"
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
    kinds, kind = kinds_of(np.array([0, 2, 3, 24]), coco)
    assert kinds == ["person", "vehicle", "outdoor", "animal", "accessory", "sports"]
    assert kind.tolist() == [0, 1, 1, 5]
