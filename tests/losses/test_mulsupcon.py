"""MulSupCon against plain loops, and the weights of pairs that it amounts to."""

import pytest
import torch

from sadcl.losses.mulsupcon import mulsupcon
from tests.losses.contrast_views import (
    SEEDS,
    assert_equals_loops,
    assert_sound,
    draw,
    labels_of,
    log_share,
    others,
    view_of,
)


def reference(x, targets, tau):
    """The loss as it stands: (sum over pairs of image and label, number of those that count)."""
    total, counted = x.sum() * 0, 0
    for i in range(len(x)):
        for j in labels_of(targets, i):
            candidates = [a for a in others(targets, i) if targets[a, j] != -1]
            positives = [p for p in candidates if targets[p, j] == 1]
            if positives:
                logs = [log_share(x, targets, i, p, candidates, tau) for p in positives]
                total, counted = total - sum(logs) / len(positives), counted + 1
    return total, counted


@pytest.mark.parametrize("tau", [0.2, 0.02])
@pytest.mark.parametrize("seed", SEEDS)
def test_equals_plain_loops(seed, tau):
    assert_equals_loops(mulsupcon, reference, seed, tau)


def test_is_sound():
    assert_sound(mulsupcon)


def test_a_pair_weighs_what_its_shared_labels_add_up_to():
    x, targets, *_ = draw(2, images=8)
    total = 0.0
    for i in (i for i in range(len(x)) if labels_of(targets, i)):
        for p in others(targets, i):
            weight = sum(
                1 / sum(j in labels_of(targets, a) for a in others(targets, i))
                for j in labels_of(targets, i) & labels_of(targets, p)
            )
            total = total - weight * log_share(x, targets, i, p, others(targets, i), 0.3)
    got = mulsupcon(view_of(x, targets), temperature=0.3).total
    torch.testing.assert_close(got, total, rtol=1e-12, atol=0)
