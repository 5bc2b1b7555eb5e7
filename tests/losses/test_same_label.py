"""Eq. 4 without negatives of other labels, in both readings, against plain loops."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sadcl.losses.same_label import label_wise, same_label
from tests.losses.contrast_views import SEEDS, draw, view_of
from tests.losses.test_sample_to_sample import assert_same, value_and_gradient

BLOCK_OF = f"{same_label.__module__}.CHUNK"


def unit(row):
    return row / row.norm()


def logs(anchor, positives, rows, tau):
    """The mean logarithm of the positives' shares, with its minus sign."""
    mass = sum(torch.exp(anchor @ row / tau) for row in rows)
    shares = [torch.log(torch.exp(anchor @ row / tau) / mass) for row in positives]
    return -sum(shares) / len(shares)


def same_label_by_loops(x, targets, bank, bank_labels, tau, anchors="batch+bank"):
    """Sum, number of counted anchors, and number of those of the batch."""
    rows = [(j, unit(x[i, j])) for i in range(len(x)) for j in range(4) if targets[i, j] == 1]
    of_batch = len(rows)
    rows += [(int(j), unit(row)) for row, j in zip(bank, bank_labels, strict=True) if j >= 0]
    total, counted, batch_counted = x.sum() * 0, 0, 0
    for a, (label, anchor) in enumerate(rows[: of_batch if anchors == "batch" else None]):
        positives = [row for c, (j, row) in enumerate(rows) if j == label and c != a]
        if positives:
            total = total + logs(anchor, positives, positives, tau)
            counted, batch_counted = counted + 1, batch_counted + (a < of_batch)
    return total, counted, batch_counted


@pytest.mark.parametrize("chunk", [2, 256])
@pytest.mark.parametrize("anchors", ["batch", "batch+bank"])
@pytest.mark.parametrize("seed", SEEDS)
def test_same_label_equals_plain_loops(monkeypatch, seed, anchors, chunk):
    monkeypatch.setattr(BLOCK_OF, chunk)
    x, targets, bank, labels = draw(seed, bank=7)
    padded = seed % 3 == 0
    if padded:  # three rows, so that they would be positives of each other
        labels[4:] = -1
    view = view_of(x, targets, bank, labels, padded)
    got = same_label(view, temperature=0.2, anchors=anchors)
    total, counted, batch_counted = same_label_by_loops(x, targets, bank, labels, 0.2, anchors)
    assert (int(got.counted), int(got.batch_counted)) == (counted, batch_counted)
    assert counted > 0
    assert_same(value_and_gradient(got.total, x, bank), value_and_gradient(total, x, bank))


def test_without_negatives_nothing_is_pulled():
    """A label with two rows has no gradient, and rows at equal angles have none either."""
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    total, counted, _ = same_label(view_of(x, torch.ones(2, 3)), temperature=0.2)
    assert counted == 6
    assert abs(total.detach()) < 1e-12
    assert float(torch.autograd.grad(total, x)[0].norm()) < 1e-12
    x = torch.eye(3, dtype=torch.float64)[:, None].requires_grad_()
    total, counted, _ = same_label(view_of(x, torch.ones(3, 1)), temperature=0.2)
    assert float(total.detach() / counted) == pytest.approx(math.log(2), abs=1e-12)
    assert float(torch.autograd.grad(total, x)[0].norm()) < 1e-12


def test_same_label_holds_at_most_a_block_of_similarities(monkeypatch):
    monkeypatch.setattr(BLOCK_OF, 16)
    x = torch.randn(30, 10, 4, requires_grad=True)
    view = view_of(x, torch.ones(30, 10), torch.randn(300, 4), torch.randint(10, (300,)))

    class Largest(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, (tuple, list)) else [result]:
                if isinstance(tensor, torch.Tensor):
                    self.seen = max(self.seen, tensor.numel())
            return result

    kept = []
    with (
        Largest() as largest,
        torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor
        ),
    ):
        total = same_label(view, temperature=0.2).total
    assert max(kept) < 600 * 16  # no block is kept for the backward pass
    with largest:
        total.backward()
    assert largest.seen == 600 * 16


def label_wise_by_loops(x, targets, tau):
    total, counted = x.sum() * 0, 0
    for i in range(len(x)):
        for j in range(x.shape[1]):
            known = [n for n in range(len(x)) if n != i and targets[n, j] != -1]
            positives = [unit(x[n, j]) for n in known if targets[n, j] == 1]
            if targets[i, j] == 1 and positives:
                rows = [unit(x[n, j]) for n in known]
                total = total + logs(unit(x[i, j]), positives, rows, tau)
                counted += 1
    return total, counted


@pytest.mark.parametrize("tau", [0.2, 0.02])
@pytest.mark.parametrize("seed", SEEDS)
def test_label_wise_equals_plain_loops(seed, tau):
    x, targets, bank, labels = draw(seed)
    got = label_wise(view_of(x, targets, bank, labels), temperature=tau)
    total, counted = label_wise_by_loops(x, targets, tau)
    assert int(got.counted) == counted > 0
    assert_same(value_and_gradient(got.total, x, bank), value_and_gradient(total, x, bank))


def test_label_wise_pulls_rows_with_the_label_and_pushes_rows_without_it():
    angles = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    x = torch.stack([angles.cos(), angles.sin()], 1)[:, None].requires_grad_()
    total = label_wise(view_of(x, torch.tensor([[1], [1], [0]])), temperature=0.5).total
    (gradient,) = torch.autograd.grad(total, x)
    turned = (-gradient[:, 0] * torch.stack([-angles.sin(), angles.cos()], 1)).sum(1)
    assert turned[1] < 0 < turned[2]  # towards the first, and away from both
    assert total > 0


@pytest.mark.parametrize("contrast", [same_label, label_wise])
@pytest.mark.parametrize("targets", [[[0, 0], [0, 0]], [[1, 0], [0, 1]], [[-1, -1], [-1, 1]]])
def test_no_anchor_with_a_positive_is_a_differentiable_zero(contrast, targets):
    x = torch.randn(2, 2, 3, requires_grad=True)
    got = contrast(view_of(x, torch.tensor(targets)), temperature=0.2)
    got.total.backward()
    assert got.total == got.counted == 0
    assert bool((x.grad == 0).all())


@pytest.mark.parametrize("contrast", [same_label, label_wise])
def test_a_zero_row_and_half_precision(contrast):
    x = torch.randn(32, 3, 8, dtype=torch.bfloat16)
    x[0, 0] = 0
    x.requires_grad_()
    targets = (torch.rand(32, 3) < 0.5).to(torch.int8)
    targets[:2, 0] = 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = contrast(view_of(x, targets), temperature=0.01)
    exact = contrast(view_of(x.detach().double(), targets), temperature=0.01)
    assert got.total.dtype == torch.float32
    torch.testing.assert_close(got.total.double(), exact.total, rtol=1e-4, atol=1e-4)
    got.total.backward()
    assert bool(x.grad.isfinite().all())
    assert bool((x.grad[0, 0] == 0).all())
