r"""The similarity-dissimilarity loss: a positive weighs less, the less its labels are the anchor's.

    L_i   = -1 / |P_i| \sum_{p in P_i} Ks_ip Kd_ip log( exp(s_ip) / \sum_{a in A_i} exp(s_ia) )
    Ks_ip = |S_i and S_p| / |S_i|                the share of the anchor's labels that p has
    Kd_ip = 1 / (1 + |S_p without S_i|)          smaller, the more other labels p has

S_i    the labels of image i
A_i    the other images that have a label, of the global batch
P_i    those of A_i that share a label with image i
s_ip   the cosine of the embeddings of images i and p (losses/contrast.py), divided by tau

The five relations of two label sets, and their weights w = Ks Kd:

    disjoint                          w = 0, p is no positive
    equal                             w = 1
    overlapping, neither a subset     w = Ks Kd
    S_i a proper subset of S_p        w = Kd
    S_p a proper subset of S_i        w = Ks

Labels that are ignored in one of the two images count in none of these numbers.

Value and gradient are compared with plain loops in
tests/losses/test_similarity_dissimilarity.py.

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


def similarity_dissimilarity(view: ContrastView, *, temperature: float) -> ContrastSum:
    """Compute the similarity-dissimilarity loss. This is a collective call.

    Departure from the paper: an anchor without a positive adds nothing and is not counted, and an
    image without a label is left out altogether.

    Args:
        view: what this worker knows in this step.
        temperature: tau > 0.

    Returns:
        The sum of L_i, and the number of images that share a label with another one.

    Source: Huang et al., Similarity-dissimilarity loss for multi-label supervised contrastive
    learning, arXiv 2410.13439. Neither its equations nor its code could be read. Its public reviews
    confirm both factors, in these words: the proportion of shared labels, and 1 / (1 + x) for x
    extraneous labels of the positive, none for those of the anchor. Not confirmed: that Ks divides
    by the anchor's labels, and that the weight stands before the logarithm. Inside the logarithm it
    would be a constant without a gradient, and the loss would train as if each weight were 1.
    """
    images = gather_images(view, temperature=temperature)
    overlap = compare_labels(images)
    positive_BN = images.other_BN & (overlap.shared_BN > 0)
    similar_BN = overlap.shared_BN / (overlap.shared_BN + overlap.missing_BN).clamp(min=1)
    weight_BN = similar_BN / (1 + overlap.extra_BN)
    return sum_of_anchors(images.similarity_BN, images.other_BN, positive_BN, weight_BN)
