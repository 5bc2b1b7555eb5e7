"""What every head keeps to, whatever it computes.

Axes: B images, C channels, H, W height and width of a feature map, L labels, D size of a feature.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from sadcl.model.heads.c_tran import CTran
from sadcl.model.heads.ml_decoder import MLDecoder, ZeroShotMLDecoder
from sadcl.model.heads.mulcon import MulCon
from sadcl.model.heads.tdrg import TDRG
from tests.model.heads.making import filled, maps, task

CHANNELS = 8


class Case(NamedTuple):
    head: type[nn.Module]
    arguments: dict[str, Any]
    features: int | None
    """Size of a label's feature."""
    without_gradient: tuple[str, ...] = ()
    """Ends of the names of parameters on which no result depends in training."""
    of_batch: bool = False
    """Whether an image's result depends on the others."""


KEYS = ("key.bias",)  # adds the same to all scores of a softmax
SMALL = {"dim": 8, "heads": 2, "feedforward": 12}
CASES = {
    "c_tran": Case(CTran, {"layers": 2, "heads": 2, "dropout": 0.0}, CHANNELS),
    "ml_decoder": Case(MLDecoder, {**SMALL, "dropout": 0.0}, 8),
    "ml_decoder_groups": Case(MLDecoder, {**SMALL, "dropout": 0.0, "groups": 1}, None),
    "ml_decoder_zero_shot": Case(ZeroShotMLDecoder, {**SMALL, "dropout": 0.0, "word_dim": 6}, 8),
    "mulcon": Case(MulCon, {"dim": 12, "heads": 2}, 12, KEYS),
    "tdrg": Case(TDRG, {**SMALL, "layers": 2}, 16, ("context.bias",)),  # BatchNorm subtracts it
    "tdrg_batch": Case(
        TDRG, {**SMALL, "layers": 2, "attention": "batch"}, 16, ("context.bias",), True
    ),
}
every_head = pytest.mark.parametrize("name", CASES)


def build(name: str, num_labels: int = 5, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    case = CASES[name]
    channels = [CHANNELS] * len(getattr(case.head, "feature_maps", (-1,)))
    return case.head(task(num_labels, *channels), **case.arguments).double()


def inputs_of(name: str, images: int, side: int = 4):
    """The last feature map has this side, one before it double."""
    count = len(getattr(CASES[name].head, "feature_maps", (-1,)))
    sides = [side * 2**n for n in reversed(range(count))]
    return maps(images, *((CHANNELS, each, each) for each in sides))


def targets_of(head: nn.Module, images: int) -> tuple[Tensor, ...]:
    """The further argument of a head that asks for targets."""
    if not getattr(head, "needs_targets", False):
        return ()
    return ((torch.arange(5 * images).reshape(images, 5) % 2).to(torch.int8),)


def own_features(name: str, num_labels: int) -> int | None:
    return 8 if name == "ml_decoder_groups" and num_labels == 1 else CASES[name].features


@every_head
@pytest.mark.parametrize("num_labels", [1, 5])
@pytest.mark.parametrize("side", [1, 4])
@torch.no_grad()
def test_shapes(name, num_labels, side):
    head, inputs = build(name, num_labels).eval(), inputs_of(name, 3, side)
    output = head(*inputs)
    assert output.logits_BL.shape == (3, num_labels)
    size = own_features(name, num_labels)
    if size is None:
        assert output.features_BLD is None
    else:
        assert output.features_BLD.shape == (3, num_labels, size)
    for logits_BL in (output.logits_BL, *output.auxiliary_BL):
        assert logits_BL.shape == (3, num_labels)
        assert logits_BL.dtype == torch.float64
        assert logits_BL.isfinite().all()
    shown = head.attention_maps(*inputs)
    assert shown.shape == (3, num_labels, side, side)
    assert (shown >= 0).all()


@every_head
def test_gradients_reach_every_parameter_and_the_maps(name):
    head, case = build(name).train(), CASES[name]
    inputs = [x.requires_grad_() for x in inputs_of(name, 4)]
    output = head(*inputs, *targets_of(head, 4))
    loss = sum(x.square().sum() for x in (output.logits_BL, *output.auxiliary_BL))
    loss.backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.any() or key.endswith(case.without_gradient), key
    assert all(x.grad.any() for x in inputs)
    assert all(x._version == 0 for x in inputs), "the head changes its input in place"


@every_head
@torch.no_grad()
def test_an_image_does_not_depend_on_the_others(name):
    head, inputs = filled(build(name)).eval(), inputs_of(name, 3)
    together = head(*inputs)
    alone = [head(*(x[n : n + 1] for x in inputs)) for n in range(3)]
    one_by_one = torch.cat([output.logits_BL for output in alone])
    assert torch.allclose(together.logits_BL, one_by_one) != CASES[name].of_batch
    if together.features_BLD is not None and not CASES[name].of_batch:
        features = torch.cat([output.features_BLD for output in alone])
        torch.testing.assert_close(together.features_BLD, features)
        shown = torch.cat([head.attention_maps(*(x[n : n + 1] for x in inputs)) for n in range(3)])
        torch.testing.assert_close(head.attention_maps(*inputs), shown)


@every_head
@torch.no_grad()
def test_a_state_has_all_that_a_score_depends_on(name):
    first, second = filled(build(name)).eval(), build(name, seed=1).eval()
    inputs = inputs_of(name, 2)
    scores = first(*inputs).logits_BL
    assert not torch.allclose(second(*inputs).logits_BL, scores)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(*inputs).logits_BL, scores)


@every_head
def test_what_it_returns_stays_in_float32_under_autocast(name):
    head = build(name).float()
    inputs = [x.float() for x in inputs_of(name, 3)]
    plain = head.eval()(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = [x.bfloat16() for x in inputs]
        output, shown = head(*rounded), head.attention_maps(*rounded)
    assert shown.dtype == torch.float32
    assert output.features_BLD is None or output.features_BLD.dtype == torch.float32
    for ours, theirs in zip(
        (output.logits_BL, *output.auxiliary_BL),
        (plain.logits_BL, *plain.auxiliary_BL),
        strict=True,
    ):
        assert ours.dtype == torch.float32
        assert (ours.bfloat16().float() != ours).any(), "the logits have been in bfloat16"
        largest = float(theirs.detach().abs().max())
        torch.testing.assert_close(ours, theirs, atol=0.05 * largest, rtol=0)


@every_head
def test_it_is_compiled_as_one_graph(name):
    """And gives the same scores and gradients."""
    head = build(name).train()
    compiled = torch.compile(copy.deepcopy(head), fullgraph=True, backend="eager")
    inputs, grads = inputs_of(name, 3), []
    for module in (head, compiled):
        torch.manual_seed(0)
        module(*inputs, *targets_of(head, 3)).logits_BL.square().sum().backward()
        grads.append([p.grad for p in module.parameters()])
    torch.testing.assert_close(grads[1], grads[0])
    head.eval(), compiled.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(*inputs).logits_BL, head(*inputs).logits_BL)


@every_head
def test_it_is_exported_for_any_number_of_images(name):
    head, inputs = build(name).eval().requires_grad_(False), inputs_of(name, 3)

    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = head

        def forward(self, maps):
            return self.head(*maps).logits_BL

    shapes = (tuple({0: torch.export.Dim("batch")} for _ in inputs),)
    program = torch.export.export(Scores(), (inputs,), dynamic_shapes=shapes, strict=False)
    fewer = inputs_of(name, 2)
    torch.testing.assert_close(program.module()(fewer), head(*fewer).logits_BL)
