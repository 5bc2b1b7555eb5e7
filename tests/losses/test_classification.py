"""Eq. 8 against plain loops, and the asymmetric loss against timm's."""

import math

import pytest
import torch
from timm.loss import AsymmetricLossMultiLabel

from sadcl.losses import class_loss


def make(images=4, labels=5):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(images, labels, generator=generator, dtype=torch.float64) * 3
    targets = torch.randint(-1, 2, (images, labels), generator=generator)
    return logits.requires_grad_(), targets


def test_equals_eq_8_in_plain_loops():
    logits, targets = make()
    weight = torch.tensor([1.0, 0.0, 1.0, 1.0])
    expected = 0.0
    for i in range(4):
        for j in range(5):
            score = 1 / (1 + math.exp(-logits[i, j].item()))
            if targets[i, j] != -1 and weight[i]:
                expected -= math.log(score) if targets[i, j] == 1 else math.log(1 - score)
    total, count = class_loss(logits, targets, weight)
    assert count == 3
    assert total.item() == pytest.approx(expected, abs=1e-10)
    (gradient,) = torch.autograd.grad(total, logits)
    slope = (logits.sigmoid() - (targets == 1).double()) * (targets != -1) * weight[:, None]
    torch.testing.assert_close(gradient, slope.detach(), rtol=1e-10, atol=1e-10)


def asymmetric(logits, targets, negative, positive, clip, focus_gradient=True, floor=0.0):
    total = 0
    for i in range(logits.shape[0]):
        for j in range(logits.shape[1]):
            score = torch.sigmoid(logits[i, j])
            shifted = torch.clamp(score - clip, min=0)
            weight = (1 - score) ** positive if targets[i, j] == 1 else shifted**negative
            weight = weight if focus_gradient else weight.detach()
            if targets[i, j] == 1:
                total -= weight * torch.log(score.clamp(min=floor))
            elif targets[i, j] == 0:
                total -= weight * torch.log((1 - shifted).clamp(min=floor))
    return total


@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("floor", [0.0, 1e-5, 0.1])
@pytest.mark.parametrize(("negative", "positive"), [(4.0, 0.0), (2.0, 1.0), (0.0, 0.0)])
def test_focus_without_gradient_and_a_floor_equal_plain_loops(clip, floor, negative, positive):
    logits, targets = make(images=8)
    with torch.no_grad():
        logits[0] = 15.0 * torch.tensor([1, -1, 1, -1, 1])
        targets[0] = torch.tensor([0, 1, 1, 0, 0])
    options = {"focus_gradient": False, "floor": floor}
    total, _ = class_loss(
        logits,
        targets,
        kind="asymmetric",
        gamma_negative=negative,
        gamma_positive=positive,
        clip=clip,
        **options,
    )
    loops = asymmetric(logits, targets, negative, positive, clip, **options)
    torch.testing.assert_close(total, loops, rtol=1e-10, atol=1e-10)
    mine, theirs = (torch.autograd.grad(loss, logits)[0] for loss in (total, loops))
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
    if floor:  # wrong by more than the floor
        assert mine[0, 1] == 0
        assert clip or mine[0, 0] == 0


def test_bce_with_a_floor_is_bce_where_scores_are_higher():
    logits, targets = make()
    plain, floored = (class_loss(logits, targets, floor=floor)[0] for floor in (0.0, 1e-5))
    torch.testing.assert_close(plain, floored, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        logits[:] = -20.0
    floored, _ = class_loss(logits, targets * 0 + 1, floor=1e-5)
    assert floored.item() == pytest.approx(-20 * math.log(1e-5))
    assert bool((torch.autograd.grad(floored, logits)[0] == 0).all())


@pytest.mark.parametrize("clip", [0.0, 0.05, 0.3])
@pytest.mark.parametrize(("negative", "positive"), [(4.0, 0.0), (2.0, 1.0), (0.0, 0.0)])
def test_asymmetric_equals_plain_loops_and_timm(clip, negative, positive):
    logits, targets = make()
    options = {
        "kind": "asymmetric",
        "gamma_negative": negative,
        "gamma_positive": positive,
        "clip": clip,
    }
    total, _ = class_loss(logits, targets, **options)
    loops = asymmetric(logits, targets, negative, positive, clip)
    one_row = targets[targets != -1][
        None
    ]  # timm's default reduction changed from the sum to a mean over rows
    timm = AsymmetricLossMultiLabel(negative, positive, clip)(logits[targets != -1][None], one_row)
    for theirs, tolerance in ((loops, 1e-10), (timm.double(), 1e-4)):  # timm computes in float32
        torch.testing.assert_close(total, theirs, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(
            torch.autograd.grad(total, logits, retain_graph=True)[0],
            torch.autograd.grad(theirs, logits, retain_graph=True)[0],
            rtol=tolerance,
            atol=tolerance,
        )


def test_asymmetric_without_focus_and_clip_is_bce():
    logits, targets = make()
    plain, _ = class_loss(logits, targets)
    focused, _ = class_loss(
        logits, targets, kind="asymmetric", gamma_negative=0, gamma_positive=0, clip=0
    )
    torch.testing.assert_close(plain, focused, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("clip", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 4.0])
def test_saturated_scores_stay_finite(dtype, clip, gamma):
    logits = (
        torch.tensor([[-1000.0, 1000.0, -20.0, 20.0, 0.0]], dtype=dtype)
        .repeat(2, 1)
        .requires_grad_()
    )
    targets = torch.tensor([[1] * 5, [0] * 5])
    for kind in ("bce", "asymmetric"):
        total, _ = class_loss(
            logits, targets, kind=kind, gamma_negative=gamma, gamma_positive=gamma, clip=clip
        )
        (gradient,) = torch.autograd.grad(total, logits)
        assert bool(total.isfinite())
        assert bool(gradient.isfinite().all())


def test_nothing_known_is_a_differentiable_zero():
    logits, targets = make()
    for kind in ("bce", "asymmetric"):
        total, count = class_loss(logits, targets * 0 - 1, torch.zeros(4), kind=kind)
        assert total == count == 0
        assert bool((torch.autograd.grad(total, logits)[0] == 0).all())


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="but got 'focal'"):
        class_loss(*make(), kind="focal")
