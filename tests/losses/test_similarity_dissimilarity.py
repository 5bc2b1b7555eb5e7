"""The similarity-dissimilarity loss against plain loops, and the weights of the five relations."""

import math

import pytest
import torch

from sadcl.losses.similarity_dissimilarity import similarity_dissimilarity
from tests.losses.contrast_views import (
    SEEDS,
    assert_equals_loops,
    assert_sound,
    known_sets,
    labels_of,
    log_share,
    others,
    view_of,
)


def reference(x, targets, tau):
    """The loss as it stands: (sum over images, number of those that share a label)."""
    total, counted = x.sum() * 0, 0
    for i in range(len(x)):
        if not labels_of(targets, i):
            continue
        sets = {p: known_sets(targets, i, p) for p in others(targets, i)}
        positives = [p for p, (mine, its) in sets.items() if mine & its]
        for p in positives:
            mine, its = sets[p]
            weight = len(mine & its) / len(mine) / (1 + len(its - mine))
            share = log_share(x, targets, i, p, list(sets), tau)
            total = total - weight * share / len(positives)
        counted += bool(positives)
    return total, counted


@pytest.mark.parametrize("tau", [0.2, 0.02])
@pytest.mark.parametrize("seed", SEEDS)
def test_equals_plain_loops(seed, tau):
    assert_equals_loops(similarity_dissimilarity, reference, seed, tau)


def test_is_sound():
    assert_sound(similarity_dissimilarity)


@pytest.mark.parametrize(
    ("anchor", "other", "weights"),
    [
        ("1100", "0011", (0, 0)),  # disjoint
        ("1101", "1101", (1, 1)),  # equal
        ("1110", "0111", (2 / 3 / 2, 2 / 3 / 2)),  # overlapping
        ("1000", "1110", (1 / 3, 1 / 3)),  # a subset, and as seen from the other: 1 / |S|
        ("1100", "1111", (1 / 3, 1 / 2)),  # the anchor misses none, the other has two more
    ],
)
def test_the_five_relations(anchor, other, weights):
    """Of equal embeddings, the logarithm of a share is minus that of the number of candidates."""
    apart = "00001"  # shares no label with either, and is in both denominators
    rows = [[int(digit) for digit in word] for word in (anchor + "0", other + "0", apart)]
    targets = torch.tensor(rows)
    got = similarity_dissimilarity(view_of(torch.ones(3, 5, 2), targets), temperature=1.0)
    assert float(got.total) == pytest.approx(sum(weights) * math.log(2), abs=1e-6)
