"""What a contrast is, and what the contrasts share.

The sample-to-sample contrast of Eq. 9 is a function of what a worker knows in a step, which a
configuration names by its module and its name. The one that this page asks for is complete::

    def supcon(view: ContrastView, *, temperature: float, min_shared: int = 1) -> ContrastSum:
        images = gather_images(view, temperature=temperature)
        shared_BN = compare_labels(images).shared_BN
        positive_BN = images.other_BN & (shared_BN >= min_shared)
        return sum_of_anchors(images.similarity_BN, images.other_BN, positive_BN)

A view holds this worker's share. A contrast gathers what it needs of the other workers, in the same
calls on every worker, also on one whose share has nothing to contrast, and returns the sum over
this worker's own anchors: over the workers, the gradients of these sums add up to the gradient of
the global sum.

Axes: B images of this worker, N images of the global batch, L labels, P embedding size,
A positives of this worker, M bank rows, Q anchors of this worker, C candidates.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sadcl import distributed
from sadcl.memory import Memory

ZERO = 1e-12
"""A row of at most this length has no direction: it is compared as zero and gets no gradient."""


class ContrastView(NamedTuple):
    """What this worker knows in a step. Embeddings are projected, and their length is not 1."""

    embeddings_BLP: Tensor
    """The embedding of each image for each label."""
    rows_AP: Tensor
    """Those at ``positive_index_A``. Their gradient is computed together with that of Eq. 6, so
    that a contrast which needs no other embedding is cheaper with these."""
    targets_BL: Tensor
    """1, 0 or -1 (ignored); a padding image has -1 only."""
    weight_B: Tensor
    """1 for a real image, 0 for a padding image."""
    positive_index_A: Tensor
    """Indices of the targets that are 1 into the flattened (B, L) axes, ascending."""
    bank_MP: Tensor
    """The bank's rows that take part in this step."""
    memory: Memory
    """Their labels and positions, and whether padding rows are among them."""
    global_positive_index_G: Tensor | None = None
    """Indices of the targets that are 1 into the flattened (N, L) axes of the global batch; None
    where they have not been computed, which a gather then waits for."""
    shares: distributed.Shares | None = None
    """Images and positives of each worker; None likewise."""


class ContrastSum(NamedTuple):
    """A contrast on this worker; the criterion divides sums by counts over all workers."""

    total: Tensor
    """Sum over this worker's anchors, a scalar with a gradient also where no anchor counts."""
    counted: Tensor
    """How many of them count, a scalar of the sum's type."""
    batch_counted: Tensor | None = None
    """How many of these are of the batch, the others being of the bank; None where all are."""


class Contrast(Protocol):
    """The call that a contrast answers. Its own arguments are keywords with a type and a default.

    It raises ValueError for an argument that it does not accept, before its first collective call.
    """

    def __call__(self, view: ContrastView, *, temperature: float) -> ContrastSum: ...


def safe_inverse(length: Tensor) -> Tensor:
    """1 / length, and 0 for a length of at most ``ZERO``."""
    return (length > ZERO) / length.clamp(min=ZERO)


def unit_rows(rows: Tensor) -> Tensor:
    """Bring rows to length 1 along the last axis; a zero row stays zero and gets no gradient."""
    return rows * safe_inverse(torch.linalg.vector_norm(rows, dim=-1, keepdim=True))


def positive_index(targets: Tensor) -> Tensor:
    """Find the targets that are 1; the host waits for their number.

    Returns:
        (A,) indices into the flattened (images, labels) axes.
    """
    return (targets == 1).flatten().nonzero()[:, 0]


def check_contrast(
    embeddings: Tensor,
    targets: Tensor,
    temperature: float,
    reduction: str,
    reductions: tuple[str, ...] = ("mean", "sum"),
) -> None:
    """Raise ValueError for arguments that no contrast accepts."""
    if embeddings.dim() != 3 or embeddings.shape[:2] != targets.shape:
        raise ValueError(
            "embeddings must be (N, L, P) and targets (N, L), but got "
            f"{tuple(embeddings.shape)} and {tuple(targets.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature > 0 must hold, but got {temperature}")
    if reduction not in reductions:
        raise ValueError(
            f"reduction must be {' or '.join(map(repr, reductions))}, but got {reduction!r}"
        )


def check_word(name: str, word: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError for a word that is not among the choices."""
    if word not in choices:
        raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, but got {word!r}")


def reduce_globally(total: Tensor, count: Tensor, reduction: str) -> Tensor:
    """A worker's loss from its sum and count: W times its share of the global loss of W workers."""
    divisor = 1 if reduction == "sum" else distributed.global_sum(count).clamp(min=1)
    return distributed.world_size() * total / divisor


def image_sizes(view: ContrastView) -> list[int]:
    """Return how many images each worker has; it is a collective call where that is not known."""
    if view.shares is not None:
        return view.shares.images
    return distributed.all_gather_sizes(len(view.targets_BL), view.targets_BL.device)


class Images(NamedTuple):
    """The images of the global batch, as contrasts between images compare them.

    An image's embedding is the mean of its embeddings for the labels that it has, brought to
    length 1. An image without a label has none: it is neither an anchor nor a candidate.
    """

    similarity_BN: Tensor
    """Cosine of this worker's images and all images, divided by the temperature."""
    other_BN: Tensor
    """Whether image n has a label and is another one than image b, which has a label, too."""
    targets_BL: Tensor
    """1, 0 or -1 (ignored)."""
    targets_NL: Tensor


def gather_images(view: ContrastView, *, temperature: float) -> Images:
    """Compare this worker's images with those of all workers. This is a collective call.

    One embedding and the targets of each image travel, and no bank row takes part.

    Raises:
        ValueError: for a temperature that is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature > 0 must hold, but got {temperature}")
    num_images, num_labels = view.targets_BL.shape
    dtype = torch.float64 if view.rows_AP.dtype == torch.float64 else torch.float32
    with torch.autocast(view.rows_AP.device.type, enabled=False):
        rows_AP = view.rows_AP.to(dtype)
        # Of length 1, the mean and the sum are equal.
        sum_BP = rows_AP.new_zeros(num_images, rows_AP.shape[1]).index_add(
            0, view.positive_index_A // num_labels, rows_AP
        )
        unit_BP = unit_rows(sum_BP)
        sizes = image_sizes(view)
        unit_NP = distributed.all_gather_rows(unit_BP, sizes)
        targets_NL = distributed.all_gather_rows(view.targets_BL, sizes)
        similarity_BN = unit_BP @ unit_NP.T / temperature
    labelled_N = (targets_NL == 1).any(1)
    first = sum(sizes[: distributed.rank()])
    position_B1 = torch.arange(first, first + num_images, device=labelled_N.device)[:, None]
    other_BN = labelled_N & labelled_N[position_B1]
    other_BN = other_BN.scatter(1, position_B1, False)
    return Images(similarity_BN, other_BN, view.targets_BL, targets_NL)


class LabelOverlap(NamedTuple):
    """How many labels two images share and do not share, in the similarities' type.

    A label that is ignored in one of the two counts nowhere.
    """

    shared_BN: Tensor
    """Labels that both have."""
    missing_BN: Tensor
    """Labels that image b has and image n has not."""
    extra_BN: Tensor
    """Labels that image n has and image b has not."""


def compare_labels(images: Images) -> LabelOverlap:
    """Count the labels of each pair of images."""
    dtype = images.similarity_BN.dtype
    with torch.autocast(images.targets_BL.device.type, enabled=False):
        has_BL, lacks_BL = ((images.targets_BL == value).to(dtype) for value in (1, 0))
        has_LN, lacks_LN = ((images.targets_NL == value).to(dtype).T for value in (1, 0))
        return LabelOverlap(has_BL @ has_LN, has_BL @ lacks_LN, lacks_BL @ has_LN)


def sum_of_anchors(
    similarity_QC: Tensor,
    candidate_QC: Tensor,
    positive_QC: Tensor,
    weight_QC: Tensor | None = None,
) -> ContrastSum:
    r"""Sum the supervised contrastive loss over this worker's anchors.

        L_q = -1 / |P_q| \sum_{p in P_q} w_qp log( exp(s_qp) / \sum_{a in A_q} exp(s_qa) )

    An anchor without a positive adds nothing and is not counted.

    Args:
        similarity_QC: s, divided by the temperature.
        candidate_QC: whether c is in A_q, which leaves out the anchor itself.
        positive_QC: whether c is in P_q, a subset of A_q.
        weight_QC: w; None means all ones.

    Source: Khosla et al., Supervised contrastive learning, NeurIPS 2020, Eq. 2, which has no w.
    """
    counted_Q = positive_QC.any(1)
    # An anchor that does not count keeps all in its denominator and adds exactly 0: selecting the
    # counted anchors would wait for the device.
    known_QC = similarity_QC.masked_fill(~candidate_QC & counted_Q[:, None], -torch.inf)
    loss_QC = known_QC.logsumexp(1, keepdim=True) - similarity_QC
    share_QC = positive_QC / positive_QC.sum(1, keepdim=True).clamp(min=1).to(loss_QC.dtype)
    if weight_QC is not None:
        share_QC = share_QC * weight_QC
    total = (share_QC * loss_QC).sum()
    return ContrastSum(total, counted_Q.sum().to(total.dtype))
