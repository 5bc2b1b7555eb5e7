"""Maps against the formulas they stand for."""

from __future__ import annotations

import pytest
import torch

from sadcl import build, recipes
from sadcl.model import with_maps


def network(**changes):
    torch.manual_seed(0)
    return (
        build.model(recipes.demo().override({"data.image_size": 64, **changes}), 5).eval().double()
    )


@torch.no_grad()
def test_class_activation_is_the_closed_form_and_its_mean_with_the_bias_the_score():
    pooled = network(**{"model.head": "sadcl.model.heads:Pooled"})
    images = torch.randn(2, 3, 64, 96).double()
    output, maps = with_maps(pooled, images)
    features = pooled.backbone(images)
    assert maps.shape == (2, 5, *features.shape[2:])
    for label, weight in enumerate(pooled.head.classifier.weight):
        expected = sum(w * features[:, channel] for channel, w in enumerate(weight))
        torch.testing.assert_close(maps[:, label], expected)
    torch.testing.assert_close(maps.mean((2, 3)) + pooled.head.classifier.bias, output.logits_BL)


@torch.no_grad()
@pytest.mark.parametrize("layers", [1, 2])
def test_attention_is_that_of_the_last_decoder_layer_averaged_over_the_heads(layers):
    sadcl, images = network(**{"model.decoder_layers": layers}), torch.randn(2, 3, 64, 96).double()
    _, maps = with_maps(sadcl, images)
    given = []
    last = sadcl.head.transformer.decoder[-1]
    hook = last.register_forward_pre_hook(lambda _, inputs: given.extend(inputs))
    sadcl(images)
    hook.remove()
    target, query, key, _ = given
    weights, biases = last.attention.in_proj_weight.chunk(3), last.attention.in_proj_bias.chunk(3)
    q = (target + query) @ weights[0].T + biases[0]
    k = key @ weights[1].T + biases[1]
    heads, size = last.attention.num_heads, q.shape[-1] // last.attention.num_heads
    parts = [slice(h * size, (h + 1) * size) for h in range(heads)]
    each = [torch.softmax(q[..., p] @ k[..., p].transpose(1, 2) / size**0.5, -1) for p in parts]
    height, width = sadcl.backbone(images).shape[2:]
    assert width > height
    torch.testing.assert_close(maps, torch.stack(each).mean(0).unflatten(2, (height, width)))
    torch.testing.assert_close(maps.sum((2, 3)), torch.ones(2, 5).double())


@torch.no_grad()
@pytest.mark.parametrize("arch", ["sadcl", "pooled"])
def test_under_autocast_logits_and_maps_are_not_rounded(arch):
    """Values that bfloat16 could not tell apart would tie, and ties change mAP and pointing."""
    one, images = network(**{"model.arch": arch}).float(), torch.randn(8, 3, 64, 96)
    exact, exact_maps = with_maps(one, images)
    with torch.autocast("cpu", torch.bfloat16):
        output, maps = with_maps(one, images)
        assert torch.equal(output.logits_BL, one(images).logits_BL)
    assert output.logits_BL.dtype == maps.dtype == torch.float32
    for found, wanted in ((output.logits_BL, exact.logits_BL), (maps, exact_maps)):
        assert not torch.equal(found.bfloat16().float(), found)
        assert not torch.equal(found, wanted)  # the rest is computed in bfloat16
        torch.testing.assert_close(found, wanted, rtol=0.1, atol=0.1)


@torch.no_grad()
@pytest.mark.parametrize("arch", ["sadcl", "pooled"])
def test_looking_changes_no_score_and_leaves_nothing_behind(arch):
    one, images = network(**{"model.arch": arch}).float(), torch.randn(2, 3, 64, 64)
    assert torch.equal(with_maps(one, images)[0].logits_BL, one(images).logits_BL)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in one.modules())
