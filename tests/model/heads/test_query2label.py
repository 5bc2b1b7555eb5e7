"""Query2Label against plain loops, against SADCL's network and against golden values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

import sadcl
from sadcl.model.heads.head import Task
from sadcl.model.heads.query2label import Query2Label
from sadcl.model.position import sine_position
from tests import parity
from tests.model.heads import plain

GOLDEN = Path(sadcl.__file__).parents[2] / "shared" / "parity"


def attend(module, queries, keys, values):
    """Multi-head attention: the outputs and the weights averaged over the heads."""
    dim, heads = queries.shape[1], module.num_heads
    projected = [
        x @ module.in_proj_weight[i * dim : (i + 1) * dim].T
        + module.in_proj_bias[i * dim : (i + 1) * dim]
        for i, x in enumerate((queries, keys, values))
    ]
    size, outputs, maps = dim // heads, [], []
    for i in range(heads):
        q, k, v = (x[:, i * size : (i + 1) * size] for x in projected)
        weights = (q @ k.T / size**0.5).softmax(1)
        outputs.append(weights @ v)
        maps.append(weights)
    return module.out_proj(torch.cat(outputs, 1)), sum(maps) / heads


def feed_forward(module, x):
    return module.norm(x + module.contract(module.expand(x).clamp_min(0)))


def reference(head, map_CHW):
    """Logits, features and attention of one image."""
    kernel = head.reduce.weight.flatten(1)
    x = (kernel @ map_CHW.flatten(1)).T + head.reduce.bias
    cpu = torch.device("cpu")
    position = sine_position(*map_CHW.shape[1:], x.shape[1], device=cpu, dtype=x.dtype)
    for layer in head.transformer.encoder:
        mixed, _ = attend(layer.attention, x + position, x + position, x)
        x = feed_forward(layer.feedforward, layer.norm(x + mixed))
    queries = head.transformer.query_LD
    target, weights = torch.zeros_like(queries), None
    for layer in head.transformer.decoder:
        mixed, weights = attend(layer.attention, target + queries, x + position, x)
        target = feed_forward(layer.feedforward, layer.norm(target + mixed))
    q = functional.layer_norm(
        target, target.shape[1:], head.transformer.norm.weight, head.transformer.norm.bias
    )
    w, b = head.classifier.weight_LD, head.classifier.bias_L
    logits = torch.stack([(w[i] * q[i]).sum() + b[i] for i in range(len(q))])
    return logits, q, weights.unflatten(1, map_CHW.shape[1:])


def task(channels=6, labels=3):
    names = tuple(f"label {i}" for i in range(labels))
    return Task((channels,), names, torch.zeros(labels, labels).double())


@pytest.mark.parametrize(("encoder", "decoder"), [(1, 2), (0, 1), (2, 3)])
def test_equals_plain_loops(encoder, decoder):
    head = Query2Label(
        task(),
        hidden=8,
        heads=2,
        feedforward=5,
        encoder_layers=encoder,
        decoder_layers=decoder,
    )
    head, map_BCHW = head.double().eval(), plain.normal(2, 6, 2, 3).double()
    output, maps_BLHW = head(map_BCHW), head.attention_maps(map_BCHW)
    for i in range(2):
        logits, features, attention = reference(head, map_BCHW[i])
        torch.testing.assert_close(output.logits_BL[i], logits, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(output.features_BLD[i], features, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(maps_BLHW[i], attention, rtol=1e-12, atol=1e-12)


def test_checkpointing_changes_nothing():
    sizes = {"hidden": 8, "heads": 2, "feedforward": 5, "dropout": 0.0}
    map_BCHW, gradients = plain.normal(2, 6, 2, 3), []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        head = Query2Label(task(), checkpointing=checkpointing, **sizes)
        head(map_BCHW).logits_BL.square().sum().backward()
        gradients.append([parameter.grad for parameter in head.parameters()])
        head.eval().attention_maps(map_BCHW)
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_no_convolution_where_the_channels_are_the_hidden_size():
    head = Query2Label(task(8), hidden=8, heads=2, feedforward=5)
    assert isinstance(head.reduce, torch.nn.Identity)


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("q2l_resnet18_d64_128", ("logits", "attention")),
        ("sadcl_resnet18_d64_128", ("logits", "attention", "label_features")),
    ],
)
@torch.no_grad()
def test_equals_the_golden_values(name, outputs):
    """The head of a published network, on the feature map of its backbone.

    SADCL's label features and attention are those of Query2Label.
    """
    stem = GOLDEN / name
    if not stem.with_suffix(".json").exists():
        pytest.skip("there are no golden files beside the repository")
    spec = json.loads(stem.with_suffix(".json").read_text())
    theirs = load_file(stem.with_suffix(".safetensors"))
    network = parity.imported(spec, parity.filled_state(spec, theirs)).network.double().eval()
    head = Query2Label(
        task(network.backbone.channels, spec["labels"]),
        hidden=spec["hidden"],
        feedforward=spec["feedforward"],
    )
    head.double().eval()
    head.load_state_dict(network.head.state_dict())
    map_BCHW = network.backbone(theirs["images"].double())
    output = head(map_BCHW)
    assert torch.equal(output.logits_BL, network(theirs["images"].double()).logits_BL)
    ours = {"logits": output.logits_BL, "label_features": output.features_BLD}
    ours["attention"] = head.attention_maps(map_BCHW).flatten(2)
    for key in outputs:
        largest = float(theirs[key].abs().max())
        assert float((ours[key] - theirs[key]).abs().max()) <= 1e-9 * largest, key
