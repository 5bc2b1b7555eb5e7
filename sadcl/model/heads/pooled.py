"""The paper's baseline: global average pooling and a linear classifier (first row of Table 7).

Axes: B images of this worker, C channels, L labels, H, W height and width of the feature map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sadcl.model.heads.head import HeadOutput, Task


class Pooled(nn.Module):
    """Global average pooling, one linear layer.

    Args:
        task: labels, and channels of the feature map.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.classifier = nn.Linear(task.channels[-1], len(task.labels))

    def forward(self, map_BCHW: Tensor) -> HeadOutput:
        """Turn a feature map into (B, L) logits.

        Under autocast the logits stay in float32, as SARL's are: in bfloat16 many would be equal.
        """
        pooled_BC = map_BCHW.mean((2, 3))
        with torch.autocast(pooled_BC.device.type, enabled=False):
            return HeadOutput(self.classifier(pooled_BC.to(self.classifier.weight.dtype)))

    def attention_maps(self, map_BCHW: Tensor) -> Tensor:
        """Return the class activation maps.

        That is the label's row of the linear layer times the features of each position, without the
        bias, of either sign; its mean plus the bias is the logit.

        Source: Zhou, Khosla, Lapedriza, Oliva, Torralba, Learning Deep Features for Discriminative
        Localization, 2016, Eq. 2.
        """
        weight_LC = self.classifier.weight
        with torch.autocast(map_BCHW.device.type, enabled=False):
            return torch.einsum("lc,bchw->blhw", weight_LC, map_BCHW.to(weight_LC.dtype))
