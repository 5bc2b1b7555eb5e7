"""Rows that bank and prototypes may take in: activated representations of the global batch, the same on every worker.

Axes: B images of this worker, L labels, D hidden size, A activated rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sadcl import distributed


class Rows(NamedTuple):
    """Activated rows, ordered by (position, label)."""

    features_AD: Tensor
    position_A: Tensor
    """Of the image in the global batch."""
    label_A: Tensor
    score_A: Tensor

    def above(self, epsilon: float) -> Rows:
        """Those that a threshold admits, score >= epsilon; their number is waited for."""
        (index_A,) = (self.score_A >= epsilon).nonzero(as_tuple=True)
        return Rows(*(part[index_A] for part in self))

    def per_label(self, labels: int, epsilon: float) -> Tensor:
        """Rows of each label that a threshold admits, (L,) int64."""
        return self.label_A.new_zeros(labels).index_add_(
            0, self.label_A, (self.score_A >= epsilon).long()
        )


def activated(
    features_BLD: Tensor, scores_BL: Tensor, place_A: Tensor, first_position: int
) -> Rows:
    """This worker's rows at ``place_A``, detached.

    Args:
        features_BLD: label-level representations, un-projected.
        scores_BL: 0 to 1.
        place_A: indices of the positives into images and labels, flattened.
        first_position: of this worker's first image in the global batch.
    """
    features_AD, score_A = (
        features_BLD.detach().flatten(0, 1)[place_A],
        scores_BL.detach().flatten()[place_A],
    )
    labels = scores_BL.shape[1]
    return Rows(features_AD, place_A // labels + first_position, place_A % labels, score_A)


def gather(rows: Rows) -> Rows:
    """The rows of all workers, equal to the bit on each; a collective call."""
    sizes = distributed.all_gather_sizes(len(rows.label_A), rows.label_A.device)
    features_AD = distributed.all_gather_rows(rows.features_AD, sizes)
    # whole numbers and float32 scores are exact in float64, so that all three travel as one
    about_A3 = torch.stack([part.double() for part in rows[1:]], dim=1)
    position_A, label_A, score_A = distributed.all_gather_rows(about_A3, sizes).unbind(1)
    return Rows(features_AD, position_A.long(), label_A.long(), score_A.to(rows.score_A.dtype))


class MemoryBank(nn.Module):
    """Un-projected, detached representations of activated labels from earlier steps.

    Args:
        labels: L.
        dim: D.
        policy: ``slot`` keeps one row for each (position in the batch, label), overwritten when admitted; ``fifo`` the
            ``size`` newest rows of each label; ``none`` nothing.
        size: positions (slot) or rows a label (fifo).

    Raises:
        ValueError: for another policy, or a size below 1.
    """

    rows_KLD: Tensor
    valid_KL: Tensor
    cursor_L: Tensor

    def __init__(self, labels: int, dim: int, *, policy: str = "slot", size: int = 64) -> None:
        super().__init__()
        if policy not in ("slot", "fifo", "none"):
            raise ValueError(f"policy must be slot, fifo or none, but got {policy!r}")
        if size < 1:
            raise ValueError(f"size >= 1 must hold, but got {size}")
        self.policy = policy
        kept = 0 if policy == "none" else size
        self.register_buffer("rows_KLD", torch.zeros(kept, labels, dim))
        self.register_buffer("valid_KL", torch.zeros(kept, labels, dtype=torch.bool))
        self.register_buffer("cursor_L", torch.zeros(labels, dtype=torch.int64))
        self.most: int | None = 0
        """Bound on the valid rows that the host knows without asking the device; None after loading."""

    def read(self, *, padded: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Valid rows (M, D), their labels (M,) and their positions (M,), ordered by (position, label).

        Args:
            padded: M is one of four sizes, found without waiting for the device; after the valid rows come others of
                label and position -1.
        """
        if not padded:
            index_M2 = self.valid_KL.nonzero()
        else:
            most, size = self.fill() if self.most is None else self.most, self.valid_KL.numel()
            while size >= 16 and size // 2 >= most and size > self.valid_KL.numel() // 8:
                size //= 2
            index_M2 = torch.nonzero_static(self.valid_KL, size=size, fill_value=-1)
        position_M, label_M = index_M2.unbind(1)
        return self.rows_KLD[position_M, label_M], label_M, position_M

    def fill(self) -> int:
        """Number of valid rows."""
        self.most = int(self.valid_KL.sum())
        return self.most

    def load_state_dict(self, *given: Any, **more: Any) -> Any:
        self.most = None
        return super().load_state_dict(*given, **more)

    @torch.no_grad()
    def update(self, rows: Rows, epsilon: float) -> None:
        """Store the rows that ``epsilon`` admits; ``slot`` puts each into the place of its position and label."""
        if self.policy == "none" or not len(rows.label_A):
            return
        (size, labels), label_A = self.valid_KL.shape, rows.label_A
        slot_A, stored_A = rows.position_A, rows.score_A >= epsilon
        if self.policy == "fifo":
            one_hot_AL = (
                label_A[:, None] == torch.arange(labels, device=label_A.device)
            ) & stored_A[:, None]
            order_A = (one_hot_AL.cumsum(0) - 1).gather(1, label_A[:, None])[:, 0]
            count_L = one_hot_AL.sum(0)
            stored_A &= (
                order_A >= count_L[label_A] - size
            )  # no place is written twice, in an order left to the device
            slot_A = (self.cursor_L[label_A] + order_A) % size
            self.cursor_L.copy_((self.cursor_L + count_L) % size)
        # What is not stored writes once more what the first one writes, because leaving it out waits for the device.
        from_A = torch.where(
            stored_A, torch.arange(len(stored_A), device=stored_A.device), stored_A.int().argmax()
        )
        place_A, stored_A = (slot_A * labels + label_A)[from_A], stored_A[from_A]
        rows_RD, valid_R = self.rows_KLD.flatten(0, 1), self.valid_KL.flatten()
        rows_RD[place_A] = torch.where(
            stored_A[:, None], rows.features_AD[from_A].to(rows_RD.dtype), rows_RD[place_A]
        )
        valid_R[place_A] |= stored_A
        if self.most is not None:
            self.most = min(self.most + len(label_A), self.valid_KL.numel())
