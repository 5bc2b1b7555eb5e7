"""The prototype-to-sample contrast (Eq. 6).

Axes: B images of this worker, N of the global batch, L labels, P embedding size, J labels that this worker sums,
A activated rows of this worker.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sadcl import distributed
from sadcl.losses.sample_to_sample import check_contrast, reduced, safe_inverse


class _Similarity(torch.autograd.Function):
    """Scaled (cosine) similarity of every embedding to its label's prototype, and the embeddings at some places.

    Both leave in one function because both reach all of the embeddings: their gradient is written once, and no other tensor
    of that size is made.
    """

    @staticmethod
    def forward(
        ctx: Any,
        embeddings_BLP: Tensor,
        prototypes_LP: Tensor,
        place_A: Tensor,
        scale: float,
        normalize: bool,
    ) -> tuple[Tensor, Tensor]:
        inverse_BL, inverse_L = (
            embeddings_BLP.new_ones(embeddings_BLP.shape[:2]),
            prototypes_LP.new_ones(len(prototypes_LP)),
        )
        if normalize:
            inverse_BL = safe_inverse(torch.linalg.vector_norm(embeddings_BLP, dim=2))
            inverse_L = safe_inverse(torch.linalg.vector_norm(prototypes_LP, dim=1))
        unit_LP = prototypes_LP * inverse_L[:, None]
        product_LB = torch.bmm(embeddings_BLP.transpose(0, 1), unit_LP[:, :, None])[..., 0]
        similarity_BL = product_LB.t() * inverse_BL * scale
        ctx.save_for_backward(
            embeddings_BLP, unit_LP, similarity_BL, inverse_BL, inverse_L, place_A
        )
        ctx.scale, ctx.normalize = scale, normalize
        return similarity_BL, embeddings_BLP.flatten(0, 1).index_select(0, place_A)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        embeddings_BLP, unit_LP, similarity_BL, inverse_BL, inverse_L, place_A = ctx.saved_tensors
        cross_BL = gradients[0] * inverse_BL * ctx.scale
        along_BL = -gradients[0] * similarity_BL * ctx.normalize
        to_embeddings = torch.empty_like(embeddings_BLP, memory_format=torch.contiguous_format)
        torch.mul(embeddings_BLP, (along_BL * inverse_BL**2)[..., None], out=to_embeddings)
        to_embeddings.addcmul_(cross_BL[..., None], unit_LP)
        to_embeddings.flatten(0, 1).index_add_(0, place_A, gradients[1])
        to_prototypes = along_BL.sum(0)[:, None] * unit_LP
        to_prototypes += torch.bmm(cross_BL.t()[:, None], embeddings_BLP.transpose(0, 1))[:, 0]
        wanted = ctx.needs_input_grad
        return (
            to_embeddings if wanted[0] else None,
            to_prototypes * inverse_L[:, None] if wanted[1] else None,
            None,
            None,
            None,
        )


def similarities(
    embeddings_BLP: Tensor,
    prototypes_LP: Tensor,
    place_A: Tensor,
    *,
    temperature: float,
    normalize: bool,
) -> tuple[Tensor, Tensor]:
    """What both contrasts compare: (B, L) similarities to the prototypes by tau, and the rows at ``place_A`` (A, P).

    In float32 or wider, whatever the embeddings are.

    Args:
        place_A: indices into the embeddings' first two axes, flattened.
    """
    dtype = torch.float64 if embeddings_BLP.dtype == torch.float64 else torch.float32
    with torch.autocast(embeddings_BLP.device.type, enabled=False):
        similarity_BL, rows_AP = _Similarity.apply(
            embeddings_BLP.to(dtype), prototypes_LP.to(dtype), place_A, 1 / temperature, normalize
        )
    return similarity_BL, rows_AP


def prototype_to_sample(
    similarity_BL: Tensor, targets_BL: Tensor, valid_L: Tensor
) -> tuple[Tensor, Tensor]:
    """Eq. 6 over the whole global batch: this worker's sum and its number of counted labels.

    A label counts where it has a positive in the global batch and a valid prototype. Only the (B, L) similarities
    travel; worker w sums the labels j = w (mod W), so that the sum over workers counts each label once.

    Args:
        similarity_BL: from :func:`similarities`.

    Returns:
        (sum, count), both scalars; the sum has a gradient also where it is empty.
    """
    sizes = distributed.all_gather_sizes(len(similarity_BL), similarity_BL.device)
    similarity_NL = distributed.all_gather_rows(similarity_BL, sizes)
    targets_NL = distributed.all_gather_rows(targets_BL, sizes)
    own = slice(distributed.rank(), None, distributed.world_size())
    similarity_NJ, targets_NJ = similarity_NL[:, own], targets_NL[:, own]
    counted_J = (targets_NJ == 1).any(0) & valid_L[own]
    # a label that does not count keeps all images in both sums, so that it adds exactly 0: its choice waits for no device
    all_J = similarity_NJ.masked_fill((targets_NJ == -1) & counted_J, -torch.inf).logsumexp(0)
    positive_J = similarity_NJ.masked_fill((targets_NJ != 1) & counted_J, -torch.inf).logsumexp(0)
    return (all_J - positive_J).sum(), counted_J.sum().to(similarity_BL.dtype)


def prototype_to_sample_loss(
    embeddings: Tensor,
    targets: Tensor,
    prototypes: Tensor,
    *,
    temperature: float,
    normalize: bool = True,
    reduction: str = "mean",
    valid: Tensor | None = None,
) -> Tensor:
    """Prototype-to-sample contrastive loss (Eq. 6).

    Departs from the paper's letter in two points: ``reduction="mean"`` divides by the counted labels, and a label
    without a positive in the batch adds nothing (the logarithm of its empty sum is not defined). In a process group the
    batch is that of all workers, who all make this call; the mean of what they get is the loss, so that DDP's mean of
    gradients is its gradient.

    Args:
        embeddings: (N, L, P) projected label-level representations.
        targets: (N, L) with 1, 0 or -1 (ignored).
        prototypes: (L, P) projected prototypes.
        temperature: tau > 0.
        normalize: compare by cosine; a zero row is compared as zero.
        reduction: ``mean`` over counted labels, or ``sum``.
        valid: (L,) bool, False for a label that has no prototype yet; None is all True.

    Returns:
        Scalar; 0 with a gradient where no label counts.

    Raises:
        ValueError: for shapes that do not fit, a temperature that is not positive, or another reduction.

    Source: Ma et al., ECAI 2023, Eq. 6.
    """
    check_contrast(embeddings, targets, temperature, reduction)
    if prototypes.shape != embeddings.shape[1:]:
        raise ValueError(
            f"prototypes must be (L, P) = {tuple(embeddings.shape[1:])}, but got {tuple(prototypes.shape)}"
        )
    if valid is None:
        valid = torch.ones(len(prototypes), dtype=torch.bool, device=prototypes.device)
    if valid.shape != prototypes.shape[:1] or valid.dtype != torch.bool:
        raise ValueError(
            f"valid must be bool ({len(prototypes)},), but got {valid.dtype} {tuple(valid.shape)}"
        )
    nowhere = torch.zeros(0, dtype=torch.int64, device=embeddings.device)
    similarity_BL, _ = similarities(
        embeddings, prototypes, nowhere, temperature=temperature, normalize=normalize
    )
    total, count = prototype_to_sample(similarity_BL, targets, valid)
    return reduced(total, count, reduction)
