"""Frozen BatchNorm against timm's."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers import freeze_batch_norm_2d
from torch.optim.swa_utils import AveragedModel
from torch.utils._python_dispatch import TorchDispatchMode

from sadcl.config import Optim
from sadcl.model import Backbone
from sadcl.model.frozen_batchnorm import FrozenBatchNorm, freeze_batchnorm
from sadcl.training.optim import update_average


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


def formula(layer, x):
    """What a frozen BatchNorm computes, from its statistics alone."""
    scale_C = layer.weight * (layer.running_var + layer.eps).rsqrt()
    bias_C = layer.bias - layer.running_mean * scale_C
    return torch.addcmul(bias_C.to(x.dtype)[:, None, None], x, scale_C.to(x.dtype)[:, None, None])


def frozen(seed):
    torch.manual_seed(seed)
    layer = torch.nn.BatchNorm2d(7)
    for tensor in (layer.weight.data, layer.bias.data, layer.running_mean):
        tensor.normal_()
    layer.running_var.uniform_(0.5, 2)
    network = torch.nn.Sequential(torch.nn.Conv2d(7, 7, 1), layer)
    freeze_batchnorm(network)
    return network


@pytest.mark.parametrize("moved", [None, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("how", ["built", "loaded", "copied", "averaged"])
def test_the_constants_follow_the_statistics_to_the_bit(how, moved):
    """Wherever they come from, and in each type."""
    network = frozen(0)
    if how == "loaded":
        state = frozen(1).state_dict()
        network.load_state_dict(state)
        assert torch.equal(network[1].running_var, state["1.running_var"])
    if how == "copied":
        network = copy.deepcopy(network)
    if how == "averaged":
        average = AveragedModel(network, use_buffers=True)
        optim = Optim(ema_decay=0.9)
        for step in range(3):
            update_average(average, network, optim, step)
        network = average.module
    if moved is not None:
        network.to(moved)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = torch.randn(2, 7, 3, 3, dtype=dtype)
        assert torch.equal(network[1](x), formula(network[1], x))


def test_no_checkpoint_has_the_constants_and_a_pass_computes_none():
    network = frozen(0)
    names = ("bias", "running_mean", "running_var", "weight")
    assert sorted(network[1].state_dict()) == list(names)
    calls = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            calls.append(function.overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    for dtype in (torch.float32, torch.bfloat16):
        calls.clear()
        with Count():
            network[1](torch.zeros(1, 7, 2, 2, dtype=dtype))
        assert [name for name in calls if name != "zeros"] == ["addcmul"]
