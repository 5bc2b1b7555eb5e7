"""Eq. 6 against plain loops, and what holds whatever the values."""

import math

import pytest
import torch

from sadcl.losses import prototype_to_sample_loss
from sadcl.losses.prototype_to_sample import similarities
from tests.conftest import prototype_sum


def reference(x, targets, prototypes, valid, *, tau, normalize):
    """Eq. 6 as it stands, over labels with a positive and a prototype: (sum, number of them)."""
    total, count = x.sum() * 0, 0
    for j in range(x.shape[1]):
        positive, everyone = [], []
        for i in range(len(x)):
            row, prototype = x[i, j], prototypes[j]
            if normalize:
                row, prototype = row / row.norm(), prototype / prototype.norm()
            term = torch.exp(prototype @ row / tau)
            if targets[i, j] == 1:
                positive.append(term)
            if targets[i, j] != -1:
                everyone.append(term)
        if positive and valid[j]:
            total, count = total - torch.log(sum(positive) / sum(everyone)), count + 1
    return total, count


def make(images=5, labels=4, dim=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(images, labels, dim, generator=generator, dtype=torch.float64)
    prototypes = torch.randn(labels, dim, generator=generator, dtype=torch.float64)
    targets = (torch.rand(images, labels, generator=generator) < 0.5).long()
    return x.requires_grad_(), targets, prototypes.requires_grad_()


@pytest.mark.parametrize(("tau", "normalize"), [(0.2, True), (0.01, True), (0.5, False)])
@pytest.mark.parametrize("reduction", ["mean", "positives", "sum"])
def test_equals_plain_loops(tau, normalize, reduction):
    x, targets, prototypes = make()
    targets[:, 0] = torch.tensor([1, 0, 0, 0, 0])  # one positive
    targets[:, 1] = 1  # all
    targets[:, 2] = torch.tensor([0, 0, -1, 0, 0])  # none
    targets[:2, 3] = torch.tensor([1, -1])
    for valid in ([True] * 4, [False, True, True, True]):
        total, count = reference(x, targets, prototypes, valid, tau=tau, normalize=normalize)
        assert count == sum(valid) - 1
        divisors = {"mean": count, "positives": int((targets == 1).sum()), "sum": 1}
        expected = total / divisors[reduction]
        got = prototype_to_sample_loss(
            x,
            targets,
            prototypes,
            temperature=tau,
            normalize=normalize,
            reduction=reduction,
            valid=torch.tensor(valid),
        )
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
        for mine, theirs in zip(
            torch.autograd.grad(got, (x, prototypes)),
            torch.autograd.grad(expected, (x, prototypes)),
            strict=True,
        ):
            assert (mine - theirs).norm() <= 1e-10 * max(1.0, float(theirs.norm()))


@pytest.mark.parametrize("normalize", [True, False])
def test_gradcheck(normalize):
    x, targets, prototypes = make(images=3)
    torch.autograd.gradcheck(
        lambda a, b: prototype_to_sample_loss(a, targets, b, temperature=0.5, normalize=normalize),
        (x, prototypes),
    )


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("places", [[], [0, 5, 7, 5]])
@pytest.mark.parametrize("turned", [True, False])
def test_similarities_and_rows_leave_with_one_gradient(normalize, places, turned):
    """Compared with plain arithmetic, in any layout: both outputs, one of them, one row twice."""
    x, _, prototypes = make()
    x = x.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_() if turned else x
    place = torch.tensor(places, dtype=torch.int64)
    similarity, rows = similarities(x, prototypes, place, temperature=0.3, normalize=normalize)
    a, c = x, prototypes
    if normalize:
        a, c = x / x.norm(dim=2, keepdim=True), prototypes / prototypes.norm(dim=1, keepdim=True)
    expected = (a * c).sum(2) / 0.3
    torch.testing.assert_close(similarity, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(rows, x.flatten(0, 1)[place])
    weight = torch.randn(similarity.shape, dtype=torch.float64)
    for share in ((1, 1), (1, 0), (0, 1)):
        mine = share[0] * (similarity * weight).sum() + share[1] * (rows**2).sum()
        plain = (
            share[0] * (expected * weight).sum() + share[1] * (x.flatten(0, 1)[place] ** 2).sum()
        )
        got = torch.autograd.grad(mine, (x, prototypes), retain_graph=True)
        wanted = torch.autograd.grad(plain, (x, prototypes), retain_graph=True)
        torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-11)
    torch.autograd.gradcheck(
        lambda a, b: similarities(a, b, place, temperature=0.5, normalize=normalize),
        (x, prototypes),
    )


def test_a_label_of_positives_alone_has_loss_zero():
    x, targets, prototypes = make()
    total, count = prototype_sum(
        x, torch.ones_like(targets), prototypes, torch.ones(4, dtype=torch.bool), temperature=0.2
    )
    assert count == 4
    assert total.item() == pytest.approx(0, abs=1e-12)


def test_ignored_and_uncounted_rows_get_no_gradient_but_negatives_do():
    x, targets, prototypes = make()
    targets[:, 0], targets[0, 1], targets[1:3, 1] = 0, -1, torch.tensor([0, 1])
    valid = torch.tensor([True, True, True, False])
    loss = prototype_to_sample_loss(x, targets, prototypes, temperature=0.2, valid=valid)
    to_x, to_prototypes = torch.autograd.grad(loss, (x, prototypes))
    assert bool((to_x[:, 0] == 0).all())
    assert bool((to_x[0, 1] == 0).all())
    assert bool((to_x[:, 3] == 0).all())
    assert float(to_x[1, 1].abs().sum()) > 0
    assert bool((to_prototypes[[0, 3]] == 0).all())


def test_order_of_images_and_labels_does_not_matter():
    x, targets, prototypes = make(images=7, labels=5)
    image, label = torch.randperm(7), torch.randperm(5)
    moved = prototype_to_sample_loss(
        x[image][:, label],
        targets[image][:, label],
        prototypes[label],
        temperature=0.2,
        reduction="sum",
    )
    same = prototype_to_sample_loss(x, targets, prototypes, temperature=0.2, reduction="sum")
    torch.testing.assert_close(moved, same, rtol=1e-12, atol=1e-12)


def test_no_positive_at_all_is_a_differentiable_zero():
    x, targets, prototypes = make()
    for given, valid in ((targets * 0, True), (targets * 0 - 1, True), (targets, False)):
        loss = prototype_to_sample_loss(
            x, given, prototypes, temperature=0.2, valid=torch.full((4,), valid, dtype=torch.bool)
        )
        assert loss == 0
        for gradient in torch.autograd.grad(loss, (x, prototypes)):
            assert bool((gradient == 0).all())


def test_a_zero_row_or_prototype_is_compared_as_zero_and_gets_no_gradient():
    x, targets, prototypes = make()
    targets[0, :2], targets[1, :2] = 1, 0
    with torch.no_grad():
        x[0, 0] = 0
        prototypes[1] = 0
    loss = prototype_to_sample_loss(x, targets, prototypes, temperature=0.01)
    to_x, to_prototypes = torch.autograd.grad(loss, (x, prototypes))
    assert bool((to_x[0, 0] == 0).all())
    assert bool((to_prototypes[1] == 0).all())
    assert max(float(to_x.abs().max()), float(to_prototypes.abs().max())) < 1e4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tau", [0.01, 0.2])
def test_a_thousand_positives_under_autocast(dtype, tau):
    torch.manual_seed(0)
    head, inputs = torch.nn.Linear(8, 8), torch.randn(1100, 2, 8) + 2
    targets = torch.zeros(1100, 2)
    targets[:1000] = 1
    with torch.autocast("cpu", dtype=dtype):
        x, prototypes = head(inputs), head(torch.randn(2, 8))
        loss = prototype_to_sample_loss(x, targets, prototypes, temperature=tau)
    loss.backward()
    exact = prototype_to_sample_loss(
        x.detach().double(), targets, prototypes.detach().double(), temperature=tau
    )
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact, rtol=1e-4, atol=1e-4)
    assert all(bool(p.grad.isfinite().all()) for p in head.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": -0.1}, "temperature > 0 must hold, but got -0.1"),
        ({"reduction": "max"}, "but got 'max'"),
        ({"targets": torch.ones(5, 3)}, r"\(5, 4, 3\) and \(5, 3\)"),
        ({"prototypes": torch.ones(4, 2)}, r"\(4, 3\), but got \(4, 2\)"),
        ({"valid": torch.ones(3, dtype=torch.bool)}, r"bool \(4,\), but got torch.bool \(3,\)"),
        ({"valid": torch.ones(4)}, "but got torch.float32"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_values(change, message):
    x, targets, prototypes = make()
    with pytest.raises(ValueError, match=message):
        prototype_to_sample_loss(
            x, **({"targets": targets, "prototypes": prototypes, "temperature": math.pi} | change)
        )
