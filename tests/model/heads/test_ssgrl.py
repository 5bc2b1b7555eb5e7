"""SSGRL against plain loops."""

from __future__ import annotations

import pytest
import torch

from sadcl.model.heads.head import Task
from sadcl.model.heads.ssgrl import SSGRL, conditional
from tests.model.heads import plain
from tests.published_heads import ssgrl


def shapes(labels, channels, words, inter, out):
    linear = {
        "word_semantic.fc_3": (inter, inter),
        "word_semantic.fc_a": (1, inter),
        "graph_net.fc_eq3_w": (channels, 2 * channels),
        "graph_net.fc_eq3_u": (channels, channels),
        "graph_net.fc_eq4_w": (channels, 2 * channels),
        "graph_net.fc_eq4_u": (channels, channels),
        "graph_net.fc_eq5_w": (channels, 2 * channels),
        "graph_net.fc_eq5_u": (channels, channels),
        "fc_output": (out, 2 * channels),
    }
    return {
        "word_semantic.fc_1.weight": (inter, channels),
        "word_semantic.fc_2.weight": (inter, words),
        **{f"{name}.weight": shape for name, shape in linear.items()},
        **{f"{name}.bias": shape[:1] for name, shape in linear.items()},
        "classifiers.weight": (labels, out),
        "classifiers.bias": (labels,),
    }


def reference(state, map_CHW, vectors, adjacency, steps):
    """The outputs for one image, label by label, with all published biases."""

    def linear(name, x):
        return state[f"{name}.weight"] @ x + state.get(f"{name}.bias", 0)

    _, height, width = map_CHW.shape
    cells = [(i, j) for i in range(0, height - 1, 2) for j in range(0, width - 1, 2)]
    x = [map_CHW[:, i : i + 2, j : j + 2].mean((1, 2)) for i, j in cells]
    alpha = []
    for w in vectors:
        q = linear("word_semantic.fc_2", w)
        z = [(linear("word_semantic.fc_1", x_p) * q).tanh() for x_p in x]
        e = [linear("word_semantic.fc_a", linear("word_semantic.fc_3", z_p)) for z_p in z]
        alpha.append(torch.cat(e).softmax(0))
    f = [sum(a * x_p for a, x_p in zip(a_l, x, strict=True)) for a_l in alpha]
    h, nodes = list(f), range(len(f))
    for _ in range(steps):
        new = []
        for i in nodes:
            outgoing = sum(adjacency[i, m] * h[m] for m in nodes)
            a = torch.cat([outgoing, sum(adjacency[m, i] * h[m] for m in nodes)])
            gate = linear("graph_net.fc_eq3_u", h[i])
            z = (linear("graph_net.fc_eq3_w", a) + gate).sigmoid()
            r = (linear("graph_net.fc_eq4_w", a) + gate).sigmoid()
            candidate = linear("graph_net.fc_eq5_w", a) + linear("graph_net.fc_eq5_u", r * h[i])
            new.append((1 - z) * h[i] + z * candidate.tanh())
        h = new
    o = [linear("fc_output", torch.cat([h[i], f[i]])).tanh() for i in nodes]
    logits = [state["classifiers.weight"][i] @ o[i] + state["classifiers.bias"][i] for i in nodes]
    return {
        "logits": torch.stack(logits),
        "pooled_map": torch.stack(x, 1).unflatten(1, (height // 2, width // 2)),
        "attention": torch.stack(alpha),
        "semantic_features": torch.stack(f),
        "graph_output": torch.stack(h),
        "label_features": torch.stack(o),
    }


@pytest.mark.parametrize(
    ("labels", "channels", "words", "inter", "out", "steps", "height", "width"),
    [(4, 5, 3, 6, 7, 2, 4, 6), (3, 4, 6, 2, 3, 1, 5, 2), (1, 2, 2, 3, 2, 3, 2, 2)],
)
def test_equals_plain_loops(labels, channels, words, inter, out, steps, height, width):
    spec = plain.described(
        shapes(labels, channels, words, inter, out), hyper_parameters={"steps": steps}
    )
    tensors = {
        "features": plain.normal(2, channels, height, width, seed=1),
        "word_vectors": plain.normal(labels, words, seed=2),
        "adjacency": plain.normal(labels, labels, seed=3).abs().fill_diagonal_(0),
    }
    given = [tensors[name].double() for name in ("word_vectors", "adjacency")]
    state = plain.filled(spec)
    images = [reference(state, image.double(), *given, steps) for image in tensors["features"]]
    expected = {key: torch.stack([image[key] for image in images]) for key in images[0]}
    plain.compare(ssgrl.outputs(spec, tensors), expected)


def test_the_graph_has_conditional_probabilities():
    counts = torch.tensor([[8.0, 2, 0], [2, 4, 0], [0, 0, 0]])
    expected = torch.tensor([[0.0, 0.25, 0], [0.5, 0, 0], [0, 0, 0]])
    assert torch.equal(conditional(counts), expected.double())
    assert not conditional(torch.zeros(3, 3)).any()
    head = SSGRL(Task((4,), ("a", "b", "c"), counts), joint=2, hidden=3, word_dim=5)
    assert torch.equal(head.adjacency_LL, expected)
    assert not {name for name, _ in head.named_parameters() if "_L" in name} - {
        "classifier.weight_LD",
        "classifier.bias_L",
    }


def test_attention_maps_are_weights_of_the_map_before_pooling():
    task = Task((4,), ("a", "b", "c"), torch.zeros(3, 3))
    head = SSGRL(task, joint=2, hidden=3, word_dim=5).double()
    for height, width in ((4, 6), (5, 3), (1, 5), (1, 1)):
        map_BCHW = plain.normal(2, 4, height, width).double()
        weights_BLHW = head.attention_maps(map_BCHW)
        attended_BLC = torch.einsum("blhw,bchw->blc", weights_BLHW, map_BCHW)
        torch.testing.assert_close(attended_BLC, head.decouple(map_BCHW)[0])
