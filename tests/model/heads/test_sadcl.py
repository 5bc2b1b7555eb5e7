"""The network: sizes, frozen parts, Eq. 2, 3 and 7 against explicit arithmetic."""

from __future__ import annotations

import math

import pytest
import torch

from sadcl import build, recipes
from sadcl.config import Config
from sadcl.errors import UserError
from sadcl.memory import Memory
from sadcl.model import SADCL, Backbone, Pooled
from sadcl.model.position import sine_position
from sadcl.model.transformer import DecoderLayer, LabelTransformer


def small(**changes) -> Config:
    return recipes.demo().override({"model.dropout": 0.0, **changes})


def test_trainable_parameters_at_the_released_sizes():
    """METHOD: 200,037,456 for 80 labels, with the projection head and learnable prototypes."""
    config = recipes.coco14("released").override({"model.pretrained": False})
    with torch.device("meta"):
        network = build.model(config, 80)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 200_037_456


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


def test_decoder_layer_adds_positions_to_keys_and_queries_only():
    torch.manual_seed(0)
    layer = DecoderLayer(8, 2, 16, 0.0).double()
    target, query, value = (
        torch.randn(1, 3, 8).double(),
        torch.randn(3, 8).double(),
        torch.randn(1, 5, 8).double(),
    )
    position = torch.randn(5, 8).double()
    weights, biases = layer.attention.in_proj_weight.chunk(3), layer.attention.in_proj_bias.chunk(3)
    q = (target[0] + query) @ weights[0].T + biases[0]
    k = (value[0] + position) @ weights[1].T + biases[1]
    v = value[0] @ weights[2].T + biases[2]
    heads = [
        torch.softmax(q[:, part] @ k[:, part].T / 2.0, dim=1) @ v[:, part]
        for part in (slice(0, 4), slice(4, 8))
    ]
    attended = (
        torch.cat(heads, 1) @ layer.attention.out_proj.weight.T + layer.attention.out_proj.bias
    )
    x = layer.norm(target[0] + attended)
    y = layer.feedforward
    expected = y.norm(
        x
        + torch.relu(x @ y.expand.weight.T + y.expand.bias) @ y.contract.weight.T
        + y.contract.bias
    )
    torch.testing.assert_close(layer(target, query, value + position, value)[0], expected)


def test_labels_do_not_attend_to_each_other():
    """The decoder has no self-attention: a label's features do not depend on another's query."""
    torch.manual_seed(0)
    transformer = LabelTransformer(4, 8, heads=2, feedforward=16, dropout=0.0)
    memory, position = torch.randn(2, 6, 8), torch.randn(6, 8)
    before = transformer(memory, position)
    with torch.no_grad():
        transformer.query_LD[1] += 1
    after = transformer(memory, position)
    torch.testing.assert_close(after[:, [0, 2, 3]], before[:, [0, 2, 3]])
    assert not torch.allclose(after[:, 1], before[:, 1])


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
        network.classifier.weight_LD[3] * output.features_BLD[1, 3]
    ).sum() + network.classifier.bias_L[3]
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
    assert isinstance(network.reduce, torch.nn.Conv2d)
    assert network(torch.randn(1, 3, 96, 64)).logits_BL.shape == (1, 3)
    same = build.model(small(**{"model.hidden": None}), 3)
    assert isinstance(same.reduce, torch.nn.Identity)


@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "vit_tiny_patch16_224", "resnet18", "convnext_atto"]
)
def test_any_backbone_gives_channels_first_at_the_size_asked_for(name):
    """timm's Swin gives its channels last, and it and ViT are built for one size of image."""
    backbone = Backbone(name, image_size=96, freeze_batchnorm=False).eval()
    assert backbone(torch.randn(1, 3, 96, 96)).shape[1] == backbone.channels
    build.check_model(small(**{"model.backbone": name, "model.feature": -1, "data.image_size": 96}))


def test_a_backbone_that_cannot_take_the_images_is_named():
    with pytest.raises(
        UserError, match=r"model.backbone = 'test_vit' .*data.image_size = 33 pixels"
    ):
        build.check_model(
            small(**{"model.backbone": "test_vit", "model.feature": -1, "data.image_size": 33})
        )


def test_pooled_baseline():
    network = build.model(small(**{"model.arch": "pooled"}), 7)
    assert isinstance(network, Pooled)
    assert network(torch.randn(2, 3, 64, 64)).logits_BL.shape == (2, 7)


def test_frozen_parts_do_not_move():
    changes = {"model.frozen": ("stem", "stages_0"), "model.freeze_batchnorm": True}
    network = build.model(small(**changes), 4)
    assert isinstance(network, SADCL)
    network.projection.requires_grad_(False)
    before = {n: t.clone() for n, t in network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network.train()
    network(torch.randn(4, 3, 64, 64)).logits_BL.square().sum().backward()
    optimizer.step()
    moved = {n for n, t in network.state_dict().items() if not torch.equal(t, before[n])}
    assert moved
    still = ("backbone.body.stem", "backbone.body.stages_0", "projection")
    assert not [n for n in moved if n.startswith(still) or "running" in n or ".bn" in n]
    assert not network.backbone.body.get_submodule("stages_0").training


def test_same_seed_same_network():
    one, two = build.model(small(), 5), build.model(small(), 5)
    other = build.model(small(seed=1), 5)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.transformer.query_LD, other.transformer.query_LD)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.backbone": "resnet1o1"}, "did you mean resnet101"),
        ({"model.frozen": ("layer9",)}, "layer9"),
        ({"model.hidden": 30}, "multiple of 4"),
        ({"model.hidden": 64, "model.heads": 3}, "heads"),
        ({"model.weights": "nowhere.safetensors"}, "nowhere.safetensors"),
    ],
)
def test_bad_models_are_named_before_training(changes, words):
    with pytest.raises(UserError, match=words):
        build.check_model(small(**changes))


def test_weights_from_a_local_file(tmp_path):
    from safetensors.torch import save_file

    source = Backbone("test_resnet", freeze_batchnorm=False)
    path = tmp_path / "backbone.safetensors"
    save_file(source.body.state_dict(), path)
    loaded = Backbone("test_resnet", weights=str(path), pretrained=True, freeze_batchnorm=False)
    assert all(
        torch.equal(a, b) for a, b in zip(source.parameters(), loaded.parameters(), strict=True)
    )
    path.write_bytes(b"not weights")
    with pytest.raises(UserError, match="cannot be read as weights"):
        Backbone("test_resnet", weights=str(path))
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="does not fit"):
        Backbone("test_resnet", weights=str(path))


def test_weights_that_cannot_be_downloaded(monkeypatch, tmp_path):
    """Without a network and without a cached copy the error says what to do."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="cannot be downloaded.*model.weights") as error:
        build.check_model(recipes.coco14())
    assert "resnet101" in str(error.value)
