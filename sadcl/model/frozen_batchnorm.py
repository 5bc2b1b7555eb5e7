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
    be stored twice as large, and once more as the next convolution's input. They also compute scale
    and bias in every forward pass; here both are computed when the statistics are loaded or moved::

        y = x scale + bias,  scale = weight / sqrt(running_var + eps),
                             bias = bias' - running_mean scale

    Args:
        layer: the frozen layer; dropout and activation that are part of it stay.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    scale_C11: Tensor
    bias_C11: Tensor
    scale_bf16_C11: Tensor
    bias_bf16_C11: Tensor
    """Scale and bias, and the same rounded to bfloat16. No checkpoint has them."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        for name, buffer in layer.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.eps: float = layer.eps
        self.drop: nn.Module = getattr(layer, "drop", nn.Identity())
        self.act: nn.Module = getattr(layer, "act", nn.Identity())
        for name in ("scale_C11", "bias_C11", "scale_bf16_C11", "bias_bf16_C11"):
            self.register_buffer(name, None, persistent=False)
        self._compute_constants()

    @torch.no_grad()
    def _compute_constants(self) -> None:
        scale_C = self.weight * (self.running_var + self.eps).rsqrt()
        bias_C = self.bias - self.running_mean * scale_C
        self.scale_C11, self.bias_C11 = scale_C[:, None, None], bias_C[:, None, None]
        self.scale_bf16_C11, self.bias_bf16_C11 = (
            self.scale_C11.bfloat16(),
            self.bias_C11.bfloat16(),
        )

    def _apply(self, fn: Any, recurse: bool = True) -> FrozenBatchNorm:
        """Compute the constants again from what has been moved, rather than round them twice."""
        super()._apply(fn, recurse)
        self._compute_constants()
        return self

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._compute_constants()

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.bfloat16:
            scale_C11, bias_C11 = self.scale_bf16_C11, self.bias_bf16_C11
        else:
            scale_C11, bias_C11 = self.scale_C11.to(x.dtype), self.bias_C11.to(x.dtype)
        return self.act(self.drop(torch.addcmul(bias_C11, x, scale_C11)))


def freeze_batchnorm(module: nn.Module) -> None:
    """Replace every BatchNorm below a module by a frozen one with the same state."""
    for name, layer in list(freeze_batch_norm_2d(module).named_modules()):
        if type(layer).__name__ in ("FrozenBatchNorm2d", "FrozenBatchNormAct2d"):
            module.set_submodule(name, FrozenBatchNorm(layer))
