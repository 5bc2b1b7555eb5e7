r"""MulCon: label-level embeddings by attention blocks of a set transformer.

    B(Q, K):  q = Wq Q + bq,  k = Wk K + bk,  v = Wv K + bv,  each cut into heads
              A = softmax over keys of (q k^T / sqrt(d)),  O = q + A v         in each head
              O <- LN0(O),  O <- LN1(O + relu(Wo O + bo))                      heads concatenated
    X <- B1(X, X),  X <- B2(X, X)          positions attend to positions, d = C
    H <- B(I, X),   H <- B3(H, H)          label queries to positions, labels to labels, d = D
    logit_l = w_l . H_l + b_l

X are the P columns of the feature map, I learned label queries. d is the full width of a block, not
that of a head, as in the released code. H are the label-level embeddings, which the method's second
stage compares: its projector (linear, ReLU, linear to 128, unit length) and its supervised contrast
at temperature 0.2 are this package's projection and sample-to-sample contrast, which any head with
features can use, so that neither is part of the head.

Axes: B images of this worker, C channels, H, W height and width of the feature map, P = H * W its
positions, L labels, D hidden size, N attention heads, T, S queries and keys of a block.

Source: Dao, Zhao, Phung, Cai, Contrastively Enforcing Distinctiveness for Multi-label Image
Classification, Neurocomputing 555 (2023) 126605.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sadcl.model.heads.head import HeadOutput, Task
from sadcl.model.heads.sarl import GroupLinear


class AttentionBlock(nn.Module):
    """B(Q, K): attention with a residual of the projected query, then a one-layer perceptron."""

    def __init__(self, query_dim: int, key_dim: int, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, dim**-0.5
        self.query = nn.Linear(query_dim, dim)
        self.key = nn.Linear(key_dim, dim)
        self.value = nn.Linear(key_dim, dim)
        self.norm0 = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, dim)
        self.norm1 = nn.LayerNorm(dim)

    def forward(self, query_BTE: Tensor, key_BSC: Tensor) -> Tensor:
        """Turn T queries into T features of the block's width, (B, T, D)."""
        q_BNTd, k_BNSd = self._cut(self.query(query_BTE)), self._cut(self.key(key_BSC))
        mixed_BNTd = F.scaled_dot_product_attention(
            q_BNTd, k_BNSd, self._cut(self.value(key_BSC)), scale=self.scale
        )
        o_BTD = self.norm0((q_BNTd + mixed_BNTd).transpose(1, 2).flatten(2))
        return self.norm1(o_BTD + torch.relu(self.output(o_BTD)))

    def attention(self, query_BTE: Tensor, key_BSC: Tensor) -> Tensor:
        """Compute A of each head, (B, N, T, S)."""
        q_BNTd, k_BNSd = self._cut(self.query(query_BTE)), self._cut(self.key(key_BSC))
        return (q_BNTd @ k_BNSd.transpose(2, 3) * self.scale).softmax(-1)

    def _cut(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(2, (self.heads, -1)).transpose(1, 2)


class MulCon(nn.Module):
    """Label-level embeddings and a linear classifier for each label.

    Args:
        task: with one feature map.
        dim: D, a multiple of ``heads``.
        heads: number of attention heads; the channels are a multiple of it too.

    Raises:
        ValueError: where ``dim`` or the channels are not a multiple of ``heads``.
    """

    def __init__(self, task: Task, *, dim: int = 1024, heads: int = 4) -> None:
        super().__init__()
        channels, num_labels = task.channels[-1], len(task.labels)
        for what, width in (("channels", channels), ("dim", dim)):
            if heads < 1 or width < 1 or width % heads:
                raise ValueError(f"{what} must be a multiple of heads, but got {width}, {heads}")
        self.positions = nn.ModuleList(
            AttentionBlock(channels, channels, channels, heads) for _ in range(2)
        )
        self.query_LD = nn.Parameter(torch.empty(num_labels, dim))
        self.queries = AttentionBlock(dim, channels, dim, heads)
        self.labels = AttentionBlock(dim, dim, dim, heads)
        self.feature_size = dim
        self.classifier = GroupLinear(num_labels, dim)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
            elif "bias" in name:
                nn.init.zeros_(parameter)
        nn.init.xavier_uniform_(self.query_LD)

    def forward(self, map_BCHW: Tensor) -> HeadOutput:
        """Compute logits and label-level embeddings, which stay in float32 under autocast."""
        query_BLD, x_BPC = self._queries_and_positions(map_BCHW)
        h_BLD = self.queries(query_BLD, x_BPC)
        h_BLD = self.labels(h_BLD, h_BLD).to(self.query_LD.dtype)
        with torch.autocast(h_BLD.device.type, enabled=False):
            return HeadOutput(self.classify(h_BLD), h_BLD)

    def classify(self, features_BLD: Tensor) -> Tensor:
        """Compute the logits (B, L) of label-level features."""
        logits_BL: Tensor = self.classifier(features_BLD)
        return logits_BL

    def attention(self, map_BCHW: Tensor) -> Tensor:
        """Compute the attention of the label queries to the positions, (B, N, L, P)."""
        return self.queries.attention(*self._queries_and_positions(map_BCHW))

    def attention_maps(self, map_BCHW: Tensor) -> Tensor:
        """Compute that attention averaged over heads, (B, L, H, W); it sums to 1."""
        with torch.autocast(map_BCHW.device.type, enabled=False):
            weight_BNLP = self.attention(map_BCHW.to(self.query_LD.dtype))
        return weight_BNLP.mean(1).unflatten(2, map_BCHW.shape[2:])

    def _queries_and_positions(self, map_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        x_BPC = map_BCHW.flatten(2).transpose(1, 2)
        for block in self.positions:
            x_BPC = block(x_BPC, x_BPC)
        return self.query_LD.expand(x_BPC.shape[0], -1, -1), x_BPC
