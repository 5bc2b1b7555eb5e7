"""The sine position encoding against its formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sadcl.model.position import sine_position

CPU = torch.device("cpu")


def encode(height: int, width: int, dim: int, order: str, dtype=torch.float32) -> Tensor:
    return sine_position(height, width, dim, order=order, device=CPU, dtype=dtype)


def older(height: int, width: int, dim: int) -> Tensor:
    """The encoding of versions that had no order, as they wrote it."""
    quarter = dim // 4
    frequency = 10000 ** (-torch.arange(quarter, dtype=torch.float32) / quarter)

    def axis(length: int) -> Tensor:
        angle = torch.arange(1, length + 1, dtype=torch.float32) / length * 2 * math.pi
        phase = angle[:, None] * frequency
        return torch.cat([phase.sin(), phase.cos()], dim=1)

    rows = axis(height)[:, None, :].expand(height, width, 2 * quarter)
    columns = axis(width)[None, :, :].expand(height, width, 2 * quarter)
    return torch.cat([rows, columns], dim=2).reshape(height * width, dim)


def as_published(height: int, width: int, dim: int) -> Tensor:
    """DETR's normalised encoding over a whole grid, each float32 operation in its order."""
    half = dim // 2
    ones = torch.ones(1, height, width)
    channel = torch.arange(half, dtype=torch.float32)
    period = 10000 ** (2 * torch.div(channel, 2, rounding_mode="floor") / half)
    parts = []
    for axis in (1, 2):
        place = ones.cumsum(axis, dtype=torch.float32)
        place = place / (place.narrow(axis, place.shape[axis] - 1, 1) + 1e-6) * (2 * math.pi)
        phase = place[..., None] / period
        pairs = (phase[..., 0::2].sin(), phase[..., 1::2].cos())
        parts.append(torch.stack(pairs, dim=4).flatten(3))
    return torch.cat(parts, dim=3)[0].reshape(height * width, dim)


SIZES = [(1, 1, 4), (3, 5, 8), (4, 4, 64), (7, 7, 100), (14, 14, 2048), (18, 18, 256)]


@pytest.mark.parametrize(("order", "epsilon"), [("interleaved", 1e-6), ("halves", 0.0)])
def test_sine_position_is_the_formula(order, epsilon):
    height, width, dim = 3, 5, 8
    position = encode(height, width, dim, order, torch.float64)
    for y in range(height):
        for x in range(width):
            expected = []
            for place in ((y + 1) / (height + epsilon), (x + 1) / (width + epsilon)):
                angles = [place * 2 * math.pi / 10000 ** (i / (dim // 4)) for i in range(dim // 4)]
                if order == "halves":
                    expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
                else:
                    expected += [f(a) for a in angles for f in (math.sin, math.cos)]
            torch.testing.assert_close(
                position[y * width + x],
                torch.tensor(expected, dtype=torch.float64),
                atol=1e-6,
                rtol=0,
            )


@pytest.mark.parametrize("size", SIZES)
def test_interleaved_is_the_published_encoding_to_the_last_bit(size):
    assert torch.equal(encode(*size, "interleaved"), as_published(*size))


@pytest.mark.parametrize("size", SIZES)
def test_halves_is_that_of_older_versions_to_the_last_bit(size):
    assert torch.equal(encode(*size, "halves"), older(*size))


@pytest.mark.parametrize("size", SIZES)
def test_the_orders_have_the_same_channels(size):
    """Channel 2k and 2k + 1 of an axis are channel k of its sines and of its cosines.

    Their angles are at most 2 pi * 1e-6 apart, and float32 rounds an angle of 2 pi by 2.4e-7.
    """
    *_, dim = size
    halves = encode(*size, "halves").unflatten(1, (2, 2, dim // 4))  # axis, function, frequency
    permuted = halves.transpose(2, 3).flatten(1)
    torch.testing.assert_close(encode(*size, "interleaved"), permuted, atol=1e-5, rtol=0)
    if dim > 4:
        assert not torch.allclose(encode(*size, "interleaved"), halves.flatten(1), atol=1e-2)


def test_what_is_not_possible():
    with pytest.raises(ValueError, match="multiple of 4 for sine positions, but got 6"):
        encode(2, 2, 6, "interleaved")
    with pytest.raises(
        ValueError, match="order must be 'interleaved' or 'halves', but got 'mixed'"
    ):
        encode(2, 2, 8, "mixed")
