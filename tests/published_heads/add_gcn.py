"""ADD-GCN: the published state's keys, and what its golden files hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sadcl.model.heads.add_gcn import ADDGCN
from sadcl.model.heads.head import Task
from tests import parity

KEYS = {
    "fc": "activation",
    "conv_transform": "transform",
    "gcn.static_weight.0": "graph.static_weight",
    "gcn.conv_global": "graph.global_weight",
    "gcn.bn_global": "graph.global_norm",
    "gcn.conv_create_co_mat": "graph.co_occurrence",
    "gcn.dynamic_weight": "graph.dynamic_weight",
}
"""Modules; each tensor below one has the same name. Convolutions there are linear layers here."""
TENSORS = {
    "gcn.static_adj.0.weight": "graph.static_LL",
    "last_linear.weight": "classifier.weight_LD",
    "last_linear.bias": "classifier.bias_L",
}


def our_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn a published state into ours; the mask, which is the identity, has no counterpart."""
    ours = {}
    for key, tensor in state.items():
        module, _, name = key.rpartition(".")
        if key != "mask_mat":
            our_key = TENSORS.get(key) or f"{KEYS[module]}.{name}"
            ours[our_key] = tensor.flatten(2).squeeze(2) if tensor.dim() > 2 else tensor
    return ours


@torch.no_grad()
def outputs(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state, map_BCHW = parity.filled_state(spec, tensors), tensors["features"].double()
    num_labels, channels = state["fc.weight"].shape[:2]
    labels = tuple(f"label {i}" for i in range(num_labels))
    task = Task((channels,), labels, torch.zeros(num_labels, num_labels).double())
    head = ADDGCN(task, hidden=len(state["conv_transform.bias"])).double().eval()
    head.load_state_dict(our_state(state))
    logits_BL, features_BLD, _ = head(map_BCHW)
    scores_BLP = head.scores(map_BCHW)
    nodes_BLD = head.nodes(map_BCHW, scores_BLP)
    static_BLD = head.graph.static(nodes_BLD)
    adjacency_BML = head.graph.adjacency(nodes_BLD + static_BLD)
    return {
        "logits": logits_BL,
        "logits_sm": scores_BLP.amax(2),
        "logits_sr": head.classifier(features_BLD),
        "label_features": features_BLD,
        "category_features": nodes_BLD,
        "static_output": static_BLD,
        "dynamic_output": head.graph.dynamic(nodes_BLD + static_BLD, adjacency_BML),
        "dynamic_adjacency": adjacency_BML,
        "attention": head.attention_maps(map_BCHW),
    }
