r"""ML-GCN: classifiers that a graph of the labels generates from word vectors.

    P_ij = N_ij / n_i,    B_ij = [P_ij >= t]                    (conditional probability, binarised)
    A_ij = p B_ij / (sum_k B_kj + 1e-6) + [i = j]               (re-weighted)
    Â_ij = A_ji / sqrt(d_i d_j),    d_i = sum_j A_ij            (normalised; note the transpose)
    E1 = lrelu(Â Z G1),    E2 = Â E1 G2                         (two graph convolutions)
    logits = E2 f,    f = max_p x_p                             (E2: a classifier for each label)

N_ij is the number of training images with both labels (N_ii = 0), n_i of those with label i; Z are
the word vectors, x_p the feature map at position p, lrelu has the slope 0.2. Only G1 and G2 are
trained.

Axes: B images, C channels, H, W height and width of the feature map, L labels, E numbers of a word
vector, D hidden size.

Source: Chen, Wei, Wang, Guo, Multi-Label Image Recognition with Graph Convolutional Networks, CVPR
2019, and its released code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sadcl.model.heads.head import HeadOutput, Task
from sadcl.model.heads.word_vectors import label_vectors

EPSILON = 1e-6
"""Added to the column sums of B, which may be zero."""
SLOPE = 0.2


class MLGCN(nn.Module):
    """Two graph convolutions over the labels make a linear classifier for each of them.

    Args:
        task: what the head is built for.
        hidden: D.
        threshold: t, above 0 and at most 1.
        neighbours: p, the total weight of a label's neighbours beside its own weight of 1; above 0.
        word_vectors: file of word vectors, see :func:`~sadcl.model.heads.word_vectors.read_vectors`
            (GloVe's in the published runs); None for random ones.
        word_dim: E.
        word_vectors_seed: of the random ones.

    Raises:
        ValueError: for an argument out of its range.
        UserError: where the file is not what it should be.
    """

    def __init__(
        self,
        task: Task,
        *,
        hidden: int = 1024,
        threshold: float = 0.4,
        neighbours: float = 0.25,
        word_vectors: str | None = None,
        word_dim: int = 300,
        word_vectors_seed: int = 0,
    ) -> None:
        super().__init__()
        for name, size in (("hidden", hidden), ("word_dim", word_dim)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, but got {size}")
        correlation_LL = correlation(task.co_occurrence_LL, threshold, neighbours)
        vectors_LE = label_vectors(task, word_vectors, dim=word_dim, seed=word_vectors_seed)
        dtype = torch.get_default_dtype()
        self.adjacency_LL: Tensor
        self.register_buffer("adjacency_LL", normalised(correlation_LL).to(dtype))
        self.word_vectors_LE: Tensor
        self.register_buffer("word_vectors_LE", vectors_LE.to(dtype))
        self.weight_ED = _graph_weight(word_dim, hidden)
        self.weight_DC = _graph_weight(hidden, task.channels[-1])

    def forward(self, map_BCHW: Tensor) -> HeadOutput:
        """Turn a feature map (B, C, H, W) into (B, L) logits.

        All of it is in the precision of the weights, under autocast too: beside the backbone it is
        next to nothing, and rounded classifiers would make many logits equal.
        """
        with torch.autocast(map_BCHW.device.type, enabled=False):
            pooled_BC = map_BCHW.to(self.weight_DC.dtype).flatten(2).max(2).values
            return HeadOutput(pooled_BC @ self.classifiers().T)

    def classifiers(self) -> Tensor:
        """Compute the weights of all labels' classifiers, E2, (L, C)."""
        hidden_LD = self.adjacency_LL @ (self.word_vectors_LE @ self.weight_ED)
        hidden_LD = functional.leaky_relu(hidden_LD, SLOPE)
        return self.adjacency_LL @ (hidden_LD @ self.weight_DC)


def correlation(co_occurrence_LL: Tensor, threshold: float, neighbours: float) -> Tensor:
    """Compute the re-weighted correlation matrix A from counts of training images.

    Args:
        co_occurrence_LL: images with both labels; the diagonal has those with each label.
        threshold: t.
        neighbours: p.

    Returns:
        (L, L) in float64; the identity where all counts are zero.

    Raises:
        ValueError: for a threshold that is not above 0 and at most 1, or ``neighbours`` not above
            0.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, but got {threshold}")
    if not 0 < neighbours < float("inf"):
        raise ValueError(f"neighbours must be above 0 and finite, but got {neighbours}")
    counts_LL = co_occurrence_LL.double()
    identity_LL = torch.eye(len(counts_LL), dtype=torch.float64, device=counts_LL.device)
    number_L1 = counts_LL.diagonal()[:, None].clamp_min(1)
    probability_LL = counts_LL * (1 - identity_LL) / number_L1
    binary_LL = (probability_LL >= threshold).double()
    return neighbours * binary_LL / (binary_LL.sum(0) + EPSILON) + identity_LL


def normalised(correlation_LL: Tensor) -> Tensor:
    """Normalise A by its row sums on both sides, and transpose it: Â, (L, L)."""
    scale_L = correlation_LL.sum(1).rsqrt()
    return scale_L[:, None] * correlation_LL.T * scale_L


def _graph_weight(size_in: int, size_out: int) -> nn.Parameter:
    bound = size_out**-0.5
    return nn.Parameter(torch.empty(size_in, size_out).uniform_(-bound, bound))
