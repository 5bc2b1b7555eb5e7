"""The network: its size, Eq. 3 and 7 against explicit arithmetic."""

from __future__ import annotations

import pytest
import torch

from sadcl import build, recipes
from sadcl.config import Config
from sadcl.memory import Memory
from sadcl.model import SARL, Task


def small(**changes) -> Config:
    return recipes.demo().override({"model.dropout": 0.0, **changes})


def test_trainable_parameters_at_the_released_sizes():
    """The released model, with projection head and prototypes, has 200,037,456 for 80 labels."""
    config = recipes.coco14("released").override({"model.pretrained": False})
    with torch.device("meta"):
        network = build.model(config, 80)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 200_037_456


def test_forward_shapes_and_equations_3_and_7():
    network = build.model(small(), 20).eval()
    images, bank = torch.randn(2, 3, 64, 64), torch.randn(5, 64)
    labels = torch.zeros(5, dtype=torch.int64)
    output = network(images, Memory(bank, labels, labels))
    assert output.logits_BL.shape == (2, 20)
    assert output.features_BLD.shape == (2, 20, 64)
    assert output.embeddings_BLP.shape == (2, 20, 64)
    assert output.prototypes_LP.shape == (20, 64)
    one = (
        network.head.classifier.weight_LD[3] * output.features_BLD[1, 3]
    ).sum() + network.head.classifier.bias_L[3]
    torch.testing.assert_close(output.logits_BL[1, 3], one)
    torch.testing.assert_close(output.bank_MP, network.projection(bank))
    torch.testing.assert_close(
        output.embeddings_BLP[1, 3], network.projection(output.features_BLD[1, 3])
    )
    plain = network(images)
    torch.testing.assert_close(plain.logits_BL, output.logits_BL)
    assert plain.embeddings_BLP is None
    empty = Memory(bank[:0], labels[:0], labels[:0])
    assert network(images, empty).bank_MP.shape == (0, 64)


def test_any_resolution_and_channel_reduction():
    network = build.model(small(**{"model.hidden": 32}), 3).eval()
    assert isinstance(network.head.reduce, torch.nn.Conv2d)
    assert network(torch.randn(1, 3, 96, 64)).logits_BL.shape == (1, 3)
    same = build.model(small(**{"model.hidden": None}), 3)
    assert isinstance(same.head.reduce, torch.nn.Identity)


def test_an_unknown_order_of_positions_is_refused_at_once():
    with pytest.raises(
        ValueError, match="position must be one of interleaved, halves, but got 'x'"
    ):
        SARL(Task((8,), ("one",), torch.zeros(1, 1)), hidden=64, position="x")
