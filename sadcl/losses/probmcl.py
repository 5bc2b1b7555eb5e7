r"""The rule of ProbMCL for positives: two images whose label sets overlap enough.

    L_i  = -1 / |P_i| \sum_{p in P_i} log( exp(s_ip) / \sum_{a in A_i} exp(s_ia) )
    P_i  = { p in A_i : D(S_i, S_p) >= alpha },   D(S, T) = |S and T| / |S or T|  (Jaccard index)

S_i    the labels of image i
A_i    the other images that have a label, of the global batch
s_ip   the cosine of the embeddings of images i and p (losses/contrast.py), divided by tau

With alpha = 1 the positives are the images with the same labels, and with alpha near 0 those that
share any. Labels that are ignored in one of the two images count in neither number of D.

Value and gradient are compared with plain loops in tests/losses/test_probmcl.py.

Axes: B images of this worker, each of which is an anchor, N images of the global batch.
"""

from __future__ import annotations

from sadcl.losses.contrast import (
    ContrastSum,
    ContrastView,
    compare_labels,
    gather_images,
    sum_of_anchors,
)


def probmcl(view: ContrastView, *, temperature: float, alpha: float = 0.5) -> ContrastSum:
    """Compute the contrast of ProbMCL without its mixture density. This is a collective call.

    Departures from the paper: an image is one point and similarity is the cosine, where the paper
    compares two mixtures of Gaussians; there is no second view, so that an anchor without a
    positive adds nothing and is not counted; an image without a label is left out altogether.

    Args:
        view: what this worker knows in this step.
        temperature: tau > 0.
        alpha: the least overlap of a positive, above 0 to 1. The default is ours.

    Returns:
        The sum of L_i, and the number of images that have a positive.

    Raises:
        ValueError: for an alpha out of range.

    Source: Sajedi et al., ProbMCL: Simple probabilistic contrastive learning for multi-label visual
    classification, ICASSP 2024. Its equations could not be read, and its code is not public; a
    summary of it confirms the rule D >= alpha. Not confirmed: that D is the Jaccard index.
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"0 < alpha <= 1 must hold, but got {alpha}")
    images = gather_images(view, temperature=temperature)
    overlap = compare_labels(images)
    union_BN = overlap.shared_BN + overlap.missing_BN + overlap.extra_BN
    positive_BN = images.other_BN & (overlap.shared_BN / union_BN.clamp(min=1) >= alpha)
    return sum_of_anchors(images.similarity_BN, images.other_BN, positive_BN)
