"""The sine position encoding against its formula."""

from __future__ import annotations

import math

import torch

from sadcl.model.position import sine_position


def test_sine_position_is_the_formula():
    height, width, dim = 3, 5, 8
    position = sine_position(height, width, dim, device=torch.device("cpu"), dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            expected = []
            for place in ((y + 1) / height, (x + 1) / width):
                angles = [place * 2 * math.pi / 10000 ** (i / (dim // 4)) for i in range(dim // 4)]
                expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            torch.testing.assert_close(
                position[y * width + x],
                torch.tensor(expected, dtype=torch.float64),
                atol=1e-6,
                rtol=0,
            )
