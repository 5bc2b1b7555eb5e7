"""What every head that is built in does, whatever it computes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from sadcl.model import heads
from sadcl.model.heads.head import Task
from sadcl.testing import HeadCase, check_head
from tests.conftest import soaked

SMALL = {"dim": 8, "heads": 2, "feedforward": 12}
TRANSFORMER = {"hidden": 8, "heads": 2, "feedforward": 10, "dropout": 0.0}
CHANNELS = 8


class Built(NamedTuple):
    """A head with the arguments of a small one."""

    head: type[nn.Module]
    arguments: Mapping[str, Any] = MappingProxyType({})
    features: int | None = None
    """Size of a label's feature."""
    case: HeadCase | None = None


HEADS = {
    "sarl": Built(heads.SARL, TRANSFORMER, 8),
    "pooled": Built(heads.Pooled),
    "query2label": Built(heads.Query2Label, TRANSFORMER, 8),
    "ml_gcn": Built(heads.MLGCN, {"hidden": 7, "word_dim": 6}),
    "add_gcn": Built(heads.ADDGCN, {"hidden": 8}, 8),
    "ssgrl": Built(heads.SSGRL, {"joint": 7, "hidden": 8, "word_dim": 6}, 8),
    "csra": Built(heads.CSRA, {"heads": 4}),
    "c_tran": Built(heads.CTran, {"layers": 2, "heads": 2, "dropout": 0.0}, CHANNELS),
    "ml_decoder": Built(heads.MLDecoder, {**SMALL, "dropout": 0.0}, 8),
    "ml_decoder_groups": Built(heads.MLDecoder, {**SMALL, "dropout": 0.0, "groups": 1}),
    "zero_shot": Built(heads.ZeroShotMLDecoder, {**SMALL, "dropout": 0.0, "word_dim": 6}, 8),
    "mulcon": Built(
        heads.MulCon,
        {"dim": 12, "heads": 2},
        12,
        HeadCase(without_gradient=("key.bias",)),  # adds the same to all scores of a softmax
    ),
    "tdrg": Built(heads.TDRG, {**SMALL, "layers": 2}, 16),
    "tdrg_batch": Built(
        heads.TDRG, {**SMALL, "layers": 2, "attention": "batch"}, 16, HeadCase(of_batch=True)
    ),
}
ANY_SHAPE = ("query2label", "ml_gcn", "add_gcn", "ssgrl", "csra")
"""Heads that are tried on maps that are not square too."""
COUNTS = torch.tensor([[9, 6, 1, 0], [6, 8, 2, 0], [1, 2, 4, 3], [0, 0, 3, 5]]).double()


def built(name: str) -> nn.Module:
    torch.manual_seed(3)
    count = len(getattr(HEADS[name].head, "feature_maps", (-1,)))
    task = Task((CHANNELS,) * count, tuple("abcd"), COUNTS)
    return HEADS[name].head(task, **HEADS[name].arguments).double().eval()


def maps(batch: int = 3, height: int = 4, width: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    shape = batch, CHANNELS, height, width
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", soaked(HEADS, ("sarl", "ml_gcn", "tdrg")))
def test_it_keeps_the_contract(name):
    head, arguments, features, case = HEADS[name]
    check_head(head, case, **arguments)
    assert getattr(built(name), "feature_size", None) == features


@pytest.mark.parametrize("name", ANY_SHAPE)
@pytest.mark.parametrize(("height", "width"), [(3, 6), (1, 5)])
def test_an_image_alone_gives_the_same(name, height, width):
    head, map_BCHW = built(name), maps(3, height, width)
    together = head(map_BCHW)
    assert together.logits_BL.shape == (3, 4)
    assert together.auxiliary_BL == ()
    for i in range(3):
        alone = head(map_BCHW[i : i + 1])
        torch.testing.assert_close(alone.logits_BL[0], together.logits_BL[i], rtol=1e-12, atol=0)
        if together.features_BLD is not None:
            assert together.features_BLD.shape[:2] == (3, 4)
            torch.testing.assert_close(alone.features_BLD[0], together.features_BLD[i])
    assert not torch.allclose(together.logits_BL[0], together.logits_BL[1])


@pytest.mark.parametrize("name", ["query2label", "add_gcn", "ssgrl", "csra"])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 5), (1, 1)])
def test_attention_maps_cover_the_map(name, height, width):
    head = built(name)
    maps_BLHW = head.attention_maps(maps(2, height, width))
    assert maps_BLHW.shape == (2, 4, height, width)
    assert (maps_BLHW >= 0).all()
    if name == "add_gcn":
        assert (maps_BLHW <= 1).all()
    else:
        torch.testing.assert_close(maps_BLHW.sum((2, 3)), torch.ones(2, 4).double())


@pytest.mark.parametrize("name", ["c_tran", "ml_decoder", "ml_decoder_groups", "mulcon", "tdrg"])
def test_attention_maps_are_not_negative(name):
    head = built(name)
    inputs = [maps(2, 8, 8)] * (len(getattr(head, "feature_maps", (-1,))) - 1) + [maps(2)]
    assert (head.attention_maps(*inputs) >= 0).all()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("query2label", {"hidden": 6}, "multiple of 4 and of the heads, but got 6"),
        ("query2label", {"heads": 0}, "heads must be at least 1, but got 0"),
        ("query2label", {"decoder_layers": 0}, "decoder_layers must be at least 1, but got 0"),
        ("query2label", {"encoder_layers": -1}, "encoder_layers must be at least 0, but got -1"),
        ("query2label", {"dropout": 1.5}, "dropout must be from 0 to 1, but got 1.5"),
        ("query2label", {"position": "x"}, "position must be one of interleaved, halves"),
        ("ml_gcn", {"hidden": 0}, "hidden must be at least 1, but got 0"),
        ("ml_gcn", {"threshold": 0.0}, "threshold must be above 0 and at most 1, but got 0.0"),
        ("ml_gcn", {"neighbours": -1.0}, "neighbours must be above 0 and finite, but got -1.0"),
        ("ml_gcn", {"word_dim": 0}, "word_dim must be at least 1, but got 0"),
        ("add_gcn", {"hidden": 0}, "hidden must be at least 1, but got 0"),
        ("ssgrl", {"joint": 0}, "joint must be at least 1, but got 0"),
        ("ssgrl", {"steps": 0}, "steps must be at least 1, but got 0"),
        ("csra", {"heads": 3}, "heads must be one of 1, 2, 4, 6, 8 .* but got 3"),
        ("csra", {"lam": float("nan")}, "lam must be at least 0 and finite, but got nan"),
        ("csra", {"heads": 2, "temperatures": [1.0]}, r"one for each .* got \[1.0\] for heads = 2"),
        ("csra", {"heads": 1, "temperatures": [0.0]}, r"above 0 and finite, but got \[0.0\]"),
    ],
)
def test_arguments_out_of_range_are_refused(name, arguments, message):
    head, defaults, *_ = HEADS[name]
    with pytest.raises(ValueError, match=message):
        head(Task((CHANNELS,), ("a", "b", "c", "d"), COUNTS), **{**defaults, **arguments})
