"""SSGRL: the published state's keys, and what its golden files hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sadcl.model.heads.head import Task
from sadcl.model.heads.ssgrl import SSGRL, pooled
from tests import parity

KEYS = {
    "word_semantic.fc_1": "attention.visual",
    "word_semantic.fc_2": "attention.semantic",
    "word_semantic.fc_3": "attention.transform",
    "word_semantic.fc_a": "attention.score",
    "graph_net.fc_eq3_w": "graph.update_message",
    "graph_net.fc_eq4_w": "graph.reset_message",
    "graph_net.fc_eq5_w": "graph.candidate_message",
    "graph_net.fc_eq3_u": "graph.gate_state",
    "graph_net.fc_eq5_u": "graph.candidate_state",
    "fc_output": "output",
}
"""Modules; each tensor below one has the same name."""
TENSORS = {
    "classifiers.weight": "classifier.weight_LD",
    "classifiers.bias": "classifier.bias_L",
}
WITHOUT_EFFECT = (
    *("word_semantic.fc_3.bias", "word_semantic.fc_a.bias"),  # the softmax removes them
    *("graph_net.fc_eq4_u.weight", "graph_net.fc_eq4_u.bias"),  # never used there
)


def our_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn a published state into ours, without the buffers."""
    ours = {}
    for key, tensor in state.items():
        module, _, name = key.rpartition(".")
        if key not in WITHOUT_EFFECT:
            ours[TENSORS.get(key) or f"{KEYS[module]}.{name}"] = tensor
    return ours


@torch.no_grad()
def outputs(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state, map_BCHW = parity.filled_state(spec, tensors), tensors["features"].double()
    vectors_LE, adjacency_LL = tensors["word_vectors"], tensors["adjacency"]
    num_labels, word_dim = vectors_LE.shape
    labels = tuple(f"label {i}" for i in range(num_labels))
    task = Task((map_BCHW.shape[1],), labels, torch.zeros(num_labels, num_labels).double())
    head = SSGRL(
        task,
        joint=len(state["word_semantic.fc_1.weight"]),
        hidden=len(state["fc_output.bias"]),
        steps=spec["hyper_parameters"]["steps"],
        word_dim=word_dim,
    )
    head.double().eval()
    buffers = {"word_vectors_LE": vectors_LE, "adjacency_LL": adjacency_LL}
    head.load_state_dict({**our_state(state), **buffers})
    logits_BL, output_BLD, _ = head(map_BCHW)
    features_BLC, weights_BLP = head.decouple(map_BCHW)
    return {
        "logits": logits_BL,
        "pooled_map": pooled(map_BCHW),
        "attention": weights_BLP,
        "semantic_features": features_BLC,
        "graph_output": head.graph(features_BLC, head.adjacency_LL),
        "label_features": output_BLD,
    }
