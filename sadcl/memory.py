"""The memory bank of section 3.4, the same on every worker.

Axes: B images of this worker, L labels, D hidden size, M valid rows, A admitted rows, K rows of a label or positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sadcl import distributed


class MemoryBank(nn.Module):
    """Un-projected, detached representations of activated labels from earlier steps.

    Args:
        labels: L.
        dim: D.
        policy: ``slot`` keeps one row for each (position in the batch, label), overwritten when admitted; ``fifo`` the
            ``size`` newest rows of each label; ``none`` nothing.
        size: positions (slot) or rows a label (fifo).
        scope: ``cluster`` stores what all workers admit, identically on each; ``worker`` what this worker admits.

    Raises:
        ValueError: for another policy or scope, or a size below 1.
    """

    rows_KLD: Tensor
    valid_KL: Tensor
    cursor_L: Tensor

    def __init__(self, labels: int, dim: int, *, policy: str = "slot", size: int = 64, scope: str = "cluster") -> None:
        super().__init__()
        if policy not in ("slot", "fifo", "none") or scope not in ("cluster", "worker"):
            raise ValueError(f"policy must be slot, fifo or none, scope cluster or worker, but got {policy!r}, {scope!r}")
        if size < 1:
            raise ValueError(f"size >= 1 must hold, but got {size}")
        self.policy, self.scope = policy, scope
        kept = 0 if policy == "none" else size
        self.register_buffer("rows_KLD", torch.zeros(kept, labels, dim))
        self.register_buffer("valid_KL", torch.zeros(kept, labels, dtype=torch.bool))
        self.register_buffer("cursor_L", torch.zeros(labels, dtype=torch.int64))

    def read(self) -> tuple[Tensor, Tensor]:
        """Valid rows (M, D) and their labels (M,), ordered by (position, label)."""
        return self.rows_KLD[self.valid_KL], self.valid_KL.nonzero()[:, 1]

    def fill(self) -> int:
        """Number of valid rows."""
        return int(self.valid_KL.sum())

    @torch.no_grad()
    def update(self, features_BLD: Tensor, admitted_BL: Tensor, first_position: int) -> Tensor:
        """Store the admitted rows; a collective call where the scope is the cluster.

        Args:
            features_BLD: representations of this worker's images.
            admitted_BL: which of them to store.
            first_position: place of this worker's first image in the batch (slot).

        Returns:
            (L,) rows that the whole cluster admitted.
        """
        position_A, label_A = admitted_BL.nonzero().unbind(1)
        position_A = position_A + first_position
        rows_AD = features_BLD.detach()[admitted_BL].to(self.rows_KLD.dtype)
        count_L = torch.bincount(label_A, minlength=admitted_BL.shape[1])
        if self.policy == "none" or self.scope == "worker":
            self._store(rows_AD, position_A, label_A)
            return distributed.global_sum(count_L)
        sizes = distributed.all_gather_sizes(len(rows_AD), rows_AD.device)
        rows_AD = distributed.all_gather_rows(rows_AD, sizes)
        position_A, label_A = distributed.all_gather_rows(torch.stack([position_A, label_A], 1), sizes).unbind(1)
        self._store(rows_AD, position_A, label_A)
        return torch.bincount(label_A, minlength=admitted_BL.shape[1])

    def _store(self, rows_AD: Tensor, position_A: Tensor, label_A: Tensor) -> None:
        if self.policy == "none":
            return
        if self.policy == "slot":
            place_A = position_A
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
