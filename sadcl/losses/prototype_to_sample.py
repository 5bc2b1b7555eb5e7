"""The prototype-to-sample contrast (Eq. 6).

Axes: B images of this worker, N of the global batch, L labels, P embedding size, J labels that this worker sums.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sadcl import distributed
from sadcl.losses.sample_to_sample import ZERO, check_contrast, reduced


class _Similarity(torch.autograd.Function):
    """Scaled (cosine) similarity of every embedding to its label's prototype, without a copy of the embeddings."""

    @staticmethod
    def forward(ctx: Any, embeddings_BLP: Tensor, prototypes_LP: Tensor, scale: float, normalize: bool) -> Tensor:
        length_BL, length_L = (
            embeddings_BLP.new_ones(embeddings_BLP.shape[:2]),
            prototypes_LP.new_ones(len(prototypes_LP)),
        )
        if normalize:
            length_BL = torch.linalg.vector_norm(embeddings_BLP, dim=2)
            length_L = torch.linalg.vector_norm(prototypes_LP, dim=1)
        inverse_BL = (length_BL > ZERO) / length_BL.clamp(min=ZERO)
        inverse_L = (length_L > ZERO) / length_L.clamp(min=ZERO)
        similarity_BL = torch.einsum("blp,lp->bl", embeddings_BLP, prototypes_LP) * inverse_BL * inverse_L * scale
        ctx.save_for_backward(embeddings_BLP, prototypes_LP, similarity_BL, inverse_BL, inverse_L)
        ctx.scale, ctx.normalize = scale, normalize
        return similarity_BL

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        embeddings_BLP, prototypes_LP, similarity_BL, inverse_BL, inverse_L = ctx.saved_tensors
        cross_BL = gradients[0] * inverse_BL * inverse_L * ctx.scale
        along_BL = -gradients[0] * similarity_BL * ctx.normalize
        to_embeddings, to_prototypes = None, None
        if ctx.needs_input_grad[0]:
            to_embeddings = embeddings_BLP * (along_BL * inverse_BL**2)[..., None]
            to_embeddings.addcmul_(cross_BL[..., None], prototypes_LP)
        if ctx.needs_input_grad[1]:
            to_prototypes = torch.einsum("bl,blp->lp", cross_BL, embeddings_BLP)
            to_prototypes.addcmul_((along_BL.sum(0) * inverse_L**2)[:, None], prototypes_LP)
        return to_embeddings, to_prototypes, None, None


def prototype_to_sample(
    embeddings_BLP: Tensor,
    targets_BL: Tensor,
    prototypes_LP: Tensor,
    valid_L: Tensor,
    *,
    temperature: float,
    normalize: bool = True,
) -> tuple[Tensor, Tensor]:
    """Eq. 6 over the whole global batch: this worker's sum and its number of counted labels.

    A label counts where it has a positive in the global batch and a valid prototype. Only the (B, L) similarities
    travel; worker w sums the labels j = w (mod W), so that the sum over workers counts each label once.

    Returns:
        (sum, count), both scalars; the sum has a gradient also where it is empty.
    """
    dtype = torch.float64 if embeddings_BLP.dtype == torch.float64 else torch.float32
    with torch.autocast(embeddings_BLP.device.type, enabled=False):
        similarity_BL: Tensor = _Similarity.apply(
            embeddings_BLP.to(dtype), prototypes_LP.to(dtype), 1 / temperature, normalize
        )
        sizes = distributed.all_gather_sizes(len(similarity_BL), similarity_BL.device)
        similarity_NL = distributed.all_gather_rows(similarity_BL, sizes)
        targets_NL = distributed.all_gather_rows(targets_BL, sizes)
        own = slice(distributed.rank(), None, distributed.world_size())
        similarity_NJ, targets_NJ = similarity_NL[:, own], targets_NL[:, own]
        counted_J = (targets_NJ == 1).any(0) & valid_L[own]
        similarity_NJ, targets_NJ = similarity_NJ[:, counted_J], targets_NJ[:, counted_J]
        all_J = similarity_NJ.masked_fill(targets_NJ == -1, -torch.inf).logsumexp(0)
        positive_J = similarity_NJ.masked_fill(targets_NJ != 1, -torch.inf).logsumexp(0)
        return (all_J - positive_J).sum(), counted_J.sum().to(dtype)


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
        raise ValueError(f"prototypes must be (L, P) = {tuple(embeddings.shape[1:])}, but got {tuple(prototypes.shape)}")
    if valid is None:
        valid = torch.ones(len(prototypes), dtype=torch.bool, device=prototypes.device)
    if valid.shape != prototypes.shape[:1] or valid.dtype != torch.bool:
        raise ValueError(f"valid must be bool ({len(prototypes)},), but got {valid.dtype} {tuple(valid.shape)}")
    total, count = prototype_to_sample(embeddings, targets, prototypes, valid, temperature=temperature, normalize=normalize)
    return reduced(total, count, reduction)
