"""Sine position encoding of a feature map.

Axes: H, W the map's height and width, D hidden size, K = D / 4 frequencies.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ORDERS = ("interleaved", "halves")


def sine_position(
    height: int,
    width: int,
    dim: int,
    *,
    order: str = "interleaved",
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Encode each position by sines and cosines of its normalised row and column (DETR).

    Row and column have D / 2 channels each, the row's come first. With the frequencies
    f_k = 10000^(-k / K) and row y of H (counted from 1), the row's channels are

        sin(a f_0), cos(a f_0), sin(a f_1), ...    a = 2 pi y / (H + 1e-6)      (``interleaved``)
        sin(a f_0), sin(a f_1), ..., cos(a f_0), ...        a = 2 pi y / H      (``halves``)

    The coordinates run over (0, 2 pi] whatever the size of the map, so that "left" and "right" keep
    their meaning where a model is tested at another resolution than it was trained at.

    Args:
        height: H.
        width: W.
        dim: D, a multiple of 4.
        order: ``interleaved`` equals the published code to the last bit on a CPU. ``halves`` is
            what older versions did: the same channels in another order, up to the 1e-6.
        device: where the encoding is made.
        dtype: of the result; it is computed in float32.

    Returns:
        (H * W, D).

    Raises:
        ValueError: unless ``dim`` is a multiple of 4, or for an unknown order.

    Source: Carion et al., End-to-End Object Detection with Transformers, 2020.
    """
    if dim % 4:
        raise ValueError(
            f"The hidden size must be a multiple of 4 for sine positions, but got {dim}"
        )
    if order not in ORDERS:
        raise ValueError(f"order must be {' or '.join(map(repr, ORDERS))}, but got {order!r}")
    axis = _interleaved if order == "interleaved" else _halves
    half = dim // 2
    rows_HWD = axis(height, half, device)[:, None, :].expand(height, width, half)
    columns_HWD = axis(width, half, device)[None, :, :].expand(height, width, half)
    return torch.cat([rows_HWD, columns_HWD], dim=2).reshape(height * width, dim).to(dtype)


def _interleaved(length: int, half: int, device: torch.device) -> Tensor:
    """Encode the places of one axis, (length, half).

    The order of the float32 operations is that of the published code, down to the exponents, which
    it computes once for each sine and once for each cosine.
    """
    place = torch.arange(1, length + 1, device=device, dtype=torch.float32)
    angle = place / (place[-1:] + 1e-6) * (2 * math.pi)
    channel = torch.arange(half, device=device, dtype=torch.float32)
    period = 10000 ** (2 * torch.div(channel, 2, rounding_mode="floor") / half)
    phase = angle[:, None] / period
    return torch.stack([phase[:, 0::2].sin(), phase[:, 1::2].cos()], dim=2).flatten(1)


def _halves(length: int, half: int, device: torch.device) -> Tensor:
    """Encode the places of one axis, (length, half)."""
    quarter = half // 2
    frequency = 10000 ** (-torch.arange(quarter, device=device, dtype=torch.float32) / quarter)
    place = torch.arange(1, length + 1, device=device, dtype=torch.float32)
    phase = (place / length * 2 * math.pi)[:, None] * frequency
    return torch.cat([phase.sin(), phase.cos()], dim=1)
