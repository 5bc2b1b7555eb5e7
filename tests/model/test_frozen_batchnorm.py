"""Frozen BatchNorm beside timm's, and activations that are computed again."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers import freeze_batch_norm_2d

from sadcl import build, recipes
from sadcl.errors import UserError
from sadcl.model import Backbone
from sadcl.model.frozen_batchnorm import FrozenBatchNorm
from tests.conftest import TINY

L = 5


def with_statistics(name):
    body = Backbone(name, freeze_batchnorm=False).body
    for layer in body.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean):
                tensor.normal_()
            layer.running_var.uniform_(0.5, 2)
    return body


@pytest.mark.parametrize("name", ["test_resnet", "test_byobnet"])
def test_frozen_batchnorm_is_timms_and_keeps_the_type(name):
    body = with_statistics(name)
    images, backbone = torch.randn(2, 3, 64, 64), Backbone(name)
    backbone.body.load_state_dict(body.state_dict(), strict=False)
    theirs = freeze_batch_norm_2d(copy.deepcopy(body)).eval()
    assert set(backbone.body.state_dict()) == set(theirs.state_dict())
    torch.testing.assert_close(backbone(images), theirs(images)[-1], rtol=1e-4, atol=1e-4)
    layers = [layer for layer in backbone.modules() if isinstance(layer, FrozenBatchNorm)]
    assert layers
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in backbone.modules())
    seen = []
    for layer in layers:
        layer.register_forward_hook(lambda _, given, out: seen.append((given[0].dtype, out.dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        backbone(images)
    assert set(seen) == {(torch.bfloat16, torch.bfloat16)}


def network(checkpointing, **changes):
    more = {
        "model.checkpointing": checkpointing,
        "model.encoder_layers": 1,
        "model.dropout": 0.3,
        **changes,
    }
    return build.model(recipes.demo().override({**TINY, **more}), L).train()


def passed(net, steps=1):
    """Gradients, and the bytes beside the weights that were kept for the backward pass."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in net.state_dict().values()}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    for step in range(steps):
        kept = {}
        torch.manual_seed(step)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = net(torch.randn(4, 3, 64, 64)).logits_BL
        logits.square().sum().backward()
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}, sum(
        kept.values()
    )


@pytest.mark.parametrize(
    "changes",
    [{}, {"model.freeze_batchnorm": True}, {"model.backbone": "test_resnet", "model.feature": -1}],
)
def test_checkpointing_keeps_gradients_and_statistics_and_saves_memory(changes):
    (plain, wanted), (again, found) = (
        (net, passed(net, 3)) for net in (network(c, **changes) for c in (False, True))
    )
    assert wanted[0].keys() == found[0].keys()
    assert all(torch.equal(gradient, found[0][name]) for name, gradient in wanted[0].items())
    assert plain.state_dict().keys() == again.state_dict().keys()
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    counts = [int(t) for n, t in again.state_dict().items() if n.endswith("num_batches_tracked")]
    assert set(counts) == (set() if "model.freeze_batchnorm" in changes else {3})
    assert found[1] < 0.8 * wanted[1]


def test_a_copy_of_a_checkpointed_network_computes_with_its_own_weights():
    net = network(True)
    other = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    gradients, _ = passed(other)
    assert all(
        bool((g != 0).any()) for n, g in gradients.items() if n.endswith("classifier.weight_LD")
    )
    assert all(p.grad is None for p in net.parameters())


def test_a_backbone_without_stages_cannot_be_checkpointed():
    with pytest.raises(
        UserError, match=r"model.checkpointing = True is not possible with test_vit"
    ):
        Backbone("test_vit", image_size=160, checkpointing=True)
