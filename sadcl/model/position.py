"""Sine position encoding of a feature map.

Axes: H, W the map's height and width, D the hidden size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sine_position(
    height: int, width: int, dim: int, *, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Sine and cosine of the normalised row and column, half of the channels each (Carion et al. 2020, DETR).

    Coordinates run over (0, 2 pi] whatever the size of the map, so that a model tested at another resolution than
    it was trained at keeps its meaning of "left" and "right".

    Returns:
        (H * W, D).

    Raises:
        ValueError: unless ``dim`` is a multiple of 4.
    """
    if dim % 4:
        raise ValueError(
            f"The hidden size must be a multiple of 4 for sine positions, but got {dim}"
        )
    quarter = dim // 4
    frequency = 10000 ** (-torch.arange(quarter, device=device, dtype=torch.float32) / quarter)

    def axis(length: int) -> Tensor:
        angle = (
            torch.arange(1, length + 1, device=device, dtype=torch.float32) / length * 2 * math.pi
        )
        phase = angle[:, None] * frequency
        return torch.cat([phase.sin(), phase.cos()], dim=1)

    rows_HWD = axis(height)[:, None, :].expand(height, width, 2 * quarter)
    columns_HWD = axis(width)[None, :, :].expand(height, width, 2 * quarter)
    return torch.cat([rows_HWD, columns_HWD], dim=2).reshape(height * width, dim).to(dtype)
