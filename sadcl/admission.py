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
        """Those that a threshold admits: score >= epsilon."""
        admitted_A = self.score_A >= epsilon
        return Rows(*(part[admitted_A] for part in self))

    def per_label(self, labels: int) -> Tensor:
        """Rows of each label, (L,) int64."""
        return torch.bincount(self.label_A, minlength=labels)


def activated(features_BLD: Tensor, scores_BL: Tensor, where_BL: Tensor, first_position: int) -> Rows:
    """This worker's rows where ``where_BL`` is True, detached.

    Args:
        features_BLD: label-level representations, un-projected.
        scores_BL: 0 to 1.
        where_BL: bool, the positives.
        first_position: of this worker's first image in the global batch.
    """
    image_A, label_A = where_BL.nonzero().unbind(1)
    return Rows(features_BLD.detach()[where_BL], image_A + first_position, label_A, scores_BL.detach()[where_BL])


def gather(rows: Rows) -> Rows:
    """The rows of all workers, equal to the bit on each; a collective call."""
    sizes = distributed.all_gather_sizes(len(rows.label_A), rows.label_A.device)
    features_AD = distributed.all_gather_rows(rows.features_AD, sizes)
    # whole numbers and float32 scores are exact in float64, so that all three travel as one
    about_A3 = torch.stack([part.double() for part in rows[1:]], dim=1)
    position_A, label_A, score_A = distributed.all_gather_rows(about_A3, sizes).unbind(1)
    return Rows(features_AD, position_A.long(), label_A.long(), score_A.to(rows.score_A.dtype))
