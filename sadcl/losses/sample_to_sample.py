"""The sample-to-sample contrast (Eq. 4), on activated rows only.

Axes: B images of this worker, N of the global batch, L labels, P embedding size, M bank rows, C candidates (the
activated rows of the global batch, then the bank's), A anchors of this worker, K anchors of one chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sadcl import distributed
from sadcl.losses.released_mask import MaskEntries, set_and_read

CHUNK = 256
"""Anchors whose similarities are held at once; more of them where the candidates are few."""
BLOCK = 1 << 18
"""Similarities that are always held at once where a chunk would be smaller."""
ZERO = 1e-12
"""A row that is not longer than this has no direction: it is compared as zero, with no gradient."""


class _Contrast(torch.autograd.Function):
    """Sum of Eq. 4 over the anchors; the gradient is made beside the value.

    Only the denominators need similarities, at most K x C at once: the positives of an anchor enter by the sum of their
    rows. Nothing but the gradient of the candidates is kept for the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        batch_NP: Tensor,
        bank_MP: Tensor,
        labels_C: Tensor,
        count_L: Tensor,
        anchors_A: Tensor,
        shown_A: Tensor | None,
        scale: float,
        normalize: bool,
    ) -> Tensor:
        rows_CP = torch.cat([batch_NP, bank_MP])
        if normalize:
            inverse_C1 = safe_inverse(torch.linalg.vector_norm(rows_CP, dim=1, keepdim=True))
            rows_CP *= inverse_C1
        most = max(CHUNK, BLOCK // max(len(rows_CP), 1))
        chunks = anchors_A.split(most) if len(anchors_A) else ()
        shown = (
            shown_A.to(rows_CP.dtype)[:, None].split(most)
            if shown_A is not None and chunks
            else (None,) * len(chunks)
        )
        if shown_A is not None:
            apart_C = torch.where(labels_C < len(count_L) - 1, 0.0, -torch.inf).to(rows_CP.dtype)
        sum_LP = rows_CP.new_zeros(len(count_L), rows_CP.shape[1]).index_add_(0, labels_C, rows_CP)
        anchor_sum_LP = torch.zeros_like(sum_LP)
        for index_K, shown_K1 in zip(chunks, shown, strict=True):
            anchor_KP = rows_CP[index_K]
            anchor_sum_LP.index_add_(
                0, labels_C[index_K], anchor_KP if shown_K1 is None else anchor_KP * shown_K1
            )
        weight_L = scale / (count_L - 1).clamp(min=1).to(rows_CP.dtype)
        gradient_CP = (anchor_sum_LP * -weight_L[:, None])[labels_C]
        total = rows_CP.new_zeros(())
        for index_K, shown_K1 in zip(chunks, shown, strict=True):
            labels_K, anchor_KP = labels_C[index_K], rows_CP[index_K]
            weight_K1 = (
                weight_L[labels_K, None]
                if shown_K1 is None
                else weight_L[labels_K, None] * shown_K1
            )
            positive_KP = sum_LP[labels_K].sub_(anchor_KP)
            total -= (positive_KP * weight_K1 * anchor_KP).sum()
            gradient_KP = positive_KP.sub_(anchor_KP).mul_(-weight_K1)
            anchor_KP *= scale
            share_KC = (
                anchor_KP @ rows_CP.T
                if shown_K1 is None
                else torch.addmm(apart_C, anchor_KP, rows_CP.T)
            )
            share_KC.scatter_(1, index_K[:, None], -torch.inf)
            highest_K1 = share_KC.amax(1, keepdim=True)
            if shown_K1 is not None:
                highest_K1.clamp_(min=torch.finfo(rows_CP.dtype).min)  # of an anchor that is alone
            mass_K1 = share_KC.sub_(highest_K1).exp_().sum(1, keepdim=True)
            all_K1 = mass_K1.log() + highest_K1
            if shown_K1 is not None:
                all_K1 = torch.where(shown_K1 > 0, all_K1, 0)
                mass_K1 = torch.where(shown_K1 > 0, mass_K1, torch.inf)
            total += all_K1.sum()
            gradient_KP += (share_KC @ rows_CP).mul_(scale / mass_K1)
            gradient_CP.index_add_(0, index_K, gradient_KP)
            gradient_CP.addmm_(share_KC.T, anchor_KP.div_(mass_K1))
        if normalize:
            for row_KP, slope_KP, inverse_K1 in zip(
                rows_CP.split(CHUNK), gradient_CP.split(CHUNK), inverse_C1.split(CHUNK), strict=True
            ):
                slope_KP.sub_(row_KP * (slope_KP * row_KP).sum(1, keepdim=True)).mul_(inverse_K1)
        ctx.save_for_backward(gradient_CP)
        ctx.batch = len(batch_NP)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_CP,) = ctx.saved_tensors
        batch_NP, bank_MP = gradient_CP[: ctx.batch], gradient_CP[ctx.batch :]
        wanted = ctx.needs_input_grad
        return (
            batch_NP * gradients[0] if wanted[0] else None,
            bank_MP * gradients[0] if wanted[1] else None,
            *(None,) * 6,
        )


def safe_inverse(length: Tensor) -> Tensor:
    """1 / length, and 0 of what has none."""
    return (length > ZERO) / length.clamp(min=ZERO)


def positive_index(targets_BL: Tensor) -> Tensor:
    """Where the targets are 1, (A,) indices into both axes flattened."""
    return (targets_BL == 1).flatten().nonzero()[:, 0]


def sample_to_sample(
    own_AP: Tensor,
    own_labels_A: Tensor,
    bank_MP: Tensor,
    bank_labels_M: Tensor,
    *,
    labels: int,
    temperature: float,
    normalize: bool = True,
    anchors: str = "batch+bank",
    bank_scope: str = "cluster",
    padded: bool = False,
    mask: MaskEntries | None = None,
) -> tuple[Tensor, Tensor]:
    """Eq. 4 over the whole global batch: this worker's sum and its number of counted anchors.

    Every anchor is compared with all other activated rows of the global batch and of the bank. Positives are those of
    its own label; an anchor without one is not counted. This worker's anchors are the activated rows of its own images
    and, with ``anchors="batch+bank"``, every W-th bank row, so that the sum over workers counts each anchor once; with
    ``bank_scope="worker"`` all rows of its own bank, which no other worker sees. The sum over workers of the gradients
    is the gradient of the global sum.

    Args:
        own_AP: activated rows of this worker's images, ordered by (image, label).
        own_labels_A: label index of each.
        bank_MP, bank_labels_M: rows of the bank and their labels; -1 for what is no row.
        labels: L.
        padded: choose candidates and anchors by masks, which waits for no device; needed where a label of the bank is -1.
        mask: sum only the anchors that this mask shows, count all that it has (:mod:`sadcl.losses.released_mask`).

    Returns:
        (sum, count), both scalars; the sum has a gradient also where it is empty.
    """
    dtype = torch.float64 if own_AP.dtype == torch.float64 else torch.float32
    rank, world = distributed.rank(), distributed.world_size()
    own_AP = own_AP.to(dtype)
    sizes = distributed.all_gather_sizes(len(own_AP), own_AP.device)
    batch_CP = distributed.all_gather_rows(own_AP, sizes)
    labels_C = torch.cat([distributed.all_gather_rows(own_labels_A, sizes), bank_labels_M])
    start = sum(sizes[:rank])
    index_A = torch.arange(start, start + len(own_AP), device=labels_C.device)
    if anchors == "batch+bank":
        first, stride = (rank, world) if bank_scope == "cluster" else (0, 1)
        index_A = torch.cat(
            [
                index_A,
                torch.arange(len(labels_C), device=labels_C.device)[
                    len(batch_CP) + first :: stride
                ],
            ]
        )
    labels_C = torch.where(
        labels_C < 0, labels, labels_C
    )  # what is no row has a label of its own, which no anchor has
    count_L = labels_C.new_zeros(labels + 1).index_add_(0, labels_C, torch.ones_like(labels_C))
    counted_A = shown_A = (count_L[labels_C[index_A]] > 1) & (labels_C[index_A] < labels)
    if mask is not None:
        image_C = torch.cat([distributed.all_gather_rows(mask.image_A, sizes), mask.slot_M])
        set_C, read_C = set_and_read(image_C, labels_C, len(batch_CP), labels, mask)
        counted_A = counted_A & set_C[index_A]
        shown_A = counted_A & read_C[index_A]
    if not padded:
        index_A = index_A[shown_A]
    rows, which = (
        (batch_CP, bank_MP.to(dtype), labels_C, count_L),
        (index_A, shown_A if padded else None),
    )
    with torch.autocast(own_AP.device.type, enabled=False):
        total: Tensor = _Contrast.apply(*rows, *which, 1 / temperature, normalize)
    return total, counted_A.sum().to(dtype)


def sample_to_sample_loss(
    embeddings: Tensor,
    targets: Tensor,
    bank_embeddings: Tensor | None = None,
    bank_labels: Tensor | None = None,
    *,
    temperature: float,
    normalize: bool = True,
    reduction: str = "mean",
) -> Tensor:
    """Sample-to-sample contrastive loss (Eq. 4).

    Departs from the paper's letter in one point: ``reduction="mean"`` divides by the counted anchors, so that the value
    does not grow with the batch. In a process group the batch is that of all workers, who all make this call with the
    same bank; the mean of what they get is the loss, so that DDP's mean of gradients is its gradient.

    Args:
        embeddings: (N, L, P) projected label-level representations.
        targets: (N, L) with 1, 0 or -1 (ignored); rows with 1 are anchors and candidates.
        bank_embeddings: (M, P) projected bank rows; anchors and candidates too.
        bank_labels: (M,) label index of each bank row.
        temperature: tau > 0.
        normalize: compare by cosine; a zero row is compared as zero.
        reduction: ``mean`` over counted anchors, or ``sum``.

    Returns:
        Scalar; 0 with a gradient where no anchor has a positive.

    Raises:
        ValueError: for shapes that do not fit, a label index out of range, a temperature that is not positive, or
            another reduction.

    Source: Ma et al., ECAI 2023, Eq. 4.
    """
    check_contrast(embeddings, targets, temperature, reduction)
    if (bank_embeddings is None) != (bank_labels is None):
        raise ValueError(
            "bank_embeddings and bank_labels go together, but only one of them was given"
        )
    if bank_embeddings is None or bank_labels is None:
        bank_embeddings = embeddings.new_zeros(0, embeddings.shape[2])
        bank_labels = targets.new_zeros(0)
    if bank_labels.dim() != 1 or bank_embeddings.shape != (len(bank_labels), embeddings.shape[2]):
        raise ValueError(
            f"bank_embeddings (M, {embeddings.shape[2]}) and bank_labels (M,) must fit, but got "
            f"{tuple(bank_embeddings.shape)} and {tuple(bank_labels.shape)}"
        )
    if (
        len(bank_labels)
        and not 0 <= int(bank_labels.min()) <= int(bank_labels.max()) < targets.shape[1]
    ):
        raise ValueError(
            f"bank_labels must be in 0..{targets.shape[1] - 1}, but go from {int(bank_labels.min())} "
            f"to {int(bank_labels.max())}"
        )
    place_A, labels = positive_index(targets), targets.shape[1]
    own_AP = embeddings.flatten(0, 1).index_select(0, place_A)
    total, count = sample_to_sample(
        own_AP,
        place_A % labels,
        bank_embeddings,
        bank_labels.long(),
        labels=labels,
        temperature=temperature,
        normalize=normalize,
    )
    return reduced(total, count, reduction)


def check_contrast(embeddings: Tensor, targets: Tensor, temperature: float, reduction: str) -> None:
    """Refuse shapes and values that no contrast can mean."""
    if embeddings.dim() != 3 or embeddings.shape[:2] != targets.shape:
        raise ValueError(
            f"embeddings (N, L, P) and targets (N, L) must fit, but got {tuple(embeddings.shape)} and {tuple(targets.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature > 0 must hold, but got {temperature}")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', but got {reduction!r}")


def reduced(total: Tensor, count: Tensor, reduction: str) -> Tensor:
    """A worker's loss from its sum and count: W times its share of the global loss."""
    divisor = distributed.global_sum(count).clamp(min=1) if reduction == "mean" else 1
    return distributed.world_size() * total / divisor
