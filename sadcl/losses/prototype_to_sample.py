r"""The prototype-to-sample contrast (Eq. 6).

    L_P2S = - \sum_{j in C} log [ \sum_{i: y_ij = 1} exp(c_j . x_ij / tau)
                                 / \sum_{i: y_ij != -1} exp(c_j . x_ij / tau) ]              (Eq. 6)

C       the labels that have a positive in the global batch and a valid prototype
c_j     the projected prototype of label j, of length 1 with ``normalize``
x_ij    the projected row of image i and label j, of length 1 with ``normalize``
tau     the temperature, > 0; targets y_ij = -1 are ignored

The published run divides the sum by the number of positives of the batch, and adds for a label
without a positive

    log \sum_i exp(s_ij - m_j)  with the constant  m_j = max_i s_ij,

which pushes all its rows away from its prototype (``push_absent``).

The logarithms are left to autograd. The similarities s_ij = t v_j . u_ij, with t = 1 / tau and the
unit rows u = x / |x| and v = c / |c|, have a gradient by hand: for g_ij = dL/ds_ij

    dL/dx_ij = ( g_ij t v_j - g_ij s_ij u_ij ) / |x_ij|
    dL/dc_j  = ( \sum_i g_ij t u_ij - (\sum_i g_ij s_ij) v_j ) / |c_j|

because s does not change along x, nor along c: the second terms take out that part. Without
``normalize`` the lengths are 1 and the second terms are absent.

Value and gradient are compared with plain loops in
tests/losses/test_prototype_to_sample.py::test_equals_plain_loops.

Axes: B images of this worker, N of the global batch, L labels, P embedding size, J labels that this
worker sums, A activated rows of this worker.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sadcl import distributed
from sadcl.losses.contrast import check_contrast, reduce_globally, safe_inverse


class _Similarity(torch.autograd.Function):
    """Scaled similarity of every embedding to its label's prototype, and the rows at some indices.

    One function returns both because both depend on all embeddings: their gradient is written once,
    and no other tensor of that size is made. The module's docstring derives it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        embeddings_BLP: Tensor,
        prototypes_LP: Tensor,
        index_A: Tensor,
        scale: float,
        normalize: bool,
    ) -> tuple[Tensor, Tensor]:
        inverse_BL = embeddings_BLP.new_ones(embeddings_BLP.shape[:2])
        inverse_L = prototypes_LP.new_ones(len(prototypes_LP))
        if normalize:
            inverse_BL = safe_inverse(torch.linalg.vector_norm(embeddings_BLP, dim=2))
            inverse_L = safe_inverse(torch.linalg.vector_norm(prototypes_LP, dim=1))
        unit_LP = prototypes_LP * inverse_L[:, None]
        product_LB = _bmm(embeddings_BLP.transpose(0, 1), unit_LP[:, :, None])[..., 0]
        similarity_BL = product_LB.t() * inverse_BL * scale
        ctx.save_for_backward(
            embeddings_BLP, unit_LP, similarity_BL, inverse_BL, inverse_L, index_A
        )
        ctx.scale, ctx.normalize = scale, normalize
        return similarity_BL, embeddings_BLP.flatten(0, 1).index_select(0, index_A)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        embeddings_BLP, unit_LP, similarity_BL, inverse_BL, inverse_L, index_A = ctx.saved_tensors
        cross_BL = gradients[0] * inverse_BL * ctx.scale  # g t / |x|
        along_BL = -gradients[0] * similarity_BL * ctx.normalize  # -g s
        to_embeddings = torch.empty_like(embeddings_BLP, memory_format=torch.contiguous_format)
        torch.mul(embeddings_BLP, (along_BL * inverse_BL**2)[..., None], out=to_embeddings)
        to_embeddings.addcmul_(cross_BL[..., None], unit_LP)
        to_embeddings.flatten(0, 1).index_add_(0, index_A, gradients[1])
        to_prototypes = along_BL.sum(0)[:, None] * unit_LP
        to_prototypes += _bmm(cross_BL.t()[:, None], embeddings_BLP.transpose(0, 1))[:, 0]
        needs_embeddings, needs_prototypes, *_ = ctx.needs_input_grad
        return (
            to_embeddings if needs_embeddings else None,
            to_prototypes * inverse_L[:, None] if needs_prototypes else None,
            None,
            None,
            None,
        )


def _bmm(left: Tensor, right: Tensor) -> Tensor:
    """Batched matrix product that needs no C compiler on a GPU.

    Of :func:`torch.bmm`, torch 2.14 replaces columns times rows by a kernel that Triton compiles.
    """
    return torch.bmm(left, right) if left.shape[2] > 1 else left * right


def similarities(
    embeddings_BLP: Tensor,
    prototypes_LP: Tensor,
    index_A: Tensor,
    *,
    temperature: float,
    normalize: bool,
) -> tuple[Tensor, Tensor]:
    """Compute what both contrasts compare, in float32 or wider whatever the embeddings' type.

    Args:
        embeddings_BLP: projected label-level representations.
        prototypes_LP: projected prototypes.
        index_A: indices into the flattened (B, L) axes of the embeddings.
        temperature: tau > 0.
        normalize: compare by cosine; a zero row is compared as zero.

    Returns:
        (B, L) similarities to the prototypes, divided by tau, and the embeddings at ``index_A``,
        (A, P).
    """
    dtype = torch.float64 if embeddings_BLP.dtype == torch.float64 else torch.float32
    with torch.autocast(embeddings_BLP.device.type, enabled=False):
        similarity_BL, rows_AP = _Similarity.apply(
            embeddings_BLP.to(dtype), prototypes_LP.to(dtype), index_A, 1 / temperature, normalize
        )
    return similarity_BL, rows_AP


def prototype_to_sample(
    similarity_BL: Tensor,
    targets_BL: Tensor,
    valid_L: Tensor,
    *,
    sizes: list[int] | None = None,
    push_absent: bool = False,
) -> tuple[Tensor, Tensor]:
    """Eq. 6 over the whole global batch: this worker's sum and its number of counted labels.

    A label counts where it has a positive in the global batch and a valid prototype. Only the (B,
    L) similarities travel. Worker w of W sums the labels j = w (mod W), so that over the workers
    each label counts once.

    Args:
        similarity_BL: from :func:`similarities`.
        targets_BL: 1, 0 or -1 (ignored).
        valid_L: whether each label has a prototype.
        sizes: images of each worker; None gathers the numbers here, for which the host waits.
        push_absent: add the term of the published run for a label with a prototype and without a
            positive; it is not counted.

    Returns:
        (sum, count), both scalars; the sum has a gradient also where no label counts.
    """
    if sizes is None:
        sizes = distributed.all_gather_sizes(len(similarity_BL), similarity_BL.device)
    similarity_NL = distributed.all_gather_rows(similarity_BL, sizes)
    targets_NL = distributed.all_gather_rows(targets_BL, sizes)
    local = slice(distributed.rank(), None, distributed.world_size())
    similarity_NJ, targets_NJ = similarity_NL[:, local], targets_NL[:, local]
    counted_J = (targets_NJ == 1).any(0) & valid_L[local]
    # A label that does not count keeps all images in both sums and adds exactly 0: selecting the
    # counted labels would wait for the device.
    all_J = similarity_NJ.masked_fill((targets_NJ == -1) & counted_J, -torch.inf).logsumexp(0)
    positive_J = similarity_NJ.masked_fill((targets_NJ != 1) & counted_J, -torch.inf).logsumexp(0)
    total = (all_J - positive_J).sum()
    if push_absent:
        absent_J = ~(targets_NJ == 1).any(0) & (targets_NJ != -1).any(0) & valid_L[local]
        known_NJ = similarity_NJ.masked_fill((targets_NJ == -1) & absent_J, -torch.inf)
        pushed_J = known_NJ.logsumexp(0) - known_NJ.detach().amax(0)
        total = total + torch.where(absent_J, pushed_J, 0).sum()
    return total, counted_J.sum().to(similarity_BL.dtype)


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

    It departs from the paper's letter in two points: ``reduction="mean"`` divides by the counted
    labels, and a label without a positive in the batch adds nothing (the logarithm of its empty sum
    is not defined). In a process group the batch is that of all workers, who all make this call;
    the mean of their results is the loss, so that DDP's mean of gradients is its gradient.

    Args:
        embeddings: (N, L, P) projected label-level representations.
        targets: (N, L) with 1, 0 or -1 (ignored).
        prototypes: (L, P) projected prototypes.
        temperature: tau > 0.
        normalize: compare by cosine; a zero row is compared as zero.
        reduction: ``mean`` over counted labels, ``positives`` to divide by the targets that are 1
            (the published run), or ``sum``.
        valid: (L,) bool, False for a label without a prototype; None means all True.

    Returns:
        Scalar; 0 with a gradient where no label counts.

    Raises:
        ValueError: for shapes that do not fit, a temperature that is not positive, or an unknown
            reduction.

    Source: Ma et al., ECAI 2023, Eq. 6.
    """
    check_contrast(embeddings, targets, temperature, reduction, ("mean", "positives", "sum"))
    if prototypes.shape != embeddings.shape[1:]:
        raise ValueError(
            f"prototypes must be (L, P) = {tuple(embeddings.shape[1:])}, but got "
            f"{tuple(prototypes.shape)}"
        )
    if valid is None:
        valid = torch.ones(len(prototypes), dtype=torch.bool, device=prototypes.device)
    if valid.shape != prototypes.shape[:1] or valid.dtype != torch.bool:
        raise ValueError(
            f"valid must be bool ({len(prototypes)},), but got {valid.dtype} {tuple(valid.shape)}"
        )
    no_index = torch.zeros(0, dtype=torch.int64, device=embeddings.device)
    similarity_BL, _ = similarities(
        embeddings, prototypes, no_index, temperature=temperature, normalize=normalize
    )
    total, count = prototype_to_sample(similarity_BL, targets, valid)
    if reduction == "positives":
        count = (targets == 1).sum().to(count.dtype)
    return reduce_globally(total, count, reduction)
