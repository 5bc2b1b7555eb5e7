"""What the tests of published heads share: golden files of any sizes, made from plain loops.

A test describes a published state, fills it as golden files are filled, computes the outputs with
plain loops over that state, and compares them with what ``tests/published_heads/`` gets from ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tests import parity


def described(shapes: Mapping[str, Sequence[int]], **more: Any) -> dict[str, Any]:
    """The JSON of a golden file with a state of these shapes."""
    return {"seed": 13, "state": {key: [[*s], "float32"] for key, s in shapes.items()}, **more}


def filled(spec: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
    """The filled state in float64."""
    return {key: tensor.double() for key, tensor in parity.filled_state(spec, tensors).items()}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def compare(ours: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Compare all that is expected, relative to the largest magnitude."""
    for key, tensor in expected.items():
        assert ours[key].dtype == torch.float64, key
        assert ours[key].shape == tensor.shape, key
        difference = float((ours[key] - tensor).abs().max())
        assert difference <= 1e-12 * float(tensor.abs().max()), key


def lrelu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x)
