r"""MulSupCon: an image is an anchor once for each label that it has.

    L_ij = -1 / |P_ij| \sum_{p in P_ij} log( exp(s_ip) / \sum_{a in A_ij} exp(s_ia) )
    L    = \sum_i \sum_{j in S_i} L_ij

S_i    the labels of image i
A_ij   the other images that have a label, of the global batch
P_ij   those of A_ij that have the label j
s_ip   the cosine of the embeddings of images i and p (losses/contrast.py), divided by tau

A pair therefore has the weight \sum_{j shared} 1 / |P_ij|: it grows with the labels that the two
share, and a label that few images have weighs more.

Value and gradient are compared with plain loops in tests/losses/test_mulsupcon.py.

Axes: B images of this worker, N images of the global batch, L labels, A positives of this worker,
each of which is an anchor.
"""

from __future__ import annotations

from sadcl.losses.contrast import (
    ContrastSum,
    ContrastView,
    gather_images,
    sum_of_anchors,
)


def mulsupcon(view: ContrastView, *, temperature: float) -> ContrastSum:
    """Compute the multi-label supervised contrastive loss. This is a collective call.

    Departures from the paper: there is no second view, so that an anchor without a positive adds
    nothing and is not counted (there, an image's second view is always its positive); no queue of
    earlier batches and no momentum encoder; an image of which the label j is ignored is left out of
    A_ij, and an image without a label is left out altogether.

    Args:
        view: what this worker knows in this step.
        temperature: tau > 0.

    Returns:
        The sum of L_ij, and the number of pairs (image, label) that have a positive, by which the
        mean divides, as the paper's mean does.

    Source: Zhang and Wu, Multi-label supervised contrastive learning, AAAI 2024; its public code
    (williamzhangsjtu/MulSupCon) has this positive set, this denominator and this mean.
    """
    images = gather_images(view, temperature=temperature)
    num_labels = view.targets_BL.shape[1]
    image_A, label_A = view.positive_index_A // num_labels, view.positive_index_A % num_labels
    targets_AN = images.targets_NL.T[label_A]
    candidate_AN = images.other_BN[image_A] & (targets_AN != -1)
    return sum_of_anchors(
        images.similarity_BN[image_A], candidate_AN, candidate_AN & (targets_AN == 1)
    )
