"""Activated rows of the global batch, and the memory bank that stores them (section 3.4).

An activated row is the un-projected representation of an image for a label that the image has.

Axes: B images of this worker, L labels, D hidden size, A activated rows, K slots of the bank for
each label, M rows of the bank, G activated rows of the global batch, R = K * L.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sadcl import distributed


class ActivatedRows(NamedTuple):
    """Activated rows, ordered by (position, label)."""

    features_AD: Tensor
    """Detached, un-projected."""
    positions_A: Tensor
    """Position of each row's image in the global batch."""
    labels_A: Tensor
    """Label index of each row."""
    scores_A: Tensor
    """Score of that label for that image, 0 to 1."""

    def count_per_label(self, num_labels: int, epsilon: float) -> Tensor:
        """Count the rows of each label with score >= epsilon, (L,) int64."""
        return self.labels_A.new_zeros(num_labels).index_add_(
            0, self.labels_A, (self.scores_A >= epsilon).long()
        )


def activated_rows(
    features_BLD: Tensor, scores_BL: Tensor, positive_index_A: Tensor, first_position: int
) -> ActivatedRows:
    """Select this worker's activated rows, detached.

    Args:
        features_BLD: un-projected label-level representations.
        scores_BL: scores, 0 to 1.
        positive_index_A: indices of the positive targets into the flattened (B, L) axes.
        first_position: position of this worker's first image in the global batch.
    """
    num_labels = scores_BL.shape[1]
    return ActivatedRows(
        features_BLD.detach().flatten(0, 1)[positive_index_A],
        positive_index_A // num_labels + first_position,
        positive_index_A % num_labels,
        scores_BL.detach().flatten()[positive_index_A],
    )


def gather(rows: ActivatedRows, sizes: list[int] | None = None) -> ActivatedRows:
    """Gather the rows of all workers, bit-identical on each of them. This is a collective call.

    Args:
        rows: this worker's.
        sizes: number of rows of each worker; None gathers the numbers here, for which the host
            waits.
    """
    if distributed.world_size() == 1:
        return rows
    features_AD, scores_A = rows.features_AD, rows.scores_A
    # All four travel in one call: positions and labels are below 2^24, and so exact in float32.
    dtype = torch.promote_types(features_AD.dtype, scores_A.dtype)
    dtype = torch.promote_types(dtype, torch.float32)
    columns_A3 = torch.stack([part.to(dtype) for part in rows[1:]], dim=1)
    gathered = distributed.all_gather_rows(
        torch.cat([features_AD.to(dtype), columns_A3], dim=1), sizes
    )
    positions_A, labels_A, all_scores_A = gathered[:, -3:].unbind(1)
    return ActivatedRows(
        gathered[:, :-3].to(features_AD.dtype),
        positions_A.long(),
        labels_A.long(),
        all_scores_A.to(scores_A.dtype),
    )


class Memory(NamedTuple):
    """The bank's rows that take part in a step, ordered by (position, label)."""

    rows_MD: Tensor
    """Un-projected, detached rows."""
    labels_M: Tensor
    """Label index of each row; -1 for a padding row."""
    positions_M: Tensor
    """Slot of each row (with policy ``slot`` its position in the global batch); -1 for padding."""
    padded: bool = False
    """Whether padding rows may follow, so that M is known without waiting for the device."""


class MemoryBank(nn.Module):
    """Un-projected, detached representations of activated labels from earlier steps (section 3.4).

    Args:
        num_labels: L.
        dim: D.
        policy: ``slot`` keeps one row for each (position in the batch, label) and overwrites it at
            each admission; ``fifo`` keeps the ``size`` newest rows of each label; ``none`` keeps
            nothing.
        size: number of positions (``slot``) or of rows for each label (``fifo``).

    Raises:
        ValueError: for an unknown policy, or a size below 1.
    """

    rows_KLD: Tensor
    valid_KL: Tensor
    cursor_L: Tensor

    def __init__(self, num_labels: int, dim: int, *, policy: str = "slot", size: int = 64) -> None:
        super().__init__()
        if policy not in ("slot", "fifo", "none"):
            raise ValueError(f"policy must be slot, fifo or none, but got {policy!r}")
        if size < 1:
            raise ValueError(f"size >= 1 must hold, but got {size}")
        self.policy = policy
        slots = 0 if policy == "none" else size
        self.register_buffer("rows_KLD", torch.zeros(slots, num_labels, dim))
        self.register_buffer("valid_KL", torch.zeros(slots, num_labels, dtype=torch.bool))
        self.register_buffer("cursor_L", torch.zeros(num_labels, dtype=torch.int64))
        self.max_valid: int | None = 0
        """Upper bound of the number of valid rows, known without the device; None after loading."""

    def read(self, *, padded: bool = False) -> Memory:
        """Return the valid rows.

        Args:
            padded: choose M from four sizes without waiting for the device, and fill up with rows
                of label and position -1.
        """
        if not padded:
            index_M2 = self.valid_KL.nonzero()
        else:
            bound = self.count_valid() if self.max_valid is None else self.max_valid
            size = self.valid_KL.numel()
            while size >= 16 and size // 2 >= bound and size > self.valid_KL.numel() // 8:
                size //= 2
            index_M2 = torch.nonzero_static(self.valid_KL, size=size, fill_value=-1)
        positions_M, labels_M = index_M2.unbind(1)
        return Memory(self.rows_KLD[positions_M, labels_M], labels_M, positions_M, padded)

    def read_matched(
        self, positions_G: Tensor, labels_G: Tensor, *, padded: bool = False
    ) -> Memory:
        """Return the rows that are matched by the activated rows of the global batch.

        With ``slot`` that is the valid row at each activated row's own position and label. ``fifo``
        has no positions: if the batch has n activated rows of a label, its n newest rows match.

        Args:
            positions_G: position in the global batch of each activated row.
            labels_G: its label index; both are ordered by (position, label).
            padded: return G rows, or more up to the next power of two and at least two, without
                waiting for the device; those that are not valid have label and position -1. One
                row or none would be compiled separately.
        """
        slots, num_labels = self.valid_KL.shape
        valid_G = torch.ones_like(labels_G, dtype=torch.bool)
        slot_G = positions_G
        if self.policy == "fifo":
            rank_G = _rank_in_label(labels_G, num_labels)
            slot_G, valid_G = (self.cursor_L[labels_G] - 1 - rank_G) % slots, rank_G < slots
        if self.policy == "none":
            slot_G = labels_G = labels_G[:0]
            valid_G = valid_G[:0]
        valid_G = valid_G & self.valid_KL[slot_G, labels_G]
        if not padded:
            slot_G, labels_G = slot_G[valid_G], labels_G[valid_G]
            return Memory(self.rows_KLD[slot_G, labels_G], labels_G, slot_G, padded)
        extra = (1 << (max(len(labels_G), 2) - 1).bit_length()) - len(labels_G) if slots else 0
        slot_M, labels_M, valid_M = (
            torch.nn.functional.pad(part, (0, extra)) for part in (slot_G, labels_G, valid_G)
        )
        return Memory(
            self.rows_KLD[slot_M, labels_M],
            torch.where(valid_M, labels_M, -1),
            torch.where(valid_M, slot_M, -1),
            padded,
        )

    @torch.no_grad()
    def fill(self, rows_LD: Tensor, valid_L: Tensor) -> None:
        """Store one row of each label in all its slots.

        Args:
            rows_LD: un-projected rows, such as prototypes.
            valid_L: labels that have a row; the slots of others stay as they are.
        """
        self.rows_KLD.copy_(
            torch.where(valid_L[:, None], rows_LD.to(self.rows_KLD.dtype), self.rows_KLD)
        )
        self.valid_KL |= valid_L
        self.max_valid = None

    def count_valid(self) -> int:
        """Count the valid rows; the host waits for the device."""
        self.max_valid = int(self.valid_KL.sum())
        return self.max_valid

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self.max_valid = None
        return super().load_state_dict(*args, **kwargs)

    @torch.no_grad()
    def update(self, rows: ActivatedRows, epsilon: float) -> None:
        """Store the rows with score >= epsilon.

        ``slot`` writes each row to its own position and label, ``fifo`` over the oldest row of its
        label.
        """
        if self.policy == "none" or not len(rows.labels_A):
            return
        (size, num_labels), labels_A = self.valid_KL.shape, rows.labels_A
        slot_A, stored_A = rows.positions_A, rows.scores_A >= epsilon
        if self.policy == "fifo":
            one_hot_AL = _one_hot(labels_A, num_labels) & stored_A[:, None]
            order_A = (one_hot_AL.cumsum(0) - 1).gather(1, labels_A[:, None])[:, 0]
            count_L = one_hot_AL.sum(0)
            # Only the newest rows are stored: the device chooses the order of two writes to one
            # slot.
            stored_A &= order_A >= count_L[labels_A] - size
            slot_A = (self.cursor_L[labels_A] + order_A) % size
            self.cursor_L.copy_((self.cursor_L + count_L) % size)
        # Selecting the stored rows would wait for the device. Each other row repeats the first
        # stored row's write.
        source_A = torch.where(
            stored_A, torch.arange(len(stored_A), device=stored_A.device), stored_A.int().argmax()
        )
        index_A, stored_A = (slot_A * num_labels + labels_A)[source_A], stored_A[source_A]
        rows_RD, valid_R = self.rows_KLD.flatten(0, 1), self.valid_KL.flatten()
        rows_RD[index_A] = torch.where(
            stored_A[:, None], rows.features_AD[source_A].to(rows_RD.dtype), rows_RD[index_A]
        )
        valid_R[index_A] |= stored_A
        if self.max_valid is not None:
            self.max_valid = min(self.max_valid + len(labels_A), self.valid_KL.numel())


def _one_hot(labels_A: Tensor, num_labels: int) -> Tensor:
    return labels_A[:, None] == torch.arange(num_labels, device=labels_A.device)


def _rank_in_label(labels_A: Tensor, num_labels: int) -> Tensor:
    """Count for each row the rows of its label before it."""
    before_AL = _one_hot(labels_A, num_labels).long().cumsum(0) - 1
    return before_AL.gather(1, labels_A[:, None])[:, 0]
