"""The baseline: global average pooling and a linear classifier."""

from __future__ import annotations

from torch import Tensor, nn

from sadcl.model.backbone import Backbone
from sadcl.model.heads.sadcl import Output


class Pooled(nn.Module):
    """The paper's baseline: backbone, global average pooling, one linear layer."""

    def __init__(self, backbone: Backbone, *, labels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.channels, labels)

    def forward(self, images: Tensor, bank_MD: Tensor | None = None) -> Output:
        """(B, 3, H, W) images -> (B, L) scores before the sigmoid; it has nothing to contrast."""
        return Output(self.classifier(self.backbone(images).mean((2, 3))))
