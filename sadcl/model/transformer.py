r"""The encoder over image positions and the decoder over label queries (section 3.2, Fig. 3).

    F^i = FFN(SelfAttBlock(F^{i-1}, PE))                       (Eq. 1, one encoder layer)
    Q^i = FFN(CrossAttBlock(F, Q^{i-1}, PE))                   (Eq. 2, one decoder layer)

F are the features of the positions (``encoded_BSD``), Q the representations of the labels
(``target``), PE the position encoding. Layers are post-norm with ReLU, as in the released run.
Position encodings and label queries are added to attention's queries and keys, never to its values.

Axes: B images, S positions of the feature map, L labels, D hidden size, H attention heads, E their
size.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from sadcl.model.recompute import recompute


class FeedForward(nn.Module):
    """Residual two-layer perceptron with its norm (FFN of Eq. 1 and 2)."""

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

    def forward(self, encoded_BSD: Tensor, position_SD: Tensor) -> Tensor:
        query_BSD = encoded_BSD + position_SD
        mixed_BSD, _ = self.attention(query_BSD, query_BSD, encoded_BSD, need_weights=False)
        return self.feedforward(self.norm(encoded_BSD + self.dropout(mixed_BSD)))


class DecoderLayer(nn.Module):
    """Cross-attention from labels to positions, then the perceptron (Eq. 2).

    There is no self-attention between labels.
    """

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)
        self.feedforward = FeedForward(dim, feedforward, dropout)

    def forward(
        self, target: Tensor, query_LD: Tensor, key_BSD: Tensor, value_BSD: Tensor
    ) -> Tensor:
        """Return the labels' representations, (B, L, D).

        Args:
            target: those of the layer before, (B, L, D); or (L, D), which all images share.
            query_LD: the label queries.
            key_BSD: the positions' features with their encodings.
            value_BSD: the positions' features.
        """
        mixed_BLD = self._attend(target + query_LD, key_BSD, value_BSD)
        return self.feedforward(self.norm(target + self.dropout(mixed_BLD)))

    def _attend(self, query: Tensor, key_BSD: Tensor, value_BSD: Tensor) -> Tensor:
        """Compute what ``self.attention`` does, for queries (B, L, D) or (L, D).

        Queries that all images share are projected once. With hundreds of labels and few positions
        that saves a quarter of the layer's time.
        """
        layer = self.attention
        weights, biases = layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3)
        tokens = zip((query, key_BSD, value_BSD), weights, biases, strict=True)
        projected = [functional.linear(x, weight, bias) for x, weight, bias in tokens]
        # Contiguous, because not every attention kernel takes a batch axis of stride 0.
        whole = [x.expand(key_BSD.shape[0], -1, -1).contiguous() for x in projected]
        query_BHLE, key_BHSE, value_BHSE = (
            x.unflatten(2, (layer.num_heads, -1)).transpose(1, 2) for x in whole
        )
        mixed_BHLE = functional.scaled_dot_product_attention(
            query_BHLE, key_BHSE, value_BHSE, dropout_p=layer.dropout if self.training else 0.0
        )
        mixed_BLD: Tensor = layer.out_proj(mixed_BHLE.transpose(1, 2).flatten(2))
        return mixed_BLD


class LabelTransformer(nn.Module):
    """Decomposes a feature map into one representation for each label (section 3.2).

    Args:
        num_labels: L.
        dim: D, a multiple of ``heads`` and of 4.
        encoder_layers: number of encoder layers; 0 is the paper's SARL*.
        decoder_layers: number of decoder layers, at least 1.
        heads: number of attention heads.
        feedforward: hidden size of the perceptrons.
        dropout: probability of dropout in attention and perceptrons.
        checkpointing: compute the activations of each layer again in the backward pass.

    Raises:
        ValueError: where ``dim`` is not a multiple of ``heads`` and of 4.

    Source: Ma et al., ECAI 2023, Eq. 1 and 2; layers as in Vaswani et al. 2017.
    """

    def __init__(
        self,
        num_labels: int,
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
                "The hidden size must be a multiple of 4 and of the heads, but got "
                f"{dim} and {heads} heads"
            )
        layer = (dim, heads, feedforward, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*layer) for _ in range(encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*layer) for _ in range(decoder_layers))
        for module in (*self.encoder, *self.decoder) if checkpointing else ():
            recompute(module)
        self.norm = nn.LayerNorm(dim)
        self.query_LD = nn.Parameter(torch.empty(num_labels, dim))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.normal_(self.query_LD)

    def forward(self, encoded_BSD: Tensor, position_SD: Tensor) -> Tensor:
        """Turn (B, S, D) features and (S, D) position encodings into (B, L, D) representations.

        The result is the last decoder layer's.
        """
        for encoder in self.encoder:
            encoded_BSD = encoder(encoded_BSD, position_SD)
        key_BSD = encoded_BSD + position_SD
        target = torch.zeros_like(self.query_LD)
        for decoder in self.decoder:
            target = decoder(target, self.query_LD, key_BSD, encoded_BSD)
        return self.norm(target)

    def attention(self, encoded_BSD: Tensor, position_SD: Tensor) -> Tensor:
        """Compute the attention of each label in the last decoder layer, (B, L, S).

        It is averaged over the heads. The arguments are those of a forward pass.
        """
        for encoder in self.encoder:
            encoded_BSD = encoder(encoded_BSD, position_SD)
        key_BSD = encoded_BSD + position_SD
        target = torch.zeros_like(self.query_LD)
        *earlier, last = cast("list[DecoderLayer]", list(self.decoder))
        for decoder in earlier:
            target = decoder(target, self.query_LD, key_BSD, encoded_BSD)
        query_BLD = (target + self.query_LD).expand(encoded_BSD.shape[0], -1, -1)
        _, weights_BLS = last.attention(query_BLD, key_BSD, encoded_BSD)
        return weights_BLS
