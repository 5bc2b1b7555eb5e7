"""Eq. 4 with the anchor mask of the released code, for the ablation arms that show what it costs.

``loss.anchor_mask = released`` misreads the mask as the released code does, ``targets`` reads the
same mask in its right order. Training as the paper describes it needs nothing of this file.

The released loss has two views, the batch and the bank's slots, and one mask for both, which is set
where the image of the batch has the label: the row of a slot is an anchor only where the image that
is now at its position has its label. The rows are ordered (view, image, label), but the mask is
flattened (image, view, label). Row r of the 2N (view, image) is therefore read as image r // 2 is
set: image 5 by the targets of image 2, slot 5 with a batch of 32 by those of image 18. An anchor
adds to the sum where its own entry and the one that is read for it are both set; the mean is over
all entries that are set. Positives and denominators are right.

This was found by reading that loss and computing it: its gradient and the one of this description
differ by 1e-6 of their length, and with the mask in its right order it is Eq. 4's. For N = 32 and
L = 80, the share of anchors that add, and the cosine with the gradient of Eq. 4, from rows without
classes to rows scattered about their class:

    labels of 427 images of COCO 2017                  0.16    0.30 to 0.40
    independent labels of COCO's frequencies           0.16    0.29 to 0.38
    independent labels of frequencies 1 / rank         0.24    0.33 to 0.44

The gradient is a sixth to a fifth as long. These are of a bank whose valid rows are the matched
ones (``loss.candidates = matched``), as in the released code. With ``all`` the other rows of a full
bank are candidates too, and the two gradients differ in another way.

Axes: B images of this worker, N of the global batch, W workers, L labels, A activated rows of this
worker, M bank rows, G activated rows of the global batch, C = G + M candidates, Q anchors of this
worker.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sadcl import distributed
from sadcl.losses.sample_to_sample import Candidates, sum_over_anchors


class MaskEntries(NamedTuple):
    """Which entries of the mask belong to this worker's rows and to the bank's."""

    positions_A: Tensor
    """Position in the global batch of the image of each row."""
    positions_M: Tensor
    """Slot of each bank row."""
    num_images: Tensor
    """N, a scalar."""
    misread: bool
    """Read the mask in the released order; False reads the same mask in its right order."""


def mask_entries(
    positive_index_A: Tensor,
    weight_B: Tensor,
    positions_M: Tensor,
    *,
    num_labels: int,
    misread: bool,
) -> MaskEntries:
    """Find the rows' entries in the mask of the global batch, which has no padding images.

    This is a collective call.

    Args:
        positive_index_A: indices of this worker's rows into the flattened (B, L) axes.
        weight_B: 1 for a real image, 0 for a padding image.
        positions_M: position in the bank of each of its rows.
        num_labels: L.
        misread: see :class:`MaskEntries`.
    """
    real_B = weight_B > 0
    images_W = distributed.all_gather_rows(real_B.sum()[None], [1] * distributed.world_size())
    positions_B = images_W[: distributed.rank()].sum() + real_B.cumsum(0) - 1
    return MaskEntries(
        positions_B[positive_index_A // num_labels], positions_M, images_W.sum(), misread
    )


def masked_sample_to_sample(
    candidates: Candidates, mask: MaskEntries, *, temperature: float, normalize: bool = True
) -> tuple[Tensor, Tensor]:
    """Sum Eq. 4 over the anchors for which the mask is read as set. This is a collective call.

    Returns:
        (sum, count), both scalars. The count is of all anchors whose own entry is set; the sum is
        over those of them for which the entry that is read is set, too.
    """
    positions_C = torch.cat(
        [distributed.all_gather_rows(mask.positions_A, candidates.sizes), mask.positions_M]
    )
    is_set_C, is_read_C = set_entries(
        positions_C,
        candidates.labels_C,
        num_batch_rows=len(candidates.batch_GP),
        num_labels=len(candidates.count_E) - 1,
        mask=mask,
    )
    counted_Q = candidates.has_positive_Q & is_set_C[candidates.anchors_Q]
    total = sum_over_anchors(
        candidates,
        counted_Q & is_read_C[candidates.anchors_Q],
        temperature=temperature,
        normalize=normalize,
    )
    return total, counted_Q.sum().to(total.dtype)


def set_entries(
    positions_C: Tensor,
    labels_C: Tensor,
    *,
    num_batch_rows: int,
    num_labels: int,
    mask: MaskEntries,
) -> tuple[Tensor, Tensor]:
    """Look up the mask for each candidate.

    Args:
        positions_C: position of each candidate.
        labels_C: label of each candidate; the batch's part is ordered by (position, label).
        num_batch_rows: G; the entries of the batch's rows are the entries that are set.
        num_labels: L.
        mask: N, and how the mask is read.

    Returns:
        Two bool (C,): whether a candidate's own entry is set, and whether the entry that is read
        for it is set.
    """
    entry_C = positions_C * num_labels + labels_C
    read_C = entry_C
    if mask.misread:
        row_C = torch.cat(
            [positions_C[:num_batch_rows], positions_C[num_batch_rows:] + mask.num_images]
        )
        read_C = row_C // 2 * num_labels + labels_C
    set_G = entry_C[:num_batch_rows]
    # An entry after all that are set is looked up at the end, where -1 equals none.
    padded_G1 = torch.cat([set_G, set_G.new_full((1,), -1)])
    is_set_C, is_read_C = (
        padded_G1[torch.searchsorted(set_G, key_C)] == key_C for key_C in (entry_C, read_C)
    )
    return is_set_C, is_read_C
