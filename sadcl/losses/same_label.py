r"""Eq. 4 without negatives of other labels: two readings, for two ablation arms.

In Eq. 4 the negatives of an anchor x_ij are the activated rows of other labels. Here they are left
out, so that only rows of the label j are compared with it:

    L_ij = -1 / |P(i,j)| \sum_{p in P(i,j)} log( exp(s_p) / \sum_{a in D(i,j)} exp(s_a) )

s_p      x_ij.p / tau
P(i,j)   the positives of Eq. 4: the other activated rows and bank rows with the label j
x_ij     the projected row of image i and label j, of length 1

``same_label`` changes nothing else: D(i,j) = P(i,j), and therefore

    L_ij = log \sum_p exp(s_p) - 1 / |P| \sum_p s_p  >=  log |P|,   equal where all s_p are equal.

It evens out the similarities s_p, and its gradient by them adds up to 0: with nothing to push away,
nothing is pulled together either, and a label with two rows has no gradient at all. As an arm it
shows what the negatives are worth.

``label_wise`` keeps negatives of the same label: D(i,j) also has the rows x_nj of images n that do
not have the label j, which are not activated. These are the rows that Eq. 6 compares with a
prototype. The batch alone takes part: of images that lack a label, the bank keeps no rows.

The paper has neither. Value and gradient are compared with plain loops in
tests/losses/test_same_label.py.

Axes: B images of this worker, N images of the global batch, L labels, P embedding size,
A positives of this worker, C candidates, Q anchors of this worker, K anchors of one block.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sadcl import distributed
from sadcl.losses.contrast import (
    ContrastSum,
    ContrastView,
    image_sizes,
    sum_of_anchors,
    unit_rows,
)
from sadcl.losses.sample_contrast import batch_anchors, candidates_of

CHUNK = 256
"""Anchors of ``same_label`` whose similarities are held at once."""


def same_label(
    view: ContrastView,
    *,
    temperature: float,
    anchors: str = "batch+bank",
    bank_scope: str = "cluster",
) -> ContrastSum:
    """Compute Eq. 4 with the positives alone in the denominator. This is a collective call.

    Args:
        view: what this worker knows in this step.
        temperature: tau > 0.
        anchors: as in Eq. 4, ``batch+bank``, or ``batch`` for the rows of the batch alone.
        bank_scope: as in Eq. 4, ``cluster`` where all workers hold the same bank, ``worker`` where
            each holds its own.

    Returns:
        The sum of L_ij, and the number of anchors that have a positive.

    Raises:
        ValueError: for an unknown word.
    """
    candidates = candidates_of(view, anchors=anchors, bank_scope=bank_scope)
    with torch.autocast(view.rows_AP.device.type, enabled=False):
        unit_CP = unit_rows(torch.cat([candidates.batch_GP, candidates.bank_MP]))
        total = unit_CP.sum() * 0  # a gradient also where there is no anchor
        for index_K, counted_K in zip(
            candidates.anchors_Q.split(CHUNK),
            candidates.has_positive_Q.split(CHUNK),
            strict=True,
        ):
            total = total + checkpoint(
                _same_label_block,
                unit_CP,
                candidates.labels_C,
                index_K,
                counted_K,
                temperature,
                use_reentrant=False,
                preserve_rng_state=False,
            )
    count = candidates.has_positive_Q.sum().to(total.dtype)
    return ContrastSum(total, count, batch_anchors(view, candidates).to(total.dtype))


def _same_label_block(
    unit_CP: Tensor, labels_C: Tensor, index_K: Tensor, counted_K: Tensor, temperature: float
) -> Tensor:
    """Sum L_ij over a block of anchors; the backward pass computes its similarities again."""
    positive_KC = (labels_C[index_K, None] == labels_C) & counted_K[:, None]
    positive_KC = positive_KC.scatter(1, index_K[:, None], False)
    similarity_KC = unit_CP[index_K] @ unit_CP.T / temperature
    return sum_of_anchors(similarity_KC, positive_KC, positive_KC).total


def label_wise(view: ContrastView, *, temperature: float) -> ContrastSum:
    """Compute Eq. 4 within each label, against the images that lack it. This is a collective call.

    The embeddings of all images for all labels travel. An image of which the label j is ignored is
    left out of D(i,j).

    Args:
        view: what this worker knows in this step.
        temperature: tau > 0.

    Returns:
        The sum of L_ij, and the number of anchors that have a positive.
    """
    num_labels = view.targets_BL.shape[1]
    dtype = torch.float64 if view.embeddings_BLP.dtype == torch.float64 else torch.float32
    with torch.autocast(view.embeddings_BLP.device.type, enabled=False):
        unit_BLP = unit_rows(view.embeddings_BLP.to(dtype))
        sizes = image_sizes(view)
        unit_NLP = distributed.all_gather_rows(unit_BLP, sizes)
        targets_NL = distributed.all_gather_rows(view.targets_BL, sizes)
        similarity_LBN = unit_BLP.transpose(0, 1) @ unit_NLP.permute(1, 2, 0) / temperature
    image_A, label_A = view.positive_index_A // num_labels, view.positive_index_A % num_labels
    targets_AN = targets_NL.T[label_A]
    position_A1 = image_A[:, None] + sum(sizes[: distributed.rank()])
    other_AN = torch.ones_like(targets_AN, dtype=torch.bool).scatter(1, position_A1, False)
    return sum_of_anchors(
        similarity_LBN[label_A, image_A],
        other_AN & (targets_AN != -1),
        other_AN & (targets_AN == 1),
    )
