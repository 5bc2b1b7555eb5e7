"""The memory bank of section 3.4: what it is given alike on every worker, it holds alike on every worker.

Axes: L labels, D hidden size, M valid rows, A admitted rows, K rows of a label or positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sadcl.admission import Rows


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

    def read(self) -> tuple[Tensor, Tensor, Tensor]:
        """Valid rows (M, D), their labels (M,) and their positions (M,), ordered by (position, label)."""
        position_M, label_M = self.valid_KL.nonzero().unbind(1)
        return self.rows_KLD[position_M, label_M], label_M, position_M

    def fill(self) -> int:
        """Number of valid rows."""
        return int(self.valid_KL.sum())

    @torch.no_grad()
    def update(self, rows: Rows) -> None:
        """Store admitted rows; ``slot`` puts each into the place of its position and label."""
        if self.policy == "none":
            return
        rows_AD, label_A = rows.features_AD.to(self.rows_KLD.dtype), rows.label_A
        if self.policy == "slot":
            place_A = rows.position_A
        else:
            size, labels = self.valid_KL.shape
            one_hot_AL = nn.functional.one_hot(label_A, labels)
            order_A = (one_hot_AL.cumsum(0) - 1).gather(1, label_A[:, None])[:, 0]
            count_L = one_hot_AL.sum(0)
            newest_A = order_A >= count_L[label_A] - size  # no place is written twice, in an order left to the device
            rows_AD, label_A, order_A = rows_AD[newest_A], label_A[newest_A], order_A[newest_A]
            place_A = (self.cursor_L[label_A] + order_A) % size
            self.cursor_L.copy_((self.cursor_L + count_L) % size)
        self.rows_KLD[place_A, label_A] = rows_AD
        self.valid_KL[place_A, label_A] = True
