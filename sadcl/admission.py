"""Rows that bank and prototypes may take in: activated representations of the global batch, the same on every worker.

Axes: B images of this worker, L labels, D hidden size, A activated rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

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
        return self.label_A.new_zeros(labels).index_add_(0, self.label_A, (self.score_A >= epsilon).long())


def activated(features_BLD: Tensor, scores_BL: Tensor, place_A: Tensor, first_position: int) -> Rows:
    """This worker's rows at ``place_A``, detached.

    Args:
        features_BLD: label-level representations, un-projected.
        scores_BL: 0 to 1.
        place_A: indices of the positives into images and labels, flattened.
        first_position: of this worker's first image in the global batch.
    """
    features_AD, score_A = features_BLD.detach().flatten(0, 1)[place_A], scores_BL.detach().flatten()[place_A]
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
