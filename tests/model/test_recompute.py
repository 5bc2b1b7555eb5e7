"""Activations that are computed again: the same gradients, in less memory."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch

from sadcl import build, recipes
from sadcl.errors import UserError
from sadcl.model import Backbone
from sadcl.model.recompute import recompute
from tests.conftest import TINY, soaked

L = 5


def network(checkpointing, **changes):
    more = {
        "model.checkpointing": checkpointing,
        "model.encoder_layers": 1,
        "model.dropout": 0.3,
        **changes,
    }
    return build.model(recipes.demo().override({**TINY, **more}), L).train()


@contextlib.contextmanager
def kept_bytes(net):
    """Collects the bytes beside the weights that are kept for the backward pass, by address."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in net.state_dict().values()}
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def gradients_of(net):
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def passed(net, steps=1):
    """Gradients, and the bytes beside the weights that were kept for the backward pass."""
    for step in range(steps):
        torch.manual_seed(step)
        images = torch.randn(4, 3, 64, 64)
        with kept_bytes(net) if step == steps - 1 else contextlib.nullcontext({}) as kept:
            logits = net(images).logits_BL
        logits.square().sum().backward()
    return gradients_of(net), sum(kept.values())


def pass_backbone(backbone):
    """The same of a backbone alone."""
    torch.manual_seed(1)
    images = torch.randn(2, 3, 64, 64)
    with kept_bytes(backbone) as kept:  # torch does not notice there that a value was overwritten
        backbone(images)
    features = backbone(images)
    (features.square().sum() + features.sum()).backward()
    return gradients_of(backbone), sum(kept.values())


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


FAMILIES = [
    "resnet18d",  # a deep stem, with ReLUs that are computed in place
    "seresnext26t_32x4d",
    "resnetv2_18",  # activations come first
    "regnety_002",
    "densenet121",
    "convnext_atto",
    "swin_tiny_patch4_window7_224",
    "pvt_v2_b0",
]


@pytest.mark.parametrize("name", soaked(FAMILIES, FAMILIES[:1]))
@pytest.mark.parametrize("frozen", [False, True])
def test_families_of_backbones_keep_their_gradients(name, frozen):
    """With everything trainable, the stem too."""
    results = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        backbone = Backbone(
            name, image_size=64, freeze_batchnorm=frozen, checkpointing=checkpointing
        )
        with torch.no_grad():  # a BatchNorm that starts with zeros would hide what is before it
            for parameter in [*backbone.parameters(), *backbone.buffers()]:
                parameter += (0.1 * (parameter == 0)).to(parameter.dtype)
        results.append((backbone, *pass_backbone(backbone)))
    (plain, wanted, plain_bytes), (again, found, again_bytes) = results
    assert all(gradient.isfinite().all() and gradient.any() for gradient in wanted.values())
    assert wanted.keys() == found.keys()
    assert [name for name in wanted if not torch.equal(wanted[name], found[name])] == []
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert again_bytes < 0.8 * plain_bytes


def test_a_module_that_changes_its_input_is_refused_and_not_computed_wrongly():
    class Adds(torch.nn.Module):
        def forward(self, x):
            x += 1
            return x.square()

    module = Adds()
    recompute(module)
    with pytest.raises(UserError, match="Adds changes its input in place"):
        module(torch.ones(3, requires_grad=True) * 2)


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
