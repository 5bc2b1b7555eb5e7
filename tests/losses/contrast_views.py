"""Views of a step for the tests of contrasts, and what their plain loops share."""

import math

import torch

from sadcl.losses.contrast import ContrastView, positive_index
from sadcl.memory import Memory
from tests.losses.test_sample_to_sample import assert_same, value_and_gradient

SEEDS = range(12)


def view_of(x, targets, bank=None, bank_labels=None, padded=False):
    """The view of a single worker, whose images are all real."""
    bank = x.new_zeros(0, x.shape[2]) if bank is None else bank
    labels = torch.zeros(0, dtype=torch.int64) if bank_labels is None else bank_labels
    index = positive_index(targets)
    memory = Memory(bank.detach(), labels, torch.arange(len(labels)), padded)
    rows = x.flatten(0, 1).index_select(0, index)
    return ContrastView(x, rows, targets, torch.ones(len(targets)), index, bank, memory)


def draw(seed, images=6, labels=4, dim=3, bank=5):
    """Embeddings, targets of all three kinds, a bank and its labels.

    Image 0 has no label; label 0 has one image with odd seeds; in even ones nothing is ignored.
    """
    g = torch.Generator().manual_seed(seed)
    x, rows = (
        torch.randn(*shape, dim, generator=g, dtype=torch.float64).requires_grad_()
        for shape in ((images, labels), (bank,))
    )
    targets = (torch.rand(images, labels, generator=g) < 0.5).to(torch.int8)
    if seed % 2:
        targets[torch.rand(images, labels, generator=g) < 0.2] = -1
        targets[:, 0] = 0
        targets[1, 0] = 1
    targets[0] = targets[0].clamp(max=0)
    return x, targets, rows, torch.randint(labels, (bank,), generator=g)


def labels_of(targets, image):
    return {j for j in range(targets.shape[1]) if targets[image, j] == 1}


def cosine(x, targets, i, p):
    """The cosine of the mean embeddings of two images over the labels that each has."""
    first, second = (
        sum(x[n, j] for j in labels_of(targets, n)) / len(labels_of(targets, n)) for n in (i, p)
    )
    return first @ second / (first.norm() * second.norm())


def others(targets, i):
    """The other images that have a label."""
    return [p for p in range(len(targets)) if p != i and labels_of(targets, p)]


def log_share(x, targets, i, p, candidates, tau):
    mass = sum(torch.exp(cosine(x, targets, i, a) / tau) for a in candidates)
    return torch.log(torch.exp(cosine(x, targets, i, p) / tau) / mass)


def known_sets(targets, i, p):
    """The label sets of two images, without the labels that are ignored in one of the two."""
    ignored = {j for j in range(targets.shape[1]) if -1 in (targets[i, j], targets[p, j])}
    return labels_of(targets, i) - ignored, labels_of(targets, p) - ignored


def assert_equals_loops(contrast, reference, seed, tau):
    """Value, count and gradient; the bank has no part in it."""
    x, targets, bank, bank_labels = draw(seed)
    got = contrast(view_of(x, targets, bank, bank_labels), temperature=tau)
    total, counted = reference(x, targets, tau)
    assert got.total.dtype == got.counted.dtype == torch.float64
    assert int(got.counted) == counted > 0
    assert got.batch_counted is None
    assert_same(value_and_gradient(got.total, x, bank), value_and_gradient(total, x, bank))


def assert_sound(contrast):
    """What holds for each contrast between images, whatever its positives are."""
    # no positive: a differentiable zero
    for targets in ([[0, 0], [0, 0]], [[1, 0], [0, 1]], [[-1, -1], [-1, 1]]):
        x = torch.randn(2, 2, 3, requires_grad=True)
        got = contrast(view_of(x, torch.tensor(targets)), temperature=0.2)
        got.total.backward()
        assert got.total == got.counted == 0
        assert bool((x.grad == 0).all())
    # equal images of one label: the logarithm of their number
    got = contrast(view_of(torch.ones(5, 2, 3), torch.tensor([[1, 0]] * 5)), temperature=0.07)
    assert abs(float(got.total.detach() / got.counted) - math.log(4)) < 1e-5
    # only the embeddings of labels that an image has matter
    x, targets, *_ = draw(0)
    wild = torch.where((targets == 1)[..., None], x, torch.full_like(x, 1e9))
    totals = [contrast(view_of(v, targets), temperature=0.2).total for v in (x, wild)]
    assert totals[0] == totals[1]
    # the order of images and labels does not
    image, label = torch.randperm(len(x)), torch.randperm(x.shape[1])
    moved = contrast(view_of(x[image][:, label], targets[image][:, label]), temperature=0.2)
    torch.testing.assert_close(moved.total, totals[0], rtol=1e-12, atol=1e-12)
    # an image whose embeddings cancel out is compared as zero and gets no gradient
    targets = torch.ones(4, 2)
    x = torch.randn(4, 2, 3)
    x[0, 1] = -x[0, 0]
    x.requires_grad_()
    contrast(view_of(x, targets), temperature=0.01).total.backward()
    assert bool((x.grad[0] == 0).all())
    assert float(x.grad.abs().max()) < 1e4
    # half precision under autocast, at a low temperature
    x = torch.randn(64, 3, 8, dtype=torch.bfloat16, requires_grad=True)
    targets = (torch.rand(64, 3) < 0.5).to(torch.int8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = contrast(view_of(x, targets), temperature=0.01)
    exact = contrast(view_of(x.detach().double(), targets), temperature=0.01)
    assert got.total.dtype == torch.float32
    torch.testing.assert_close(got.total.double(), exact.total, rtol=1e-4, atol=1e-4)
    got.total.backward()
    assert bool(x.grad.isfinite().all())
