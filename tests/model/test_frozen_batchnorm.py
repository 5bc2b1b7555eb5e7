"""Frozen BatchNorm against timm's."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers import freeze_batch_norm_2d

from sadcl.model import Backbone
from sadcl.model.frozen_batchnorm import FrozenBatchNorm


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
