"""ADD-GCN against plain loops."""

from __future__ import annotations

import pytest
import torch

from sadcl.model.heads.add_gcn import ADDGCN
from sadcl.model.heads.head import Task
from tests.model.heads import plain
from tests.published_heads import add_gcn


def shapes(labels, channels, dim):
    return {
        "mask_mat": (labels, labels),
        "fc.weight": (labels, channels, 1, 1),
        "conv_transform.weight": (dim, channels, 1, 1),
        "conv_transform.bias": (dim,),
        "gcn.static_adj.0.weight": (labels, labels, 1),
        "gcn.static_weight.0.weight": (dim, dim, 1),
        "gcn.static_weight.0.bias": (dim,),
        "gcn.conv_global.weight": (dim, dim, 1),
        "gcn.conv_global.bias": (dim,),
        **{f"gcn.bn_global.{n}": (dim,) for n in ("weight", "bias", "running_mean", "running_var")},
        "gcn.conv_create_co_mat.weight": (labels, 2 * dim, 1),
        "gcn.conv_create_co_mat.bias": (labels,),
        "gcn.dynamic_weight.weight": (dim, dim, 1),
        "gcn.dynamic_weight.bias": (dim,),
        "last_linear.weight": (labels, dim, 1),
        "last_linear.bias": (labels,),
    }


def reference(state, map_CHW):
    """The outputs for one image; features of labels are columns, as in the published code."""

    def matrix(name):
        return state[f"{name}.weight"].flatten(1)

    def linear(name, x):
        return matrix(name) @ x + state[f"{name}.bias"][:, *[None] * (x.dim() - 1)]

    x, labels = map_CHW.flatten(1), len(state["mask_mat"])
    m = matrix("fc") @ x
    a, y = m.sigmoid(), linear("conv_transform", x)
    v = torch.stack(
        [sum(a[i, p] * y[:, p] for p in range(x.shape[1])) for i in range(labels)], dim=1
    )
    s = plain.lrelu(matrix("gcn.static_adj.0") @ v.T)
    static = plain.lrelu(linear("gcn.static_weight.0", s.T))
    h = v + static
    g = linear("gcn.conv_global", h.mean(1))
    norm = {n: state[f"gcn.bn_global.{n}"] for n in ("weight", "bias")}
    mean, var = state["gcn.bn_global.running_mean"], state["gcn.bn_global.running_var"]
    g = plain.lrelu((g - mean) / (var + 1e-5).sqrt() * norm["weight"] + norm["bias"])
    columns = [
        linear("gcn.conv_create_co_mat", torch.cat([g, h[:, i]])).sigmoid() for i in range(labels)
    ]
    j = torch.stack(columns, dim=1)
    z = torch.stack([sum(h[:, k] * j[k, i] for k in range(labels)) for i in range(labels)], dim=1)
    dynamic = plain.lrelu(linear("gcn.dynamic_weight", plain.lrelu(z)))
    features = v + dynamic
    weight = matrix("last_linear")
    sr = torch.stack([weight[i] @ features[:, i] for i in range(labels)])
    sr = sr + state["last_linear.bias"]
    sm = m.max(1).values
    return {
        "logits": (sm + sr) / 2,
        "logits_sm": sm,
        "logits_sr": sr,
        "label_features": features.T,
        "category_features": v.T,
        "static_output": static.T,
        "dynamic_output": dynamic.T,
        "dynamic_adjacency": j,
        "attention": a.unflatten(1, map_CHW.shape[1:]),
    }


@pytest.mark.parametrize(("labels", "channels", "dim", "side"), [(4, 6, 5, 3), (1, 3, 2, 1)])
def test_equals_plain_loops(labels, channels, dim, side):
    scale = {"gcn.conv_create_co_mat.weight": 0.125}
    spec = plain.described(
        shapes(labels, channels, dim),
        not_filled={"mask_mat": "identity matrix"},
        scale_after_fill=scale,
    )
    spec["state"]["gcn.bn_global.num_batches_tracked"] = [[], "int64"]
    map_BCHW, state = plain.normal(2, channels, side, side + 1), plain.filled(spec)
    images = [reference(state, image.double()) for image in map_BCHW]
    expected = {key: torch.stack([image[key] for image in images]) for key in images[0]}
    plain.compare(add_gcn.outputs(spec, {"features": map_BCHW}), expected)


def test_training_normalises_by_the_batch_and_one_image_by_running_statistics():
    head = ADDGCN(Task((3,), ("a", "b"), torch.zeros(2, 2).double()), hidden=4).double()
    map_BCHW = plain.normal(2, 3, 2, 2).double()
    head.eval()
    alone = head(map_BCHW[:1]).logits_BL
    head.train()
    torch.testing.assert_close(head(map_BCHW[:1]).logits_BL, alone)
    assert int(head.graph.global_norm.num_batches_tracked) == 0
    assert not torch.allclose(head(map_BCHW).logits_BL[:1], alone)
    assert int(head.graph.global_norm.num_batches_tracked) == 1
