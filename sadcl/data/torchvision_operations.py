"""RandAugment's operations as torchvision computes them, for a batch, on a CPU or a GPU.

The host first turns the magnitudes of an operation, float64 (B,), into its constants: what only
depends on them and on S. The operation takes images, uint8 (B, 3, S, S) and contiguous, and these
constants on the device of the images. It returns images of the same shape and leaves its arguments
unchanged. Integer operations and float operations that round once each make the result the same
alone, in any batch and on any device.

Axes: B images, S side in pixels, N the two coordinates x and y.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BINS = 30
"""The largest of torchvision's magnitudes."""
_Constants = tuple[Any, ...]


def _none(S: int, *values_B: Tensor) -> _Constants:
    """Return the constants of an operation that has none."""
    return ()


class Operation(NamedTuple):
    """One of the operations that RandAugment draws from."""

    function: Callable[..., Tensor]
    """Of images and the constants."""
    magnitude: Callable[[int, int], float]
    """The magnitude as a function of RandAugment's own magnitude and the side S."""
    constants: Callable[..., _Constants] = _none
    """What the function needs beside the images: tensors, and values that the host needs. A
    function of the side S, the magnitude of each image and, if ``placed``, a row and a column for
    each."""
    signed: bool = False
    """Whether a coin decides the sign of the magnitude."""
    placed: bool = False
    """Whether a place in the image is drawn too."""


def take_nearest(images: Tensor, along_BNS: Tensor, across_BNS: Tensor, fill: int) -> Tensor:
    """Return at each place the image's pixel at a position that is rounded down.

    Args:
        images: uint8 (B, 3, S, S).
        along_BNS: int32; x and y of the positions as they change along a row, in 1 / 65536 pixel.
        across_BNS: int32; what each row adds to them. A position of 65536, or one pixel, is the
            edge of the first pixel, because a border of one pixel lies before it.
        fill: value from 0 to 255 of places whose position lies outside the image.
    """
    S = images.shape[-1]
    x_y = along_BNS[:, :, None, :] + across_BNS[:, :, :, None]
    x_y = x_y.bitwise_right_shift_(16).clamp_(0, S + 1)
    index = (x_y[:, 1] * (S + 2)).add_(x_y[:, 0]).flatten(1).long()
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), value=fill).flatten(2)
    return padded.gather(2, index[:, None].expand(-1, 3, -1)).view_as(images)


def to_bytes(values: Tensor) -> Tensor:
    """Clamp floats and truncate them to uint8, through int16, which is five times faster on a
    CPU."""
    return values.clamp_(0, 255).short().to(torch.uint8)


def factors(values_B: Tensor) -> Tensor:
    """Return numbers as float32 (B, 1, 1, 1), to multiply images with."""
    return values_B.float()[:, None, None, None]


def factor_of(S: int, magnitude_B: Tensor) -> _Constants:
    """Return 1 + m, the factor of images that are made brighter, say."""
    return (factors(1 + magnitude_B),)


def _change_factor(S: int, magnitude_B: Tensor) -> _Constants:
    return (factors(-magnitude_B),)


def _blend_factors(S: int, magnitude_B: Tensor) -> _Constants:
    return *factor_of(S, magnitude_B), *_change_factor(S, magnitude_B)


def no_magnitude(m: int, S: int) -> float:
    """Return the magnitude of operations that have none."""
    return 0


def _identity(images: Tensor) -> Tensor:
    return images


_Matrix = tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]


def _affine(
    matrix: Callable[[NDArray[np.float64], int], _Matrix],
    magnitude: Callable[[int, int], float],
) -> Operation:
    """Return an operation that takes the nearest pixels under an affine map, and zeros outside.

    Its magnitudes have a sign.

    Args:
        matrix: gives for magnitudes (B,) and the side S the map from positions (x, y, 1) in the
            result to positions in the image, both relative to the centre: two rows of three numbers
            or (B,) arrays.
        magnitude: of the operation.
    """

    def positions(S: int, magnitude_B: Tensor) -> _Constants:
        m_B23 = np.empty((len(magnitude_B), 2, 3))
        for axis, row in enumerate(matrix(magnitude_B.numpy(), S)):
            for column, value in enumerate(row):
                m_B23[:, axis, column] = value
        at_S = np.arange(S) - (S - 1) / 2
        middle = (S - 1) / 2 + 1.5  # 1 for the border, and a half to round
        parts = (m_B23[..., :1] * at_S, m_B23[..., 1:2] * at_S + m_B23[..., 2:] + middle)
        return tuple(torch.from_numpy((p * 2**16).round().astype(np.int32)) for p in parts)

    return Operation(partial(take_nearest, fill=0), magnitude, positions, signed=True)


def _rotation(degrees: NDArray[np.float64], side: int) -> _Matrix:
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return (cos, -sin, 0), (sin, cos, 0)


def _gray(images: Tensor) -> Tensor:
    """Return the luminance in whole numbers, float32 (B, 1, S, S)."""
    red, green, blue = (channel.float() for channel in images.split(1, dim=1))
    return red.mul_(0.2989).add_(green.mul_(0.587)).add_(blue.mul_(0.114)).floor_()


def _blend(images: Tensor, other: Tensor, factor: Tensor, change: Tensor) -> Tensor:
    """Return (1 + m) of the images minus m of the others, whose memory is overwritten."""
    return to_bytes(images.float().mul_(factor).add_(other.mul_(change)))


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply by 1 + m and drop the fraction."""
    return to_bytes(images.float().mul_(factor))


def _colour(images: Tensor, factor: Tensor, change: Tensor) -> Tensor:
    return _blend(images, _gray(images), factor, change)


def _contrast(images: Tensor, factor: Tensor, change: Tensor) -> Tensor:
    # a sum of integers, which is the same in any order
    total = _gray(images).sum((1, 2, 3), dtype=torch.float64, keepdim=True)
    return _blend(images, (total / images[0, 0].numel()).float(), factor, change)


def _sharpness(images: Tensor, change: Tensor) -> Tensor:
    inner, out = images[..., 1:-1, 1:-1].float(), images.clone()
    out[..., 1:-1, 1:-1] = to_bytes(inner.add_(blur(images).sub_(inner).mul_(change)))
    return out


def blur(images: Tensor) -> Tensor:
    """Blur by 3 x 3 weights, 5 in the middle and 1 around, in whole numbers.

    Returns:
        float32 (B, 3, S - 2, S - 2), without the border.
    """
    x = images.short()
    rows = x[..., :-2] + x[..., 1:-1] + x[..., 2:]
    blurred = (
        (rows[..., :-2, :] + rows[..., 1:-1, :] + rows[..., 2:, :])
        .add_(x[..., 1:-1, 1:-1], alpha=4)
        .float()
    )
    return blurred.mul_(1 / 13).round_()


def mask_of(S: int, bits_B: Tensor) -> _Constants:
    """Return the mask (B, 1, 1, 1) that keeps so many of the highest bits of a value."""
    return ((256 - 2 ** (8 - bits_B)).to(torch.uint8)[:, None, None, None],)


def posterize(images: Tensor, mask: Tensor) -> Tensor:
    """Keep the bits of a mask."""
    return images & mask


def lowest_of(S: int, threshold_B: Tensor) -> _Constants:
    """Return the lowest whole number (B, 1, 1, 1) that is not below a threshold."""
    return (threshold_B.ceil().to(torch.int16)[:, None, None, None],)


def solarize(images: Tensor, lowest: Tensor) -> Tensor:
    """Invert the values that are at least the lowest one."""
    return images ^ ((images >= lowest).to(torch.uint8) * 255)


def _autocontrast(images: Tensor) -> Tensor:
    low, high = (
        value.float()
        for value in (images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True))
    )
    flat = low == high
    scale = (high - low).mul_(1 / 255).masked_fill_(flat, 1)
    return to_bytes(images.float().sub_(low.masked_fill_(flat, 0)).div_(scale))


def channel_values(images: Tensor) -> Tensor:
    """Return each value plus 256 for each channel of the batch before it, int32 (B * 3 * S * S,).

    They are the places of the values in a flattened table (B, 3, 256).
    """
    B = len(images)
    offset = torch.arange(0, B * 3 * 256, 256, dtype=torch.int32, device=images.device)
    return (images + offset.view(B, 3, 1, 1)).flatten()


def _count(values: Tensor, bins: int) -> Tensor:
    """Count each value, int64 (bins,)."""
    if values.device.type == "cpu":
        return torch.bincount(values, minlength=bins)
    # bincount looks for the largest value first, and the host would wait for it
    return values.new_zeros(bins).index_add_(0, values, torch.ones_like(values)).long()


def equalize(images: Tensor) -> Tensor:
    """Equalise the histogram of each channel as Pillow does: the brightest value does not count."""
    B, S = len(images), images.shape[-1]
    values = channel_values(images)
    count = _count(values, B * 3 * 256).view(B, 3, 256)
    summed = count.cumsum(2)
    brightest = count.gather(2, summed.argmax(2, keepdim=True))
    step = (S * S - brightest) // 255
    table = ((summed + step // 2) // step.clamp(min=1)).clamp_(0, 255).roll(1, 2)
    table[..., 0] = 0
    table = torch.where(step == 0, torch.arange(256, device=images.device), table).to(torch.uint8)
    return table.flatten().index_select(0, values).view_as(images)


OPERATIONS = (
    Operation(_identity, no_magnitude),
    _affine(lambda m, S: ((1, m, m * S / 2), (0, 1, 0)), lambda m, S: 0.3 * m / _BINS),
    _affine(lambda m, S: ((1, 0, 0), (m, 1, m * S / 2)), lambda m, S: 0.3 * m / _BINS),
    _affine(lambda m, S: ((1, 0, -m), (0, 1, 0)), lambda m, S: int(150 / 331 * S * m / _BINS)),
    _affine(lambda m, S: ((1, 0, 0), (0, 1, -m)), lambda m, S: int(150 / 331 * S * m / _BINS)),
    _affine(_rotation, lambda m, S: 30 * m / _BINS),
    Operation(brightness, lambda m, S: 0.9 * m / _BINS, factor_of, signed=True),
    Operation(_colour, lambda m, S: 0.9 * m / _BINS, _blend_factors, signed=True),
    Operation(_contrast, lambda m, S: 0.9 * m / _BINS, _blend_factors, signed=True),
    Operation(_sharpness, lambda m, S: 0.9 * m / _BINS, _change_factor, signed=True),
    Operation(posterize, lambda m, S: 8 - round(m / (_BINS / 4)), mask_of),
    Operation(solarize, lambda m, S: 255 * (1 - m / _BINS), lowest_of),
    Operation(_autocontrast, no_magnitude),
    Operation(equalize, no_magnitude),
)
"""The operations in torchvision's order; their magnitudes follow from ``randaugment_magnitude``, 0
to 30.

Source: Cubuk, Zoph, Shlens, Le, RandAugment: Practical Automated Data Augmentation with a Reduced
Search Space, 2020.
"""
