r"""ML-Decoder: a decoder layer without self-attention, whose queries stand for groups of labels.

    y_p = relu(We x_p + be)                                     features of the positions
    t = LN1(q + q);   t <- LN2(t + MHA(t; y, y));   t <- LN3(t + W2 relu(W1 t + b1) + b2)
    o_(k,j) = sum_c t_kc D_kcj                                  K queries, g = ceil(L / K)
    logit_(k g + j) = o_(k,j) + b_(k g + j)                     values past label L are dropped

The queries q are random and not trained. Doubling them stands where the usual decoder has its
self-attention, and matters only compared with the norm's epsilon; in training the second q has
dropout.

The zero-shot variant has one query for each label, relu(Wp w_l + bp), from its word vector, and one
D and one bias that all labels share, so that labels without a training image can be scored.

Axes: B images of this worker, C channels, H, W height and width of the feature map, P = H * W its
positions, L labels, K queries, D hidden size, E numbers of a word vector.

Source: Ridnik, Sharir, Ben-Cohen, Noy, ML-Decoder: Scalable and Versatile Classification Head, 2021
(arXiv 2111.12933).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sadcl.model.heads.head import HeadOutput, Task
from sadcl.model.heads.word_vectors import label_vectors

MAX_QUERIES = 100
"""Queries, where their number is not given; above that, labels share them."""


class QueryDecoder(nn.Module):
    """The reduced feature map and the decoder layer: queries in, their features out."""

    def __init__(
        self, channels: int, dim: int, *, heads: int, feedforward: int, dropout: float
    ) -> None:
        super().__init__()
        if heads < 1 or dim < 1 or dim % heads:
            raise ValueError(f"dim must be a multiple of heads, but got {dim}, {heads}")
        if feedforward < 1:
            raise ValueError(f"feedforward must be at least 1, but got {feedforward}")
        self.embed = nn.Linear(channels, dim)
        self.attention = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.expand = nn.Linear(dim, feedforward)
        self.contract = nn.Linear(feedforward, dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, query_KD: Tensor, map_BCHW: Tensor) -> Tensor:
        """Compute the features of the queries, (B, K, D)."""
        t_BKD, y_BPD = self._targets_and_positions(query_KD, map_BCHW)
        mixed_BKD, _ = self.attention(t_BKD, y_BPD, y_BPD, need_weights=False)
        t_BKD = self.norm2(t_BKD + self.dropout(mixed_BKD))
        hidden_BKD = self.contract(self.dropout(torch.relu(self.expand(t_BKD))))
        return self.norm3(t_BKD + self.dropout(hidden_BKD))

    def weights(self, query_KD: Tensor, map_BCHW: Tensor) -> Tensor:
        """Compute the attention of the queries to the positions, averaged over heads, (B, K, P).

        It is in the precision of the weights, under autocast too.
        """
        with torch.autocast(map_BCHW.device.type, enabled=False):
            dtype = self.embed.weight.dtype
            t_BKD, y_BPD = self._targets_and_positions(query_KD.to(dtype), map_BCHW.to(dtype))
            return self.attention(t_BKD, y_BPD, y_BPD, need_weights=True)[1]

    def _targets_and_positions(self, query_KD: Tensor, map_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        y_BPD = torch.relu(self.embed(map_BCHW.flatten(2).transpose(1, 2)))
        query_BKD = query_KD.expand(map_BCHW.shape[0], -1, -1)
        return self.norm1(query_BKD + self.dropout(query_BKD)), y_BPD


class MLDecoder(nn.Module):
    """Fixed queries, each of which scores a group of neighbouring labels.

    Only where each label has a query of its own are there label-level features.

    Args:
        task: with one feature map.
        dim: D, a multiple of ``heads``.
        groups: K, from 1 to L; None is one query for each label, but at most 100, as published.
        heads: number of attention heads.
        feedforward: hidden size of the perceptron.
        dropout: probability of dropout on the second q, on attention weights, after attention and
            twice in the perceptron.

    Raises:
        ValueError: where an argument is out of its range.
    """

    def __init__(
        self,
        task: Task,
        *,
        dim: int = 768,
        groups: int | None = None,
        heads: int = 8,
        feedforward: int = 2048,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_labels = len(task.labels)
        groups = min(MAX_QUERIES, self.num_labels) if groups is None else groups
        if not 1 <= groups <= self.num_labels:
            raise ValueError(
                f"groups must be from 1 to the {self.num_labels} labels, but got {groups}"
            )
        self.group_size = math.ceil(self.num_labels / groups)
        self.decoder = QueryDecoder(
            task.channels[-1], dim, heads=heads, feedforward=feedforward, dropout=dropout
        )
        self.query_KD: Tensor
        self.label_wise = groups == self.num_labels
        if self.label_wise:
            self.feature_size = dim
        self.register_buffer("query_KD", torch.randn(groups, dim))
        self.weight_KDG = nn.Parameter(torch.empty(groups, dim, self.group_size))
        self.bias_L = nn.Parameter(torch.zeros(self.num_labels))
        nn.init.xavier_normal_(self.weight_KDG)

    def forward(self, map_BCHW: Tensor) -> HeadOutput:
        """Compute logits, which stay in float32 under autocast."""
        t_BKD = self.decoder(self.query_KD, map_BCHW).to(self.weight_KDG.dtype)
        with torch.autocast(t_BKD.device.type, enabled=False):
            o_BKG = torch.einsum("bkd,kdg->bkg", t_BKD, self.weight_KDG)
            logits_BL = o_BKG.flatten(1)[:, : self.num_labels] + self.bias_L
        own = len(self.query_KD) == self.num_labels
        return HeadOutput(logits_BL, t_BKD if own else None)

    def attention_maps(self, map_BCHW: Tensor) -> Tensor:
        """Compute the attention of each label's query, (B, L, H, W); it sums to 1.

        Labels of a group have the same map.
        """
        weight_BKP = self.decoder.weights(self.query_KD, map_BCHW)
        weight_BLP = weight_BKP.repeat_interleave(self.group_size, 1)[:, : self.num_labels]
        return weight_BLP.unflatten(2, map_BCHW.shape[2:])


class ZeroShotMLDecoder(nn.Module):
    """Queries from word vectors, and a classifier that all labels share.

    Other labels are scored by the same head with their vectors in the buffer ``word_vectors_LE``.

    Args:
        task: with one feature map.
        dim: D, a multiple of ``heads``. With ``dim`` = ``word_dim`` the vectors are the queries.
        heads, feedforward, dropout: as in :class:`MLDecoder`.
        word_vectors: file of word vectors, see :func:`~sadcl.model.heads.word_vectors.read_vectors`
            (GloVe's in the published runs); None for random ones.
        word_dim: E.
        word_vectors_seed: of the random ones.

    Raises:
        ValueError: where an argument is out of its range.
        UserError: where the file is not what it should be.
    """

    def __init__(
        self,
        task: Task,
        *,
        dim: int = 768,
        heads: int = 8,
        feedforward: int = 2048,
        dropout: float = 0.1,
        word_vectors: str | None = None,
        word_dim: int = 300,
        word_vectors_seed: int = 0,
    ) -> None:
        super().__init__()
        if word_dim < 1:
            raise ValueError(f"word_dim must be at least 1, but got {word_dim}")
        self.decoder = QueryDecoder(
            task.channels[-1], dim, heads=heads, feedforward=feedforward, dropout=dropout
        )
        vectors_LE = label_vectors(task, word_vectors, dim=word_dim, seed=word_vectors_seed)
        self.word_vectors_LE: Tensor
        self.register_buffer("word_vectors_LE", vectors_LE.to(torch.get_default_dtype()))
        self.project = None if dim == word_dim else nn.Linear(word_dim, dim)
        self.feature_size = dim
        self.classifier = nn.Linear(dim, 1)
        nn.init.xavier_normal_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def queries(self) -> Tensor:
        """Compute the query of each label, (L, D)."""
        if self.project is None:
            return self.word_vectors_LE
        return torch.relu(self.project(self.word_vectors_LE))

    def forward(self, map_BCHW: Tensor) -> HeadOutput:
        """Compute logits and label-level features, which stay in float32 under autocast."""
        t_BLD = self.decoder(self.queries(), map_BCHW).to(self.classifier.weight.dtype)
        with torch.autocast(t_BLD.device.type, enabled=False):
            return HeadOutput(self.classifier(t_BLD).squeeze(2), t_BLD)

    def attention_maps(self, map_BCHW: Tensor) -> Tensor:
        """Compute the attention of each label's query, (B, L, H, W); it sums to 1."""
        weight_BLP = self.decoder.weights(self.queries(), map_BCHW)
        return weight_BLP.unflatten(2, map_BCHW.shape[2:])
