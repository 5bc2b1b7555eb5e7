"""Eq. 4 and Eq. 6 against plain loops over random targets.

The draws combine every kind of label, of image and of bank.
"""

import pytest
import torch

from sadcl.losses import prototype_to_sample_loss, sample_to_sample_loss
from tests.losses import test_prototype_to_sample as prototype
from tests.losses import test_sample_to_sample as sample

N, L, P = 5, 5, 4


def draw(seed):
    """Draw targets, rows and a bank.

    Each label has no positive, one, all, only ignored targets or random ones. With odd seeds one
    image is empty. The bank is empty, partly full or full.
    """
    g = torch.Generator().manual_seed(seed)
    targets = torch.randint(-1, 2, (N, L), generator=g)
    for label in range(L):
        kind = int(torch.randint(5, (1,), generator=g))
        if kind < 4:
            targets[:, label] = (0, 0, 1, -1)[kind]
        if kind == 1:
            targets[int(torch.randint(N, (1,), generator=g)), label] = 1
    if seed % 2:
        targets[int(torch.randint(N, (1,), generator=g))] = 0
    valid = torch.rand(N, L, generator=g) < (0.0, 0.4, 1.0)[seed % 3]
    x, c, slots = (
        torch.randn(*shape, P, generator=g, dtype=torch.float64) for shape in ((N, L), (L,), (N, L))
    )
    return (
        x.requires_grad_(),
        targets,
        slots[valid].requires_grad_(),
        valid.nonzero()[:, 1],
        c.requires_grad_(),
    )


@pytest.mark.parametrize("seed", range(24))
def test_both_contrasts_equal_plain_loops(seed):
    x, targets, bank, labels, c = draw(seed)
    normalize, tau = seed % 5 != 4, (0.2, 0.05, 1.0)[seed % 3]
    valid = torch.rand(L, generator=torch.Generator().manual_seed(seed)) < 0.8
    total, count = sample.reference(x, targets, bank, labels, tau=tau, normalize=normalize)
    loss = sample_to_sample_loss(x, targets, bank, labels, temperature=tau, normalize=normalize)
    expected = total / max(count, 1)
    total, count = prototype.reference(x, targets, c, valid, tau=tau, normalize=normalize)
    loss = loss + prototype_to_sample_loss(
        x, targets, c, temperature=tau, normalize=normalize, valid=valid
    )
    expected = expected + total / max(count, 1)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    pairs = (
        torch.autograd.grad(value, (x, bank, c), allow_unused=True) for value in (loss, expected)
    )
    for mine, theirs in zip(*pairs, strict=True):
        theirs = torch.zeros_like(mine) if theirs is None else theirs
        assert (mine - theirs).norm() <= 1e-10 * max(1.0, float(theirs.norm()))


def test_the_draws_hold_every_kind():
    drawn = [draw(seed)[1:4] for seed in range(24)]
    columns = [column.tolist() for targets, *_ in drawn for column in targets.T]
    assert {tuple(sorted(set(column))) for column in columns} >= {
        (0,),
        (1,),
        (-1,),
        (0, 1),
        (-1, 0, 1),
    }
    assert any(column.count(1) == 1 for column in columns)
    assert any(not bool((targets == 1).any(1).all()) for targets, *_ in drawn)
    assert {0, N * L} < {len(labels) for _, _, labels in drawn}
