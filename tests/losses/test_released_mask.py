"""The mask of the released code against plain loops, and its effect on labels like COCO's."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sadcl.losses.contrast import positive_index
from sadcl.losses.released_mask import (
    MaskEntries,
    mask_entries,
    masked_sample_to_sample,
    set_entries,
)
from tests.conftest import candidates, sample_sum
from tests.losses.test_sample_to_sample import assert_same, value_and_gradient

L, P, TAU = 3, 5, 0.2


def reference(x, targets, slots, valid, misread):
    """Sum over the anchors that add, and the number that is counted.

    The rows are ordered (view, image, label), the mask (image, view, label).
    """
    images = len(targets)
    mask = [bool(targets[i, j] == 1) for i in range(images) for _ in range(2) for j in range(L)]
    right = [bool(targets[i, j] == 1) for _ in range(2) for i in range(images) for j in range(L)]
    there = [(0, i, j, x[i, j]) for i in range(images) for j in range(L) if targets[i, j] == 1]
    there += [(1, k, j, slots[k, j]) for k in range(len(slots)) for j in range(L) if valid[k, j]]
    rows = [row / row.norm() for *_, row in there]
    total, count = x.sum() * 0, 0
    for a, (view, image, label, _) in enumerate(there):
        others = [c for c in range(len(there)) if c != a]
        positives = [c for c in others if there[c][2] == label]
        at = (view * images + image) * L + label
        if not positives or image >= images or not right[at]:
            continue
        count += 1
        if mask[at] or not misread:
            denominator = sum(torch.exp(rows[a] @ rows[c] / TAU) for c in others)
            logs = sum(
                torch.log(torch.exp(rows[a] @ rows[c] / TAU) / denominator) for c in positives
            )
            total = total - logs / len(positives)
    return total, count


def masked(x, targets, slots, valid, misread):
    positions_M, labels_M = valid.nonzero().unbind(1)
    mask = mask_entries(
        positive_index(targets),
        torch.ones(len(targets)),
        positions_M,
        num_labels=targets.shape[1],
        misread=misread,
    )
    rows = candidates(x, targets, slots[valid], labels_M)
    return masked_sample_to_sample(rows, mask, temperature=TAU)


def draw(seed):
    """A batch as long as the bank or shorter, odd or even; slots empty, some and full.

    The labels are of all kinds.
    """
    g = torch.Generator().manual_seed(seed)
    images, kept = ((5, 5), (4, 4), (3, 6), (1, 4), (4, 5))[seed % 5]
    targets = torch.randint(-1, 2, (images, L), generator=g)
    if seed % 7 == 6:
        targets[:] = targets.clamp(max=0)
    valid = torch.rand(kept, L, generator=g) < (0.6, 1.0, 0.0)[seed % 3]
    x, slots = (
        torch.randn(count, L, P, generator=g, dtype=torch.float64).requires_grad_()
        for count in (images, kept)
    )
    return x, targets, slots, valid


@pytest.mark.parametrize("misread", [True, False])
@pytest.mark.parametrize("seed", range(15))
def test_equals_the_mask_laid_out_and_misread(seed, misread):
    inputs = draw(seed)
    total, count = masked(*inputs, misread)
    expected, counted = reference(*inputs, misread)
    assert int(count) == counted
    leaves = inputs[0], inputs[2]
    assert_same(value_and_gradient(total, *leaves), value_and_gradient(expected, *leaves))


def test_the_draws_tell_the_orders_apart():
    sums = [[masked(*draw(seed), misread)[0] for misread in (True, False)] for seed in range(15)]
    assert sum(bool(0 < wrong < right) for wrong, right in sums) >= 6


def coco_like(seed, images=32, labels=80, dim=32):
    """Frequencies 1 / rank, 2.9 labels an image; rows scattered about their class.

    A slot is valid where its image has the label.
    """
    g = torch.Generator().manual_seed(seed)
    rank_L = torch.arange(1, labels + 1)
    targets = (torch.rand(images, labels, generator=g) < 2.9 / rank_L / (1 / rank_L).sum()).long()
    mean = torch.randn(labels, dim, generator=g, dtype=torch.float64)
    x, slots = (
        mean + torch.randn(images, labels, dim, generator=g, dtype=torch.float64) for _ in range(2)
    )
    return x.requires_grad_(), targets, slots.requires_grad_(), targets == 1


def test_on_labels_like_cocos_a_quarter_of_the_anchors_add_and_the_gradient_is_another():
    shares, cosines = [], []
    for seed in range(3):
        x, targets, slots, valid = coco_like(seed)
        image_S, label_S = valid.nonzero().unbind(1)
        own_C, read_C = set_entries(
            image_S.repeat(2),
            label_S.repeat(2),
            num_batch_rows=len(image_S),
            num_labels=targets.shape[1],
            mask=MaskEntries(image_S, image_S, torch.tensor(len(targets)), True),
        )
        assert bool(own_C.all())
        shares.append(float(read_C.double().mean()))
        gradients = [
            torch.cat(value_and_gradient(masked(x, targets, slots, valid, m)[0], x, slots)[1])
            for m in (True, False)
        ]
        cosines.append(
            float(F.cosine_similarity(*(gradient.flatten() for gradient in gradients), dim=0))
        )
    assert 0.2 < sum(shares) / 3 < 0.28
    assert 0.36 < sum(cosines) / 3 < 0.5


def test_in_its_right_order_the_mask_of_the_released_code_is_eq_4():
    """Where its candidates are the released ones: the slots whose image has their label."""
    x, targets, slots, valid = coco_like(0)
    plain = sample_sum(x, targets, slots[valid], valid.nonzero()[:, 1], temperature=TAU)
    total, count = masked(x, targets, slots, valid, False)
    assert count == plain[1] == 2 * int(valid.sum())
    assert_same(value_and_gradient(total, x, slots), value_and_gradient(plain[0], x, slots))
