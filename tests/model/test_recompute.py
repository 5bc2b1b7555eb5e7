"""Activations that are computed again: the same gradients, in less memory."""

from __future__ import annotations

import copy

import pytest
import torch

from sadcl import build, recipes
from sadcl.errors import UserError
from sadcl.model import Backbone
from tests.conftest import TINY

L = 5


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
