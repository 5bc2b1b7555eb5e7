"""BatchNorm that uses and keeps its stored statistics.

Axes: C channels; C11 is (C, 1, 1), which broadcasts over height and width.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import freeze_batch_norm_2d
from torch import Tensor, nn


class FrozenBatchNorm(nn.Module):
    """A layer that timm or torchvision has frozen, computed in the precision of its input.

    Their layers return float32 for bfloat16. Under autocast every activation after one would then
    be stored twice as large, and once more as the next convolution's input.

    Args:
        layer: the frozen layer; dropout and activation that are part of it stay.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, layer: Any) -> None:
        super().__init__()
        for name, buffer in layer.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.eps: float = layer.eps
        self.drop: nn.Module = getattr(layer, "drop", nn.Identity())
        self.act: nn.Module = getattr(layer, "act", nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        scale_C = self.weight * (self.running_var + self.eps).rsqrt()
        bias_C = self.bias - self.running_mean * scale_C
        scale_C11, bias_C11 = (part.to(x.dtype)[:, None, None] for part in (scale_C, bias_C))
        return self.act(self.drop(torch.addcmul(bias_C11, x, scale_C11)))


def freeze_batchnorm(module: nn.Module) -> None:
    """Replace every BatchNorm below a module by a frozen one with the same state."""
    for name, layer in list(freeze_batch_norm_2d(module).named_modules()):
        if type(layer).__name__ in ("FrozenBatchNorm2d", "FrozenBatchNormAct2d"):
            module.set_submodule(name, FrozenBatchNorm(layer))
