"""Sine position encoding of a feature map.

Axes: H, W the map's height and width, D hidden size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sine_position(
    height: int, width: int, dim: int, *, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Encode each position by sines and cosines of its normalised row and column (DETR).

    Row and column have D / 2 channels each. With D / 4 frequencies f_k = 10000^(-k / (D / 4)) and
    row y of H (counted from 1), the row's channels are sin(2 pi y / H * f_k), then the cosines.
    The coordinates run over (0, 2 pi] whatever the size of the map, so that "left" and "right" keep
    their meaning where a model is tested at another resolution than it was trained at.

    Args:
        height: H.
        width: W.
        dim: D, a multiple of 4.
        device: where the encoding is made.
        dtype: of the result; it is computed in float32.

    Returns:
        (H * W, D).

    Raises:
        ValueError: unless ``dim`` is a multiple of 4.

    Source: Carion et al., End-to-End Object Detection with Transformers, 2020.
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
