r"""The network of Fig. 2.

    x_i = Proj(Q_i),  Q_i the (L, D) label-level representations of image i          (Eq. 3)
    s_l = sigmoid(sum(W_l * Q_l) + b_l)                                              (Eq. 7)

W_l and b_l are the weight vector and the bias of label l, * is element-wise, s_l is the score.

Axes: B images of this worker, L labels, D hidden size, P projection size, M rows of the memory
bank, H, W the feature map's height and width, S = H * W its positions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sadcl.memory import Memory
from sadcl.model.backbone import Backbone
from sadcl.model.position import ORDERS, sine_position
from sadcl.model.prototypes import Prototypes
from sadcl.model.transformer import LabelTransformer


class Output(NamedTuple):
    """What a forward pass returns; without a memory the last four fields are None."""

    logits_BL: Tensor
    """Scores before the sigmoid."""
    features_BLD: Tensor | None = None
    """Label-level representations Q, un-projected; None for a network that has none."""
    embeddings_BLP: Tensor | None = None
    """Projected label-level representations x."""
    bank_MP: Tensor | None = None
    """Projected bank rows."""
    prototypes_LP: Tensor | None = None
    """Projected prototypes."""
    prototype_valid_L: Tensor | None = None
    """Whether each label has a prototype."""


class GroupLinear(nn.Module):
    """The classifier of Eq. 7 before the sigmoid: one weight vector and one bias for each label.

    The bias is added once, after the sum over D.
    """

    def __init__(self, num_labels: int, dim: int) -> None:
        super().__init__()
        bound = dim**-0.5
        self.weight_LD = nn.Parameter(torch.empty(num_labels, dim).uniform_(-bound, bound))
        self.bias_L = nn.Parameter(torch.empty(num_labels).uniform_(-bound, bound))

    def forward(self, features_BLD: Tensor) -> Tensor:
        return (features_BLD * self.weight_LD).sum(-1) + self.bias_L


class SADCL(nn.Module):
    """Semantic-aware representation learning with the heads of both contrasts (section 3).

    Args:
        backbone: gives a feature map (B, C, H, W).
        num_labels: L.
        hidden: D; where it differs from C, a 1x1 convolution follows the backbone.
        projection: P.
        prototypes: with D columns; the network owns them so that learned ones are its parameters.
        position: order of the channels of the position encoding, see :func:`sine_position`.
        encoder_layers, decoder_layers, heads, feedforward, dropout, checkpointing: see
            :class:`LabelTransformer`.

    Source: Ma et al., ECAI 2023.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_labels: int,
        hidden: int,
        projection: int,
        prototypes: Prototypes,
        position: str = "interleaved",
        encoder_layers: int = 1,
        decoder_layers: int = 2,
        heads: int = 4,
        feedforward: int = 8192,
        dropout: float = 0.1,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if position not in ORDERS:
            raise ValueError(f"position must be one of {', '.join(ORDERS)}, but got {position!r}")
        self.backbone = backbone
        self.position = position
        same = hidden == backbone.channels
        self.reduce = nn.Identity() if same else nn.Conv2d(backbone.channels, hidden, kernel_size=1)
        self.transformer = LabelTransformer(
            num_labels,
            hidden,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            heads=heads,
            feedforward=feedforward,
            dropout=dropout,
            checkpointing=checkpointing,
        )
        self.classifier = GroupLinear(num_labels, hidden)
        self.projection = nn.Sequential(
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, projection)
        )
        self.prototypes = prototypes

    def forward(self, images: Tensor, memory: Memory | None = None) -> Output:
        """Compute logits and representations of images (B, 3, H', W').

        With a memory (it may have no rows) the representations, the bank's rows and the prototypes
        also go through the projection head (Eq. 3). That happens in one call, so that DDP sees
        every use of the head.
        """
        map_BDHW = self.reduce(self.backbone(images))
        encoded_BSD = map_BDHW.flatten(2).transpose(1, 2)
        _, dim, height, width = map_BDHW.shape
        position_SD = sine_position(
            height,
            width,
            dim,
            order=self.position,
            device=map_BDHW.device,
            dtype=map_BDHW.dtype,
        )
        return self.compare(self.transformer(encoded_BSD, position_SD), memory)

    def compare(self, features_BLD: Tensor, memory: Memory | None = None) -> Output:
        """Compute from the label-level representations what the losses compare."""
        logits_BL = self.classifier(features_BLD)
        if memory is None:
            return Output(logits_BL, features_BLD)
        prototypes_LD, valid_L = self.prototypes.read()
        rows = [
            features_BLD.flatten(0, 1),
            memory.rows_MD.to(features_BLD.dtype),
            prototypes_LD.to(features_BLD.dtype),
        ]
        projected = self.projection(torch.cat(rows)).split([len(part) for part in rows])
        embeddings_BLP = projected[0].unflatten(0, features_BLD.shape[:2])
        return Output(logits_BL, features_BLD, embeddings_BLP, projected[1], projected[2], valid_L)
