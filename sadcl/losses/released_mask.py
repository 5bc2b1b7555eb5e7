"""Which rows the released code counts as anchors of Eq. 4, so that an ablation can show what its mask costs.

Its loss has two views, the batch and the bank's slots, and one mask for both, set where the image of the batch has the label:
a slot's row is an anchor only where the image that is now at its position has its label. The rows lie (view, image, label);
the mask is flattened (image, view, label). So row r of the 2N (view, image) is read as image r // 2 is set: image 5 by the
targets of image 2, slot 5 beside a batch of 32 by those of image 18. An anchor adds to the sum where its own entry and the
one that is read for it are set; the mean is over all entries that are set. Positives and denominators are right.

Found by reading that loss and computing it: its gradient and that of this description differ by 1e-6 of their length, and
with the mask in its right order it is Eq. 4's. For N = 32, L = 80, the share of anchors that add and the cosine with the
gradient of Eq. 4, from rows without classes to rows scattered about their class:

    labels of 427 images of COCO 2017                  0.16    0.30 to 0.40
    independent labels of COCO's frequencies           0.16    0.29 to 0.38
    independent labels of frequencies 1 / rank         0.24    0.33 to 0.44

The gradient is a sixth to a fifth as long. Here the candidates stay those of Eq. 4, also the valid rows of the bank that the
released code does not look at because no image has their label now; beside a full bank the fault is milder, 0.55 to 0.71 and
half as long on the last kind of labels.

Axes: B images of this worker, N of the global batch, W workers, L labels, A activated rows of this worker, M bank rows,
C candidates (the activated rows of the global batch, then the bank's), S entries of the mask that are set.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sadcl import distributed


class MaskEntries(NamedTuple):
    """Where in the mask this worker's rows and the bank's have their entries."""

    image_A: Tensor
    """Position of each row's image in the global batch."""
    slot_M: Tensor
    """The same of each bank row."""
    images: Tensor
    """N, a scalar."""
    misread: bool
    """Read the mask in the released order; False reads the same mask in its right order."""


def mask_entries(
    place_A: Tensor, weight_B: Tensor, slot_M: Tensor, *, labels: int, misread: bool
) -> MaskEntries:
    """Places in the mask of the global batch, without the padding images; a collective call.

    Args:
        place_A: indices of this worker's rows into images and labels, flattened.
        weight_B: 1 for a real image, 0 for padding.
        slot_M: position in the bank of each of its rows.
    """
    real_B = weight_B > 0
    images_W = distributed.all_gather_rows(real_B.sum()[None], [1] * distributed.world_size())
    position_B = images_W[: distributed.rank()].sum() + real_B.cumsum(0) - 1
    return MaskEntries(position_B[place_A // labels], slot_M, images_W.sum(), misread)


def set_and_read(
    image_C: Tensor, labels_C: Tensor, batch: int, labels: int, mask: MaskEntries
) -> tuple[Tensor, Tensor]:
    """Whether a candidate's own entry of the mask is set, and whether the one that is read for it is: two bool (C,).

    Args:
        image_C, labels_C: position and label of each candidate, ordered by both in the batch's part.
        batch: how many candidates are the batch's; theirs are the entries that are set.
        labels: L.
    """
    entry_C = image_C * labels + labels_C
    read_C = entry_C
    if mask.misread:
        row_C = torch.cat([image_C[:batch], image_C[batch:] + mask.images])
        read_C = row_C // 2 * labels + labels_C
    set_S = entry_C[:batch]
    after_S = torch.cat(
        [set_S, set_S.new_full((1,), -1)]
    )  # what is greater than all finds the last
    own_C, read_C = (
        after_S[torch.searchsorted(set_S, wanted_C)] == wanted_C for wanted_C in (entry_C, read_C)
    )
    return own_C, read_C
