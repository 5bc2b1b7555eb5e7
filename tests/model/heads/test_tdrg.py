"""TDRG against plain loops, and the axis of its attention."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from sadcl.model.heads.tdrg import TDRG
from tests.model.heads import plain_attention as plain
from tests.model.heads.making import filled, maps, task

LABELS, SHAPES, DIM, HEADS = 5, ((4, 6, 8), (6, 3, 4)), 4, 2


def small(**changes) -> TDRG:
    arguments = {"dim": DIM, "layers": 2, "heads": HEADS, "feedforward": 6, **changes}
    return filled(TDRG(task(LABELS, 4, 6), **arguments))


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def lrelu(x):
    return torch.where(x > 0, x, 0.2 * x)


def resized(map_DHW, height, width):
    """Bilinear with aligned corners; a side of 1 has the first corner."""
    rows = []
    for y in range(height):
        for x in range(width):
            places = []
            for place, new, old in ((y, height, map_DHW.shape[1]), (x, width, map_DHW.shape[2])):
                at = place * (old - 1) / (new - 1) if new > 1 else 0.0
                low = min(int(at), old - 1)
                places.append((low, min(low + 1, old - 1), at - low))
            (y0, y1, fy), (x0, x1, fx) = places
            top = (1 - fx) * map_DHW[:, y0, x0] + fx * map_DHW[:, y0, x1]
            bottom = (1 - fx) * map_DHW[:, y1, x0] + fx * map_DHW[:, y1, x1]
            rows.append((1 - fy) * top + fy * bottom)
    return torch.stack(rows, 1).reshape(-1, height, width)


def scales(state, x3, x4):
    """The three scales of one image after what they have in common was added."""

    def pointwise(x, name):
        weight = state[f"{name}.weight"][:, :, 0, 0]
        return torch.einsum("dc,chw->dhw", weight, x) + state[f"{name}.bias"][:, None, None]

    height, width = (x4.shape[1] - 3) // 2 + 1, (x4.shape[2] - 3) // 2 + 1
    down = torch.zeros(DIM, height, width, dtype=x4.dtype)
    for y in range(height):
        for x in range(width):
            window = x4[:, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]
            down[:, y, x] = (state["reduce5.weight"] * window).sum((1, 2, 3)) + state[
                "reduce5.bias"
            ]
    reduced = [pointwise(x3, "reduce3"), pointwise(x4, "reduce4"), down]
    raised = [resized(u, *x3.shape[1:]) for u in reduced]
    common = raised[0] * raised[1] * raised[2]
    return [resized(u + common, *own.shape[1:]) for u, own in zip(raised, reduced, strict=True)]


def encoded(state, images, layers, axis):
    """F of one scale, (D, P) of each image; each set of tokens that attend to each other a call."""
    tokens = torch.stack([x.flatten(1).T for x in images])  # image, position, channel
    sets = tokens if axis == "positions" else tokens.transpose(0, 1)
    results = []
    for one in sets:
        for layer in range(layers):
            one, _ = plain.post_norm_layer(one, plain.part(state, f"encoder.{layer}"), HEADS, gelu)
        results.append(one)
    together = torch.stack(results)
    return [x.T for x in (together if axis == "positions" else together.transpose(0, 1))]


def graph(state, x4, scales_of_image, count):
    """logits_trans, logits_gcn, logits_sac and G of one image."""

    def linear(x, name):
        return state[f"{name}.weight"] @ x + state[f"{name}.bias"]

    peaks = torch.cat([f.max(1).values for f in scales_of_image])
    m_LP = state["constraint.weight"] @ x4.flatten(1)
    a_LP = 1 / (1 + (-m_LP).exp())
    sac = torch.stack([row.sort(descending=True).values[:count].mean() for row in m_LP])
    nodes = []
    for a_P in a_LP:
        projected = torch.stack([linear(x, "map_nodes") for x in x4.flatten(1).T])
        own = (a_P[:, None] * projected).sum(0)
        nodes.append(torch.cat([own, linear(scales_of_image[1] @ a_P, "encoded_nodes")]))
    c = linear(torch.cat([f.mean(1) for f in scales_of_image]), "context")
    norm = plain.part(state, "context_norm")
    c = (c - norm["running_mean"]) / (norm["running_var"] + 1e-5).sqrt()
    c = lrelu(c * norm["weight"] + norm["bias"])
    columns = [linear(torch.cat([c, v]), "correlation").sigmoid() for v in nodes]
    features = []
    for label, j in enumerate(columns):
        mixed = lrelu(sum(j[m] * nodes[m] for m in range(LABELS)))
        features.append(lrelu(linear(mixed, "graph")) + nodes[label])
    weight, bias = state["graph_classifier.weight_LD"], state["graph_classifier.bias_L"]
    gcn = torch.stack([weight[n] @ features[n] + bias[n] for n in range(LABELS)])
    return linear(peaks, "transformer_classifier"), gcn, sac, torch.stack(features), a_LP


@pytest.mark.parametrize("axis", ["positions", "batch"])
@pytest.mark.parametrize(("peaks", "count"), [(0.05, 1), (0.3, 4)])
@torch.no_grad()
def test_equals_plain_loops(axis, peaks, count):
    head = small(attention=axis, peaks=peaks, transformer_weight=0.6).eval()
    state, (map3_BCHW, map4_BCHW) = head.state_dict(), maps(3, *SHAPES)
    output = head(map3_BCHW, map4_BCHW)
    images = [scales(state, x3, x4) for x3, x4 in zip(map3_BCHW, map4_BCHW, strict=True)]
    of_scales = [encoded(state, one, 2, axis) for one in zip(*images, strict=True)]
    for image in range(3):
        own = [scale[image] for scale in of_scales]
        trans, gcn, sac, features, a_LP = graph(state, map4_BCHW[image], own, count)
        for ours, theirs in zip(output.auxiliary_BL, (trans, gcn, sac), strict=True):
            torch.testing.assert_close(ours[image], theirs)
        torch.testing.assert_close(output.logits_BL[image], 0.6 * trans + 0.4 * gcn)
        torch.testing.assert_close(output.features_BLD[image], features)
        shown = head.attention_maps(map3_BCHW, map4_BCHW)[image]
        torch.testing.assert_close(shown, a_LP.reshape(LABELS, 3, 4))


@torch.no_grad()
def test_an_image_depends_on_its_batch_as_released_only():
    """With the released axis another image beside it changes its score."""
    pair = maps(2, *SHAPES)
    for axis, alike in (("positions", True), ("batch", False)):
        head = small(attention=axis).eval()
        alone = head(*(x[:1] for x in pair)).logits_BL
        assert torch.allclose(head(*pair).logits_BL[:1], alone) == alike


def test_the_graph_passes_no_gradient_to_the_encoder():
    head, inputs = small(), maps(3, *SHAPES)
    inputs = tuple(x.requires_grad_() for x in inputs)
    _, gcn, sac = head(*inputs).auxiliary_BL
    graph_parts = [*head.reduce3.parameters(), *head.encoder.parameters(), inputs[0]]
    grads = torch.autograd.grad(
        (gcn + sac).square().sum(), [*graph_parts, inputs[1]], allow_unused=True
    )
    assert all(grad is None for grad in grads[:-1])
    assert grads[-1].any()


def test_nodes_of_the_encoder_pass_none_to_the_activation():
    """Only V_g does."""
    head, (map3_BCHW, map4_BCHW) = small(), maps(2, *SHAPES)
    encoded_BPD = head.encode(head.cross_scale(map3_BCHW, map4_BCHW)[1]).detach()
    a_BLP = head.activation(map4_BCHW).sigmoid().detach().requires_grad_()
    node_BLE = head.nodes(map4_BCHW, encoded_BPD, a_BLP)
    (grad,) = torch.autograd.grad(node_BLE[:, :, :DIM].sum(), a_BLP, retain_graph=True)
    assert grad.any()
    (grad,) = torch.autograd.grad(node_BLE[:, :, DIM:].sum(), a_BLP)
    assert not grad.any()


def test_a_single_image_in_training_takes_the_running_statistics():
    head, inputs = small(), maps(1, *SHAPES)
    before = copy.deepcopy(head.state_dict())
    trained = head.train()(*inputs).logits_BL
    torch.testing.assert_close(trained, head.eval()(*inputs).logits_BL)
    assert all(torch.equal(tensor, before[name]) for name, tensor in head.state_dict().items())
    head.train()(*maps(2, *SHAPES))
    assert not torch.equal(head.context_norm.running_mean, before["context_norm.running_mean"])


def test_a_synchronised_norm_is_asked_for_a_single_image_too():
    """Other workers wait for it."""
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(small()).train()
    calls = []
    converted.context_norm.forward = lambda x: calls.append(len(x)) or x
    converted(*maps(1, *SHAPES))
    assert calls == [1]


@torch.no_grad()
def test_a_last_map_too_small_for_the_convolution_is_filled_up():
    head = small().eval()
    for height, width in ((1, 1), (2, 2), (1, 5)):
        inputs = maps(2, (4, 2 * height, 2 * width), (6, height, width))
        scales = head.cross_scale(*inputs)
        filled_BCHW = torch.zeros(2, 6, max(3, height), max(3, width), dtype=torch.float64)
        filled_BCHW[:, :, :height, :width] = inputs[1]
        assert scales[2].shape[2:] == head.reduce5(filled_BCHW).shape[2:]
        assert scales[1].shape[2:] == (height, width)
        assert head(*inputs).logits_BL.isfinite().all()
    same = maps(2, (4, 4, 4), (6, 4, 4))  # of a backbone with a dilated last stage
    assert [tuple(scale.shape[2:]) for scale in head.cross_scale(*same)] == [(4, 4), (4, 4), (1, 1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heads": 3}, "dim must be a multiple of heads, but got 4, 3"),
        ({"layers": 0}, "layers must be at least 1, but got 0"),
        ({"attention": "images"}, "attention must be one of positions, batch, but got 'images'"),
        ({"peaks": 0.0}, "peaks must be more than 0 and at most 1, but got 0.0"),
        ({"transformer_weight": 1.1}, "transformer_weight must be from 0 to 1, but got 1.1"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)


def test_one_feature_map_is_not_enough():
    with pytest.raises(ValueError, match=r"takes two feature maps, but got channels \(6,\)"):
        TDRG(task(LABELS, 6))
