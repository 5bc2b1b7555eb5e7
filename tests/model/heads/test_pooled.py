"""The pooled baseline."""

from __future__ import annotations

import torch

from sadcl import build, recipes
from sadcl.model import Pooled


def test_pooled_baseline():
    network = build.model(recipes.demo().override({"model.head": Pooled}), 7)
    assert isinstance(network.head, Pooled)
    assert network(torch.randn(2, 3, 64, 64)).logits_BL.shape == (2, 7)
