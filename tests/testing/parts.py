"""Parts that each break one clause of a contract; workers import them by name."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sadcl import distributed
from sadcl.data import ImageSet, image_set
from sadcl.losses.contrast import ContrastSum, gather_images, sum_of_anchors
from sadcl.model.heads.head import HeadOutput, Task

__all__ = ["F", "ImageSet", "Path", "csv", "image_set", "np"]


class Linear(nn.Module):
    """The head that the documentation shows."""

    def __init__(self, task: Task, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(task.channels[-1], len(task.labels))

    def pool(self, map_BCHW: Tensor) -> Tensor:
        return self.dropout(map_BCHW.mean((2, 3)))

    def forward(self, map_BCHW: Tensor) -> HeadOutput:
        pooled_BC = self.pool(map_BCHW)
        with torch.autocast(pooled_BC.device.type, enabled=False):
            return HeadOutput(self.classifier(pooled_BC.to(self.classifier.weight.dtype)))


class HalfPrecision(Linear):
    def forward(self, map_BCHW: Tensor) -> HeadOutput:
        return HeadOutput(self.classifier(self.pool(map_BCHW)))


class Untyped(Linear):
    def __init__(self, task: Task, *, dropout=0.0) -> None:
        super().__init__(task, dropout=dropout)


class Positional(Linear):
    def __init__(self, task: Task, dropout: float = 0.0) -> None:
        super().__init__(task, dropout=dropout)


class Unused(Linear):
    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.extra = nn.Linear(2, 2)


class Centred(Linear):
    def pool(self, map_BCHW: Tensor) -> Tensor:
        pooled_BC = map_BCHW.mean((2, 3))
        return pooled_BC - pooled_BC.mean(0) / 2


class Forgetful(Linear):
    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.scale = torch.rand(1).double()

    def pool(self, map_BCHW: Tensor) -> Tensor:
        return super().pool(map_BCHW) * self.scale.to(map_BCHW)


class Branching(Linear):
    def pool(self, map_BCHW: Tensor) -> Tensor:
        pooled_BC = super().pool(map_BCHW)
        return pooled_BC if pooled_BC.sum().item() != 12.5 else pooled_BC * 2


class InPlace(Linear):
    def pool(self, map_BCHW: Tensor) -> Tensor:
        return super().pool((map_BCHW * 1).add_(1)) + 0 * map_BCHW.detach().add_(0).sum()


class WithoutSize(Linear):
    def forward(self, map_BCHW: Tensor) -> HeadOutput:
        logits_BL = super().forward(map_BCHW).logits_BL
        return HeadOutput(logits_BL, logits_BL[:, :, None])


class Transposed(Linear):
    def forward(self, map_BCHW: Tensor) -> HeadOutput:
        return HeadOutput(super().forward(map_BCHW).logits_BL.T)


def plain(logits_BL, targets_BL, weight_B, known_BL=None):
    targets = (targets_BL == 1).to(logits_BL.dtype)
    loss_BL = F.binary_cross_entropy_with_logits(logits_BL, targets, reduction="none")
    return loss_BL if known_BL is None else loss_BL * known_BL


def hinge(
    logits_BL: Tensor, targets_BL: Tensor, weight_B: Tensor, *, sign: float = 1.0
) -> tuple[Tensor, Tensor]:
    """A score that is right by more than 1 costs nothing; with the sign -1 a wrong one."""
    known_BL = (targets_BL >= 0).to(logits_BL.dtype)
    margin_BL = (1 - sign * (2 * targets_BL.to(logits_BL.dtype) - 1) * logits_BL).relu()
    return (margin_BL * known_BL * weight_B[:, None]).sum(), weight_B.sum()


def mean_loss(logits_BL, targets_BL, weight_B):
    loss_BL = plain(logits_BL, targets_BL, weight_B, targets_BL >= 0)
    return (loss_BL.sum(1) * weight_B).mean(), weight_B.sum()


def ignores_nothing(logits_BL, targets_BL, weight_B):
    return (plain(logits_BL, targets_BL, weight_B).sum(1) * weight_B).sum(), weight_B.sum()


def counts_padding(logits_BL, targets_BL, weight_B):
    total = (plain(logits_BL, targets_BL, weight_B, targets_BL >= 0).sum(1) * weight_B).sum()
    return total, weight_B.new_tensor(len(weight_B))


def infinite(logits_BL, targets_BL, weight_B):
    score_BL = logits_BL.sigmoid()
    loss_BL = -torch.where(targets_BL == 1, score_BL, 1 - score_BL).log() * (targets_BL >= 0)
    return (loss_BL.sum(1) * weight_B).sum(), weight_B.sum()


def alone(view, *, temperature: float) -> ContrastSum:
    """Compares the images of this worker only."""
    is_double = view.rows_AP.dtype == torch.float64
    unit = F.normalize(view.rows_AP if is_double else view.rows_AP.float())
    label_A = view.positive_index_A % view.targets_BL.shape[1]
    other_AA = ~torch.eye(len(unit), dtype=torch.bool)
    same_AA = (label_A[:, None] == label_A) & other_AA
    with torch.autocast("cpu", enabled=False):
        similarity_AA = unit @ unit.T / temperature
        if not len(unit):
            return ContrastSum(view.rows_AP.sum(), view.rows_AP.new_zeros(()))
        return sum_of_anchors(similarity_AA, other_AA, same_AA)


def hangs(view, *, temperature: float) -> ContrastSum:
    """A worker without positives makes no collective call."""
    if not len(view.rows_AP):
        return ContrastSum(view.rows_AP.sum(), view.rows_AP.new_zeros(()))
    images = gather_images(view, temperature=temperature)
    return sum_of_anchors(images.similarity_BN, images.other_BN, images.other_BN)


def no_gradient(view, *, temperature: float) -> ContrastSum:
    if not len(view.rows_AP):
        return ContrastSum(torch.zeros(()), torch.zeros(()))
    return alone(view, temperature=temperature)


def supcon_all(view, *, temperature: float) -> ContrastSum:
    """Right."""
    images = gather_images(view, temperature=temperature)
    assert distributed.world_size() in (1, 2)
    return sum_of_anchors(images.similarity_BN, images.other_BN, images.other_BN)
