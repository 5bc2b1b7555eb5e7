"""The paper's baseline: global average pooling and a linear classifier (first row of Table 7).

Axes: B images of this worker, L labels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sadcl.memory import Memory
from sadcl.model.backbone import Backbone
from sadcl.model.heads.sadcl import Output


class Pooled(nn.Module):
    """Backbone, global average pooling, one linear layer.

    Args:
        backbone: gives a feature map (B, C, H, W).
        num_labels: L.
    """

    def __init__(self, backbone: Backbone, *, num_labels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.channels, num_labels)

    def forward(self, images: Tensor, memory: Memory | None = None) -> Output:
        """Turn (B, 3, H, W) images into (B, L) logits; the memory is ignored.

        Under autocast the logits stay in float32, as SADCL's are: in bfloat16 many would be equal.
        """
        pooled_BC = self.backbone(images).mean((2, 3))
        with torch.autocast(pooled_BC.device.type, enabled=False):
            return Output(self.classifier(pooled_BC.to(self.classifier.weight.dtype)))
