"""RandAugment's operations as the published run had them: the package ``randaugment`` on Pillow.

They take and return what :mod:`sadcl.data.torchvision_operations` describes. All equal Pillow to
the bit but the shears, whose bicubic weights are rounded to multiples of 2^-22: fewer than one
value in a thousand is off, by one of 256 levels. Pillow's arithmetic is in its source, under
``src/libImaging``: Geometry.c, Blend.c, Filter.c and Convert.c.

What differs from torchvision's: there are Invert and a small Cutout, and no Identity. What comes
from outside the image is grey and not black. Shears interpolate, and all rotations are
anticlockwise.

Axes: B images, S side in pixels, N the two coordinates x and y, T the four pixels that a bicubic
weight is for.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sadcl.data.torchvision_operations import (
    Operation,
    blur,
    brightness,
    channel_values,
    equalize,
    factor_of,
    lowest_of,
    mask_of,
    no_magnitude,
    posterize,
    solarize,
    take_nearest,
    to_bytes,
)

_LARGEST = 9
"""The largest of the package's magnitudes; the smallest that it draws is 1."""
_GREY = 128
"""Colour of what comes from outside the image."""
_HOLE_COLOUR = (125, 122, 113)
_WEIGHT_BITS = 22
"""Bicubic weights are multiples of 2^-22."""


def _invert(images: Tensor) -> Tensor:
    return images ^ 255


def _holes(S: int, side_B: Tensor, row_B: Tensor, column_B: Tensor) -> tuple[Tensor, Any]:
    """Return the colour of a square hole (3, 1, 1), and top, bottom, left and right of each."""
    half_B = side_B // 2
    edges_B4 = [row_B - half_B, row_B + half_B, column_B - half_B, column_B + half_B]
    colour_C11 = torch.tensor(_HOLE_COLOUR, dtype=torch.uint8)[:, None, None]
    return colour_C11, torch.stack(edges_B4, dim=1).int().clamp(min=0).tolist()


def _cutout(images: Tensor, colour_C11: Tensor, edges_B4: list[list[int]]) -> Tensor:
    """Cut a square hole around a place; an odd side is one less."""
    images = images.clone()
    for image, (top, bottom, left, right) in zip(images, edges_B4, strict=True):
        image[:, top:bottom, left:right] = colour_C11
    return images


def _sheared(S: int, magnitude_B: Tensor) -> tuple[Tensor, ...]:
    """Return where each row of a sheared image is taken from.

    With d the fraction of the distance that a row is shifted, the weights of the four pixels around
    it are::

        w0 = -d + 2 d^2 - d^3,  w1 = 1 - 2 d^2 + d^3,  w2 = d + d^2 - d^3,  w3 = -d^2 + d^3

    Returns:
        The first column (B, S, 1), the weights (T, B, 1, S, 1), and from where on and up to where
        a row of the result has something of the image, (B, 1, S, 1) each.
    """
    shift_BS = magnitude_B.numpy()[:, None] * (np.arange(S) + 0.5)
    first_BS = np.floor(shift_BS)
    d = shift_BS - first_BS
    w0, w2, w3 = (
        np.rint(w * 2**_WEIGHT_BITS).astype(np.int32)
        for w in (d * (-1 + d * (2 - d)), d * (1 + d * (1 - d)), d * d * (d - 1))
    )
    w_TBS = np.stack([w0, 2**_WEIGHT_BITS - w0 - w2 - w3, w2, w3])  # an area of one colour keeps it
    # x + 1/2 plus the row's shift is between 0 and S
    edges = (np.ceil(edge - 0.5 - shift_BS).astype(np.int16) for edge in (0, S))
    start, stop = (torch.from_numpy(edge)[:, None, :, None] for edge in edges)
    column = torch.from_numpy(first_BS.astype(np.int64) - 1)[:, :, None]
    return column, torch.from_numpy(w_TBS)[:, :, None, :, None], start, stop


def _shear_x(
    images: Tensor, column: Tensor, weights: Tensor, start: Tensor, stop: Tensor
) -> Tensor:
    """Take row y from m (y + 1/2) pixels further right, by bicubic interpolation with a = -1."""
    S, device = images.shape[-1], images.device
    # a row needs the columns from first - 1 to first + S + 1, and takes them at once
    column = (column + torch.arange(S + 3, device=device)).clamp_(0, S - 1)
    pixels = images.gather(3, column[:, None].expand(-1, 3, -1, -1)).int()
    out = pixels[..., :S] * weights[0]
    for t in (1, 2, 3):
        out.addcmul_(pixels[..., t : t + S], weights[t])
    out = out.bitwise_right_shift_(_WEIGHT_BITS).clamp_(0, 255).to(torch.uint8)
    x_S = torch.arange(S, dtype=torch.int16, device=device)
    return out.masked_fill_((x_S < start) | (x_S >= stop), _GREY)


def _shear_y(images: Tensor, *constants: Tensor) -> Tensor:
    return _shear_x(images.mT, *constants).mT.contiguous()


def _shifts(S: int, pixels_B: Tensor) -> tuple[list[int]]:
    """Return whole pixels, rounded with halves up."""
    return ((pixels_B + 0.5).floor().int().tolist(),)


def _translate(images: Tensor, shift_B: list[int], *, axis: int) -> Tensor:
    """Take each pixel from so many further along the axis."""
    S, out = images.shape[-1], torch.full_like(images, _GREY)
    for row, image, shift in zip(out, images, shift_B, strict=True):
        length = S - abs(shift)
        row.narrow(axis, max(-shift, 0), length).copy_(image.narrow(axis, max(shift, 0), length))
    return out


def _rotated(S: int, degrees_B: Tensor) -> tuple[Tensor, Tensor]:
    """Turn anticlockwise around the centre.

    Steps and start are rounded to 1 / 65536 pixel one by one, as Pillow does.

    Returns:
        Positions as :func:`take_nearest` has them.
    """
    cos, sin = np.cos(np.deg2rad(degrees_B.numpy())), np.sin(np.deg2rad(degrees_B.numpy()))
    step_B2N = np.stack([[cos, sin], [-sin, cos]]).transpose(2, 0, 1)  # of a column, of a row
    start_BN = S / 2 + step_B2N.sum(axis=1) * (0.5 - S / 2)
    fixed_B3N = np.concatenate([step_B2N, start_BN[:, None] + 1], axis=1)  # 1 for the border
    fixed_B3N = np.floor(fixed_B3N * 2**16 + 0.5).astype(np.int32)
    along, across, start = (torch.from_numpy(part)[:, :, None] for part in fixed_B3N.swapaxes(0, 1))
    at_S = torch.arange(S, dtype=torch.int32)
    return along * at_S, across * at_S + start


def _luminance(images: Tensor) -> Tensor:
    """Return the luminance in whole numbers, int32 (B, 1, S, S)."""
    red, green, blue = (channel.int() for channel in images.split(1, dim=1))
    weighted = red.mul_(19595).add_(green.mul_(38470)).add_(blue.mul_(7471))
    return weighted.add_(2**15).bitwise_right_shift_(16)


def _enhance(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """Return other + (1 + m) (images - other), without its fraction."""
    return to_bytes(images.float().sub_(other).mul_(factor).add_(other))


def _colour(images: Tensor, factor: Tensor) -> Tensor:
    return _enhance(images, _luminance(images), factor)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    total = _luminance(images).sum((1, 2, 3), dtype=torch.int64, keepdim=True)
    mean = (total.double() / images[0, 0].numel() + 0.5).floor()
    return _enhance(images, mean.float(), factor)


def _sharpness(images: Tensor, factor: Tensor) -> Tensor:
    out = images.clone()  # the border stays
    out[..., 1:-1, 1:-1] = _enhance(images[..., 1:-1, 1:-1], blur(images), factor)
    return out


def _autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel to 0 to 255 by a table of its 256 values, in double precision."""
    low, high = (
        value.flatten(2).double()
        for value in (images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True))
    )
    flat = low == high
    scale = torch.full_like(low, 255).div_((high - low).masked_fill_(flat, 1))
    value = torch.arange(256, dtype=torch.float64, device=images.device)
    table = (value * scale).sub_(low * scale).clamp_(0, 255)
    table = torch.where(flat, value, table).to(torch.uint8)
    return table.flatten().index_select(0, channel_values(images)).view_as(images)


OPERATIONS = (
    Operation(_invert, no_magnitude),
    Operation(_cutout, lambda m, S: round(20 * m / _LARGEST), _holes, placed=True),
    Operation(_sharpness, lambda m, S: 0.9 * m / _LARGEST, factor_of, signed=True),
    Operation(_autocontrast, no_magnitude),
    Operation(posterize, lambda m, S: round(8 - 4 * m / _LARGEST), mask_of),
    Operation(_shear_x, lambda m, S: 0.3 * m / _LARGEST, _sheared, signed=True),
    Operation(
        partial(_translate, axis=2), lambda m, S: 150 / 331 * S * m / _LARGEST, _shifts, signed=True
    ),
    Operation(
        partial(_translate, axis=1), lambda m, S: 150 / 331 * S * m / _LARGEST, _shifts, signed=True
    ),
    Operation(_shear_y, lambda m, S: 0.3 * m / _LARGEST, _sheared, signed=True),
    Operation(partial(take_nearest, fill=_GREY), lambda m, S: 30 * m / _LARGEST, _rotated),
    Operation(equalize, no_magnitude),
    Operation(_contrast, lambda m, S: 0.9 * m / _LARGEST, factor_of, signed=True),
    Operation(_colour, lambda m, S: 0.9 * m / _LARGEST, factor_of, signed=True),
    Operation(solarize, lambda m, S: 256 * (1 - m / _LARGEST), lowest_of),
    Operation(brightness, lambda m, S: 0.9 * m / _LARGEST, factor_of, signed=True),
)
"""The operations in the package's order, with magnitudes that follow from its own, 1 to 9.

Cutout's side, 2 to 20 pixels, is the same for every S. With magnitude 1 Posterize keeps all 8 bits.

Source: Peng, the package ``randaugment`` 1.0.2 on PyPI, 2019, with the ranges of Cubuk, Zoph, Mane,
Vasudevan, Le, AutoAugment, 2019.
"""
