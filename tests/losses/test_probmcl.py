"""ProbMCL's rule for positives against plain loops, and where its threshold lies."""

import math
from functools import partial

import pytest
import torch

from sadcl.losses.probmcl import probmcl
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


def reference(x, targets, tau, alpha):
    """The loss as it stands: (sum over images, number of those that have a positive)."""
    total, counted = x.sum() * 0, 0
    for i in range(len(x)):
        if not labels_of(targets, i):
            continue
        sets = {p: known_sets(targets, i, p) for p in others(targets, i)}
        positives = [
            p
            for p, (mine, its) in sets.items()
            if mine | its and len(mine & its) / len(mine | its) >= alpha
        ]
        if positives:
            logs = [log_share(x, targets, i, p, list(sets), tau) for p in positives]
            total, counted = total - sum(logs) / len(positives), counted + 1
    return total, counted


@pytest.mark.parametrize("alpha", [0.2, 0.5])
@pytest.mark.parametrize("seed", SEEDS)
def test_equals_plain_loops(seed, alpha):
    assert_equals_loops(
        partial(probmcl, alpha=alpha), partial(reference, alpha=alpha), seed, tau=0.2
    )


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_is_sound(alpha):
    assert_sound(partial(probmcl, alpha=alpha))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("shared", "union"), [(1, 3), (2, 3), (3, 5), (7, 10), (9, 11), (4, 4)])
def test_an_overlap_of_exactly_alpha_is_enough(shared, union, dtype):
    targets = torch.zeros(2, union, dtype=torch.int64)
    targets[0, :shared] = targets[1] = 1
    view = view_of(torch.ones(2, union, 2, dtype=dtype), targets)
    alpha = shared / union
    assert probmcl(view, temperature=1.0, alpha=alpha).counted == 2
    if alpha < 1:
        assert probmcl(view, temperature=1.0, alpha=alpha + 1e-6).counted == 0


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.01, math.nan])
def test_a_threshold_that_cannot_be_meant_is_refused(alpha):
    view = view_of(torch.ones(2, 2, 2), torch.ones(2, 2))
    with pytest.raises(ValueError, match="0 < alpha <= 1 must hold, but got"):
        probmcl(view, temperature=1.0, alpha=alpha)
