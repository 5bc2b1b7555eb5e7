"""The encoder over image positions and the decoder over label queries (Eq. 1 and 2, Fig. 3).

Axes: B images, S positions of the feature map, L labels, D hidden size. Post-norm and ReLU, as the released run used;
position encodings and label queries are added to attention's queries and keys, never to its values.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sadcl.model.recompute import recompute


class FeedForward(nn.Module):
    """Residual two-layer perceptron with its norm."""

    def __init__(self, dim: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, feedforward)
        self.contract = nn.Linear(feedforward, dim)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.contract(self.dropout(torch.relu(self.expand(x))))
        return self.norm(x + self.dropout(y))


class EncoderLayer(nn.Module):
    """Self-attention over the positions of an image, then the perceptron (Eq. 1)."""

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)
        self.feedforward = FeedForward(dim, feedforward, dropout)

    def forward(self, memory_BSD: Tensor, position_SD: Tensor) -> Tensor:
        query_BSD = memory_BSD + position_SD
        mixed_BSD, _ = self.attention(query_BSD, query_BSD, memory_BSD, need_weights=False)
        return self.feedforward(self.norm(memory_BSD + self.dropout(mixed_BSD)))


class DecoderLayer(nn.Module):
    """Cross-attention from labels to positions, then the perceptron (Eq. 2); no self-attention between labels."""

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)
        self.feedforward = FeedForward(dim, feedforward, dropout)

    def forward(
        self, target_BLD: Tensor, query_LD: Tensor, key_BSD: Tensor, value_BSD: Tensor
    ) -> Tensor:
        mixed_BLD, _ = self.attention(target_BLD + query_LD, key_BSD, value_BSD, need_weights=False)
        return self.feedforward(self.norm(target_BLD + self.dropout(mixed_BLD)))


class LabelTransformer(nn.Module):
    """Decomposes a feature map into one representation for each label.

    Args:
        labels: L.
        dim: D, a multiple of ``heads`` and of 4.
        encoder_layers: 0 is the paper's SARL*.
        decoder_layers: at least 1.
        heads, feedforward, dropout: as in Vaswani et al. 2017.
        checkpointing: compute the activations of each layer again in the backward pass.

    Raises:
        ValueError: where ``dim`` cannot be split into ``heads``.
    """

    def __init__(
        self,
        labels: int,
        dim: int,
        *,
        encoder_layers: int = 1,
        decoder_layers: int = 2,
        heads: int = 4,
        feedforward: int = 8192,
        dropout: float = 0.1,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if dim % heads or dim % 4:
            raise ValueError(
                f"The hidden size must be a multiple of 4 and of the heads, but got {dim} and {heads} heads"
            )
        layer = (dim, heads, feedforward, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*layer) for _ in range(encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*layer) for _ in range(decoder_layers))
        for module in (*self.encoder, *self.decoder) if checkpointing else ():
            recompute(module)
        self.norm = nn.LayerNorm(dim)
        self.query_LD = nn.Parameter(torch.empty(labels, dim))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.normal_(self.query_LD)

    def forward(self, memory_BSD: Tensor, position_SD: Tensor) -> Tensor:
        """(B, S, D) features and (S, D) positions -> (B, L, D), the decoder's last layer."""
        for encoder in self.encoder:
            memory_BSD = encoder(memory_BSD, position_SD)
        key_BSD = memory_BSD + position_SD
        target_BLD = torch.zeros_like(self.query_LD).expand(memory_BSD.shape[0], -1, -1)
        for decoder in self.decoder:
            target_BLD = decoder(target_BLD, self.query_LD, key_BSD, memory_BSD)
        return self.norm(target_BLD)
