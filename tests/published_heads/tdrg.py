"""TDRG under the names of its golden files, with either axis of attention.

Axes: B images, C channels, H, W height and width of a feature map, P its positions, L labels, D
hidden size, E = 2D size of a node.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sadcl.model.heads.head import Task
from sadcl.model.heads.tdrg import TDRG
from tests.parity import filled_state

NAMES = {
    "transform_28": "reduce3",
    "transform_14": "reduce4",
    "transform_7": "reduce5",
    "trans_classifier": "transformer_classifier",
    "constraint_classifier": "constraint",
    "gcn_dim_transform": "map_nodes",
    "guidance_transform": "encoded_nodes",
    "guidance_conv": "context",
    "guidance_bn": "context_norm",
    "matrix_transform": "correlation",
    "forward_gcn.weight": "graph",
}
LINEAR = (
    "constraint",
    "map_nodes",
    "encoded_nodes",
    "context",
    "correlation",
    "graph",
    "graph_classifier",
)
"""Ours that are 1x1 convolutions there."""
SCALES = ("layer3", "layer4", "down")


def _state(published: Mapping[str, Tensor], without_effect: list[str]) -> dict[str, Tensor]:
    state = {}
    for key, tensor in published.items():
        if key in without_effect or key == "mask_mat":  # the identity picks the diagonal
            continue
        module, what = key.rsplit(".", 1)
        if module == "gcn_classifier":
            name = {"weight": "graph_classifier.weight_LD", "bias": "graph_classifier.bias_L"}[what]
        elif module.startswith("transformer.encoder.layers."):
            name = key.replace("transformer.encoder.layers.", "encoder.")
        else:
            name = f"{NAMES[module]}.{what}"
        state[name] = tensor
        if what == "weight" and name.split(".")[0] in LINEAR:
            state[name] = tensor.flatten(1)
    return state


def build(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> TDRG:
    """Build our head with the state that the JSON describes, in float64 and evaluation mode."""
    state, sizes = (
        _state(filled_state(spec, tensors), spec["without_effect"]),
        spec["hyper_parameters"],
    )
    dim, channels3 = state["reduce3.weight"].shape[:2]
    num_labels, channels4 = state["constraint.weight"].shape
    head = TDRG(
        Task(
            (channels3, channels4),
            tuple(map(str, range(num_labels))),
            torch.zeros(num_labels, num_labels),
        ),
        dim=dim,
        layers=sum(key.endswith("linear1.weight") for key in state),
        heads=sizes["heads"],
        feedforward=len(state["encoder.0.linear1.weight"]),
        attention="positions" if sizes.get("positions") else "batch",
        peaks=sizes["topk_fraction"],
        transformer_weight=sizes["score_weights"][0],
    )
    head.load_state_dict(state)
    return head.double().eval()


@torch.no_grad()
def outputs(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Compute what the golden file holds, part by part."""
    head = build(spec, tensors)
    maps = tensors["features_layer3"].double(), tensors["features"].double()
    output = head(*maps)
    logits_trans, logits_gcn, logits_sac = output.auxiliary_BL
    scales = head.cross_scale(*maps)
    encoded = [head.encode(scale_BDHW) for scale_BDHW in scales]
    node_BLE = head.nodes(maps[1], encoded[1], head.activation(maps[1]).sigmoid())
    alone = [head(*(part[None] for part in image)).logits_BL for image in zip(*maps, strict=True)]
    return {
        "logits": output.logits_BL,
        "logits_trans": logits_trans,
        "logits_gcn": logits_gcn,
        "logits_sac": logits_sac,
        "label_features": output.features_BLD,
        "nodes": node_BLE,
        "joint_correlation": head.joint_correlation(encoded, node_BLE).transpose(1, 2),
        "logits_each_alone": torch.cat(alone),
        **{f"scaled_{name}": x for name, x in zip(SCALES, scales, strict=True)},
        **{f"encoded_{name}": x.transpose(1, 2) for name, x in zip(SCALES, encoded, strict=True)},
    }
