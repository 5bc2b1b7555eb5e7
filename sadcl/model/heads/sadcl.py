"""The network of Fig. 2, and the pooled baseline of Table 7.

Axes: B images of this worker, L labels, D hidden size, P projection size, M rows of the memory bank.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sadcl.model.backbone import Backbone
from sadcl.model.position import sine_position
from sadcl.model.prototypes import Prototypes
from sadcl.model.transformer import LabelTransformer


class Output(NamedTuple):
    """What a forward pass gives; the last five are None where the contrasts do not take part."""

    logits_BL: Tensor
    features_BLD: Tensor | None = None
    embeddings_BLP: Tensor | None = None
    bank_MP: Tensor | None = None
    prototypes_LP: Tensor | None = None
    prototype_valid_L: Tensor | None = None


class GroupLinear(nn.Module):
    """One weight vector and one bias for each label (Eq. 7, before the sigmoid)."""

    def __init__(self, labels: int, dim: int) -> None:
        super().__init__()
        bound = dim**-0.5
        self.weight_LD = nn.Parameter(torch.empty(labels, dim).uniform_(-bound, bound))
        self.bias_L = nn.Parameter(torch.empty(labels).uniform_(-bound, bound))

    def forward(self, features_BLD: Tensor) -> Tensor:
        return (features_BLD * self.weight_LD).sum(-1) + self.bias_L


class SADCL(nn.Module):
    """Semantic-aware representation learning with the heads of both contrasts (section 3).

    Args:
        backbone: gives (B, C, H, W).
        labels: L.
        hidden: D; a 1x1 convolution is put in only where it differs from C.
        projection: P.
        prototypes: of D columns; owned by the network so that learned ones are its parameters.
        encoder_layers, decoder_layers, heads, feedforward, dropout, checkpointing: of :class:`LabelTransformer`.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        labels: int,
        hidden: int,
        projection: int,
        prototypes: Prototypes,
        encoder_layers: int = 1,
        decoder_layers: int = 2,
        heads: int = 4,
        feedforward: int = 8192,
        dropout: float = 0.1,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        same = hidden == backbone.channels
        self.reduce = nn.Identity() if same else nn.Conv2d(backbone.channels, hidden, kernel_size=1)
        self.transformer = LabelTransformer(
            labels,
            hidden,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            heads=heads,
            feedforward=feedforward,
            dropout=dropout,
            checkpointing=checkpointing,
        )
        self.classifier = GroupLinear(labels, hidden)
        self.projection = nn.Sequential(
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, projection)
        )
        self.prototypes = prototypes

    def forward(self, images: Tensor, bank_MD: Tensor | None = None) -> Output:
        """(B, 3, H, W) images -> scores before the sigmoid and representations.

        With bank rows (they may be none: shape (0, D)) the representations, the rows and the prototypes also go through
        the one projection head (Eq. 3), inside this call so that DDP sees every use of it.
        """
        map_BDHW = self.reduce(self.backbone(images))
        memory_BSD = map_BDHW.flatten(2).transpose(1, 2)
        height, width = map_BDHW.shape[2:]
        position_SD = sine_position(
            height, width, map_BDHW.shape[1], device=map_BDHW.device, dtype=map_BDHW.dtype
        )
        features_BLD = self.transformer(memory_BSD, position_SD)
        logits_BL = self.classifier(features_BLD)
        if bank_MD is None:
            return Output(logits_BL, features_BLD)
        prototypes_LD, valid_L = self.prototypes.read()
        rows = [
            features_BLD.flatten(0, 1),
            bank_MD.to(features_BLD.dtype),
            prototypes_LD.to(features_BLD.dtype),
        ]
        projected = self.projection(torch.cat(rows)).split([len(part) for part in rows])
        embeddings_BLP = projected[0].unflatten(0, features_BLD.shape[:2])
        return Output(logits_BL, features_BLD, embeddings_BLP, projected[1], projected[2], valid_L)
