r"""The sample-to-sample contrast (Eq. 4), computed on activated rows only.

    L_S2S^{ij} = \sum_{p in P(i,j)} log( exp(x_ij.p / tau) / \sum_{a in A(i,j)} exp(x_ij.a / tau) )
    L_S2S      = \sum_{x_ij in I} -1 / |P(i,j)| * L_S2S^{ij}                                 (Eq. 4)

I         the candidates: all activated rows (y_ij = 1) of the global batch and the bank's rows
x_ij      an anchor: the projected row of image i and label j, of length 1 with ``normalize``
A(i,j)    I without the anchor x_ij
P(i,j)    the positives: the rows of A(i,j) that have the label j
tau       the temperature, > 0

Gradient. Write u_c for candidate c, t = 1 / tau, n_j for the number of candidates with label j,
S_j for their sum, w_j = t / (n_j - 1), and

    q_ac = exp(t u_a . u_c) / \sum_{b != a} exp(t u_a . u_b),  q_aa = 0.

An anchor a with label j adds

    l_a = log \sum_{b != a} exp(t u_a . u_b) - w_j u_a . (S_j - u_a)

and therefore

    dl_a/du_a = t \sum_c q_ac u_c - w_j (S_j - u_a)
    dl_a/du_c = t q_ac u_a - w_j u_a [c has label j]    for c != a.

Only q needs similarities. Summed over the anchors with label j, the last term is -w_j T_j, where
T_j is the sum of these anchors. The code adds it to every candidate with label j, which includes
c = a, and then adds w_j u_a to each anchor to correct that. With u = r / |r| and g = dL/du, the
gradient of a row r is (g - u (g . u)) / |r|.

Value and gradient are compared with plain loops in
tests/losses/test_sample_to_sample.py::test_equals_plain_loops.

Axes: A activated rows of this worker, G activated rows of the global batch, M bank rows,
C = G + M candidates, Q anchors of this worker, K anchors of one block, L labels, E = L + 1 (the
labels, and one for padding rows), P embedding size, N images.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sadcl import distributed
from sadcl.losses.contrast import (
    check_contrast,
    positive_index,
    reduce_globally,
    safe_inverse,
)

CHUNK = 256
"""On a CPU, anchors whose similarities are held at once; more where the candidates are few."""
BLOCK = 1 << 18
"""On a CPU, similarities that are held at once where ``CHUNK`` anchors have fewer."""
GPU_BYTES = 1 << 28
"""On a GPU, bytes of similarities that are held at once: it needs few and large kernels."""


class BatchRows(NamedTuple):
    """This worker's activated rows, and what it knows of those of all workers."""

    local_AP: Tensor
    """Activated rows of this worker's images, ordered by (image, label)."""
    labels_G: Tensor
    """Label index of each activated row of the global batch, ordered by (position, label)."""
    sizes: list[int]
    """Activated rows of each worker."""


def gather_labels(local_AP: Tensor, local_labels_A: Tensor) -> BatchRows:
    """Gather the labels of the rows of all workers.

    This is a collective call, in which the host waits for the device. A loader's batch needs none:
    every worker knows the labels of the global batch.
    """
    sizes = distributed.all_gather_sizes(len(local_AP), local_AP.device)
    return BatchRows(local_AP, distributed.all_gather_rows(local_labels_A, sizes), sizes)


class Candidates(NamedTuple):
    """The set I of Eq. 4, and the anchors in it whose terms this worker computes."""

    batch_GP: Tensor
    """Activated rows of the global batch, ordered by (position, label)."""
    bank_MP: Tensor
    """Rows of the bank."""
    labels_C: Tensor
    """Label index of each candidate; L for a padding row, a label that no anchor has."""
    count_E: Tensor
    """Number of candidates with each label."""
    anchors_Q: Tensor
    """Index of each anchor among the candidates."""
    has_positive_Q: Tensor
    """Whether an anchor is a row (no padding) and has a positive."""
    sizes: list[int]
    """Activated rows of each worker."""
    padded: bool
    """Whether the bank may hold padding rows."""


def gather_candidates(
    rows: BatchRows,
    bank_MP: Tensor,
    bank_labels_M: Tensor,
    *,
    num_labels: int,
    anchors: str = "batch+bank",
    bank_scope: str = "cluster",
    padded: bool = False,
) -> Candidates:
    """Gather the activated rows of all workers and choose this worker's anchors.

    This is a collective call. This worker's anchors are the activated rows of its own images and,
    with ``anchors="batch+bank"``, every W-th bank row of W workers, so that over the workers each
    anchor counts once. With ``bank_scope="worker"`` they are all rows of its own bank, which no
    other worker sees.

    Args:
        rows: activated rows of the batch.
        bank_MP: rows of the bank.
        bank_labels_M: label index of each; -1 for a padding row.
        num_labels: L.
        anchors: ``batch+bank``, or ``batch`` for the rows of the batch alone.
        bank_scope: ``cluster`` where all workers hold the same bank, ``worker`` where each holds
            its own.
        padded: needed where ``bank_labels_M`` may hold -1; then nothing waits for the device.
    """
    dtype = torch.float64 if rows.local_AP.dtype == torch.float64 else torch.float32
    batch_GP = distributed.all_gather_rows(rows.local_AP.to(dtype), rows.sizes)
    labels_C = torch.cat([rows.labels_G, bank_labels_M])
    start = sum(rows.sizes[: distributed.rank()])
    anchors_Q = torch.arange(start, start + len(rows.local_AP), device=labels_C.device)
    if anchors == "batch+bank":
        first, stride = 0, 1
        if bank_scope == "cluster":
            first, stride = distributed.rank(), distributed.world_size()
        candidates_C = torch.arange(len(labels_C), device=labels_C.device)
        anchors_Q = torch.cat([anchors_Q, candidates_C[len(batch_GP) + first :: stride]])
    labels_C = torch.where(labels_C < 0, num_labels, labels_C)
    count_E = labels_C.new_zeros(num_labels + 1).index_add_(0, labels_C, torch.ones_like(labels_C))
    has_positive_Q = (count_E[labels_C[anchors_Q]] > 1) & (labels_C[anchors_Q] < num_labels)
    bank_MP = bank_MP.to(dtype)
    return Candidates(
        batch_GP, bank_MP, labels_C, count_E, anchors_Q, has_positive_Q, rows.sizes, padded
    )


def sample_to_sample(
    candidates: Candidates, *, temperature: float, normalize: bool = True
) -> tuple[Tensor, Tensor]:
    """Eq. 4 over the whole global batch: this worker's sum and its number of counted anchors.

    An anchor without a positive adds nothing and is not counted. The gradients that the workers
    compute add up to the gradient of the global sum.

    Returns:
        (sum, count), both scalars; the sum has a gradient also where no anchor counts.
    """
    counted_Q = candidates.has_positive_Q
    total = sum_over_anchors(candidates, counted_Q, temperature=temperature, normalize=normalize)
    return total, counted_Q.sum().to(total.dtype)


def sum_over_anchors(
    candidates: Candidates, selected_Q: Tensor, *, temperature: float, normalize: bool
) -> Tensor:
    """Sum the terms of Eq. 4 over the selected anchors, each of which has a positive.

    Where the bank is padded, the other anchors are computed too and multiplied by 0: selecting
    would wait for the device.
    """
    anchors_Q = candidates.anchors_Q if candidates.padded else candidates.anchors_Q[selected_Q]
    with torch.autocast(candidates.batch_GP.device.type, enabled=False):
        total: Tensor = _Contrast.apply(
            candidates.batch_GP,
            candidates.bank_MP,
            candidates.labels_C,
            candidates.count_E,
            anchors_Q,
            selected_Q if candidates.padded else None,
            1 / temperature,
            normalize,
        )
    return total


class _Contrast(torch.autograd.Function):
    """Sum of l_a over the anchors; the forward pass also computes the gradient.

    The module's docstring derives it. At most K x C similarities exist at once, and only the
    gradient of the candidates is kept for the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        batch_GP: Tensor,
        bank_MP: Tensor,
        labels_C: Tensor,
        count_E: Tensor,
        anchors_Q: Tensor,
        selected_Q: Tensor | None,
        scale: float,
        normalize: bool,
    ) -> Tensor:
        rows_CP = torch.cat([batch_GP, bank_MP])
        if normalize:
            inverse_C1 = safe_inverse(torch.linalg.vector_norm(rows_CP, dim=1, keepdim=True))
            rows_CP *= inverse_C1
        size = rows_at_once(len(rows_CP), rows_CP.element_size(), rows_CP.device)
        blocks = _blocks(anchors_Q, selected_Q, size, rows_CP.dtype)
        sum_EP = rows_CP.new_zeros(len(count_E), rows_CP.shape[1]).index_add_(0, labels_C, rows_CP)
        anchor_sum_EP = torch.zeros_like(sum_EP)  # T
        for index_K, selected_K1 in blocks:
            anchor_KP = rows_CP[index_K]
            anchor_sum_EP.index_add_(
                0, labels_C[index_K], anchor_KP if selected_K1 is None else anchor_KP * selected_K1
            )
        weight_E = scale / (count_E - 1).clamp(min=1).to(rows_CP.dtype)
        gradient_CP = (anchor_sum_EP * -weight_E[:, None])[labels_C]
        padding_C = None
        if selected_Q is not None:
            padding_C = torch.where(labels_C < len(count_E) - 1, 0.0, -torch.inf).to(rows_CP.dtype)
        terms = _Terms(rows_CP, labels_C, padding_C, sum_EP, weight_E, scale, gradient_CP)
        total = rows_CP.new_zeros(())
        for index_K, selected_K1 in blocks:
            positives, denominators = terms.add_block(index_K, selected_K1)
            total -= positives
            total += denominators
        if normalize:
            size = rows_at_once(rows_CP.shape[1], rows_CP.element_size(), rows_CP.device)
            for row_KP, slope_KP, inverse_K1 in zip(
                *(part.split(size) for part in (rows_CP, gradient_CP, inverse_C1)), strict=True
            ):
                slope_KP.sub_(row_KP * (slope_KP * row_KP).sum(1, keepdim=True)).mul_(inverse_K1)
        ctx.save_for_backward(gradient_CP)
        ctx.batch_rows = len(batch_GP)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_CP,) = ctx.saved_tensors
        batch_GP, bank_MP = gradient_CP[: ctx.batch_rows], gradient_CP[ctx.batch_rows :]
        needs_batch, needs_bank, *_ = ctx.needs_input_grad
        return (
            batch_GP * gradients[0] if needs_batch else None,
            bank_MP * gradients[0] if needs_bank else None,
            *(None,) * 6,
        )


def rows_at_once(columns: int, element_size: int, device: torch.device) -> int:
    """Choose how many rows of so many columns a device holds in a temporary tensor."""
    if device.type == "cpu":
        return max(CHUNK, BLOCK // max(columns, 1))
    return max(1, GPU_BYTES // (max(columns, 1) * element_size))


def _blocks(
    anchors_Q: Tensor, selected_Q: Tensor | None, size: int, dtype: torch.dtype
) -> list[tuple[Tensor, Tensor | None]]:
    """Split the anchors into blocks of at most ``size``.

    Returns:
        The anchors' indices, and 1 for a selected anchor or 0 for another one; None without
        padding, where all are selected.
    """
    if not len(anchors_Q):
        return []
    chunks = anchors_Q.split(size)
    if selected_Q is None:
        return [(index_K, None) for index_K in chunks]
    return list(zip(chunks, selected_Q.to(dtype)[:, None].split(size), strict=True))


class _Terms(NamedTuple):
    """What the terms of all anchors share, in the notation of the module's docstring."""

    rows_CP: Tensor
    """u"""
    labels_C: Tensor
    padding_C: Tensor | None
    """-inf for a padding row, 0 for another one; None without padding."""
    sum_EP: Tensor
    """S"""
    weight_E: Tensor
    """w"""
    scale: float
    """t"""
    gradient_CP: Tensor
    """dL/du, added to in place."""

    def add_block(self, index_K: Tensor, selected_K1: Tensor | None) -> tuple[Tensor, Tensor]:
        """Add the gradient of a block of anchors, and return the sums of both parts of their l_a.

        Returns:
            The sum of w_j u_a . (S_j - u_a), and the sum of the logarithms of the denominators.
        """
        rows_CP, scale = self.rows_CP, self.scale
        labels_K, anchor_KP = self.labels_C[index_K], rows_CP[index_K]
        weight_K1 = self.weight_E[labels_K, None]
        if selected_K1 is not None:
            weight_K1 = weight_K1 * selected_K1
        positive_KP = self.sum_EP[labels_K].sub_(anchor_KP)
        positives = (positive_KP * weight_K1 * anchor_KP).sum()
        gradient_KP = positive_KP.sub_(anchor_KP).mul_(-weight_K1)
        anchor_KP *= scale
        share_KC = (
            anchor_KP @ rows_CP.T
            if self.padding_C is None
            else torch.addmm(self.padding_C, anchor_KP, rows_CP.T)
        )
        share_KC.scatter_(1, index_K[:, None], -torch.inf)
        highest_K1 = share_KC.amax(1, keepdim=True)
        if selected_K1 is not None:  # the highest of a row without other candidates is -inf
            highest_K1.clamp_(min=torch.finfo(rows_CP.dtype).min)
        mass_K1 = share_KC.sub_(highest_K1).exp_().sum(1, keepdim=True)
        denominator_K1 = mass_K1.log() + highest_K1
        if selected_K1 is not None:
            denominator_K1 = torch.where(selected_K1 > 0, denominator_K1, 0)
            mass_K1 = torch.where(selected_K1 > 0, mass_K1, torch.inf)
        # From here on share_KC / mass_K1 is q.
        gradient_KP += (share_KC @ rows_CP).mul_(scale / mass_K1)
        self.gradient_CP.index_add_(0, index_K, gradient_KP)
        self.gradient_CP.addmm_(share_KC.T, anchor_KP.div_(mass_K1))
        return positives, denominator_K1.sum()


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

    It departs from the paper's letter in one point: ``reduction="mean"`` divides by the counted
    anchors, so that the value does not grow with the batch. In a process group the batch is that of
    all workers, who all make this call with the same bank; the mean of their results is the loss,
    so that DDP's mean of gradients is its gradient.

    Args:
        embeddings: (N, L, P) projected label-level representations.
        targets: (N, L) with 1, 0 or -1 (ignored); rows with 1 are anchors and candidates.
        bank_embeddings: (M, P) projected bank rows; they are anchors and candidates too.
        bank_labels: (M,) label index of each bank row.
        temperature: tau > 0.
        normalize: compare by cosine; a zero row is compared as zero.
        reduction: ``mean`` over counted anchors, or ``sum``.

    Returns:
        Scalar; 0 with a gradient where no anchor has a positive.

    Raises:
        ValueError: for shapes that do not fit, a label index out of range, a temperature that is
            not positive, or an unknown reduction.

    Source: Ma et al., ECAI 2023, Eq. 4.
    """
    check_contrast(embeddings, targets, temperature, reduction)
    num_labels = targets.shape[1]
    if (bank_embeddings is None) != (bank_labels is None):
        raise ValueError("bank_embeddings and bank_labels go together, but only one was given")
    if bank_embeddings is None or bank_labels is None:
        bank_embeddings = embeddings.new_zeros(0, embeddings.shape[2])
        bank_labels = targets.new_zeros(0)
    if bank_labels.dim() != 1 or bank_embeddings.shape != (len(bank_labels), embeddings.shape[2]):
        raise ValueError(
            f"bank_embeddings must be (M, {embeddings.shape[2]}) and bank_labels (M,), but got "
            f"{tuple(bank_embeddings.shape)} and {tuple(bank_labels.shape)}"
        )
    if len(bank_labels) and not 0 <= int(bank_labels.min()) <= int(bank_labels.max()) < num_labels:
        raise ValueError(
            f"bank_labels must be in 0..{num_labels - 1}, but go from {int(bank_labels.min())} "
            f"to {int(bank_labels.max())}"
        )
    index_A = positive_index(targets)
    local_AP = embeddings.flatten(0, 1).index_select(0, index_A)
    candidates = gather_candidates(
        gather_labels(local_AP, index_A % num_labels),
        bank_embeddings,
        bank_labels.long(),
        num_labels=num_labels,
    )
    total, count = sample_to_sample(candidates, temperature=temperature, normalize=normalize)
    return reduce_globally(total, count, reduction)
