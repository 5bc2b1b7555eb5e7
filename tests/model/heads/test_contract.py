"""What every head of a published classifier does, whatever it computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sadcl.model.heads.add_gcn import ADDGCN
from sadcl.model.heads.csra import CSRA
from sadcl.model.heads.head import Task
from sadcl.model.heads.ml_gcn import MLGCN
from sadcl.model.heads.query2label import Query2Label
from sadcl.model.heads.ssgrl import SSGRL

CHANNELS = (12,)
HEADS = {
    "query2label": (Query2Label, {"hidden": 8, "heads": 2, "feedforward": 10, "dropout": 0.0}),
    "ml_gcn": (MLGCN, {"hidden": 7, "word_dim": 6}),
    "add_gcn": (ADDGCN, {"hidden": 8}),
    "ssgrl": (SSGRL, {"joint": 7, "hidden": 8, "word_dim": 6}),
    "csra": (CSRA, {"heads": 4}),
}
"""Class and arguments for a small head."""
COUNTS = torch.tensor([[9, 6, 1, 0], [6, 8, 2, 0], [1, 2, 4, 3], [0, 0, 3, 5]]).double()


def built(name: str, num_labels: int = 4, counts: Tensor | None = None) -> torch.nn.Module:
    head, arguments = HEADS[name]
    labels = tuple(f"label {i}" for i in range(num_labels))
    torch.manual_seed(3)
    counts = COUNTS[:num_labels, :num_labels] if counts is None else counts
    return head(Task(CHANNELS, labels, counts), **arguments)


def maps(batch: int = 3, height: int = 4, width: int = 4, dtype=torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(batch, CHANNELS[0], height, width, generator=generator, dtype=dtype)


@pytest.mark.parametrize("name", HEADS)
def test_gradients_reach_every_parameter_and_the_map(name):
    """In evaluation mode: in training the BatchNorm of ADD-GCN removes a bias before it."""
    head, map_BCHW = built(name).double().eval(), maps().requires_grad_()
    logits_BL = head(map_BCHW).logits_BL
    weight_BL = torch.randn(logits_BL.shape, generator=torch.Generator().manual_seed(1))
    (logits_BL * weight_BL).sum().backward()
    parameters = dict(head.named_parameters())
    assert parameters
    for key, tensor in {**parameters, "map": map_BCHW}.items():
        assert tensor.grad is not None, key
        assert tensor.grad.isfinite().all(), key
        assert tensor.grad.abs().max() > 1e-9, key


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 6), (1, 1), (1, 5)])
def test_an_image_alone_gives_the_same(name, height, width):
    head, map_BCHW = built(name).double().eval(), maps(3, height, width)
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


@pytest.mark.parametrize("name", HEADS)
def test_one_label_and_training_on_one_image(name):
    head = built(name, 1).train()
    output = head(maps(1, dtype=torch.float32))
    assert output.logits_BL.shape == (1, 1)
    output.logits_BL.sum().backward()
    assert output.logits_BL.isfinite().all()


@pytest.mark.parametrize("name", HEADS)
def test_a_state_is_all_that_a_network_needs(name):
    """A head that knows no counts becomes the one whose state it loads."""
    head, zeros = built(name).eval(), torch.zeros(4, 4).double()
    other = built(name, counts=zeros)
    map_BCHW = maps(dtype=torch.float32)
    assert other.eval()(map_BCHW).logits_BL.isfinite().all()
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    assert not torch.equal(other(map_BCHW).logits_BL, head(map_BCHW).logits_BL)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(map_BCHW).logits_BL, head(map_BCHW).logits_BL)


@pytest.mark.parametrize("name", HEADS)
def test_under_autocast_logits_stay_float32(name):
    head = built(name).eval().requires_grad_(False)
    map_BCHW = maps(dtype=torch.float32)
    exact = head(map_BCHW)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = head(map_BCHW.bfloat16())
        has_maps = hasattr(head, "attention_maps")
        shown = head.attention_maps(map_BCHW.bfloat16()) if has_maps else None
    assert output.logits_BL.dtype == torch.float32
    assert output.features_BLD is None or output.features_BLD.dtype == torch.float32
    assert shown is None or shown.dtype == torch.float32
    size = float(exact.logits_BL.abs().max())
    torch.testing.assert_close(output.logits_BL, exact.logits_BL, rtol=0, atol=0.05 * size)
    rounded = output.logits_BL.bfloat16().float()
    assert (rounded != output.logits_BL).any(), "the logits have been in bfloat16"


@pytest.mark.parametrize("name", [name for name in HEADS if name != "ml_gcn"])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 5), (1, 1)])
def test_attention_maps_cover_the_map(name, height, width):
    head = built(name).double().eval()
    maps_BLHW = head.attention_maps(maps(2, height, width))
    assert maps_BLHW.shape == (2, 4, height, width)
    assert (maps_BLHW >= 0).all()
    if name == "add_gcn":
        assert (maps_BLHW <= 1).all()
    else:
        torch.testing.assert_close(maps_BLHW.sum((2, 3)), torch.ones(2, 4).double())


@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_one_graph_for_the_compiler(name):
    head = built(name).eval()
    map_BCHW = maps(dtype=torch.float32)
    compiled = torch.compile(head, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(map_BCHW).logits_BL, head(map_BCHW).logits_BL)


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
    head, defaults = HEADS[name]
    with pytest.raises(ValueError, match=message):
        head(Task(CHANNELS, ("a", "b", "c", "d"), COUNTS), **{**defaults, **arguments})
