"""C-Tran under the names of its golden files.

Axes: B images, C channels, H, W height and width of the feature map, L labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sadcl.model.heads.c_tran import CTran
from sadcl.model.heads.head import Task
from tests.parity import filled_state

NAMES = {
    "label_lt.weight": "label.weight",
    "known_label_lt.weight": "state.weight",
    "LayerNorm.weight": "norm.weight",
    "LayerNorm.bias": "norm.bias",
    "output_linear.weight": "classifier.weight_LD",
    "output_linear.bias": "classifier.bias_L",
}


def build(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> CTran:
    """Build our head with the state that the JSON describes, in float64 and evaluation mode."""
    state = {}
    for key, tensor in filled_state(spec, tensors).items():
        layer = key.replace("self_attn_layers.", "layers.").replace("transformer_layer.", "")
        state[NAMES.get(key, layer)] = tensor
    num_labels, channels = state["label.weight"].shape
    task = Task(
        (channels,), tuple(map(str, range(num_labels))), torch.zeros(num_labels, num_labels)
    )
    head = CTran(
        task,
        layers=sum(key.endswith("linear1.weight") for key in state),
        heads=spec["hyper_parameters"]["heads"],
        feedforward=len(state["layers.0.linear1.weight"]),
    )
    head.load_state_dict(state)
    return head.double().eval()


@torch.no_grad()
def outputs(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Compute what the golden file holds: with all labels unknown, and with some known."""
    head, map_BCHW = build(spec, tensors), tensors["features"].double()
    output = head(map_BCHW)
    results = {
        "logits": output.logits_BL,
        "label_features": output.features_BLD,
        "attention": torch.stack(head.attention(map_BCHW)),
    }
    for name in [name for name in tensors if name.startswith("mask_")]:
        partial_BLC = head.label_features(map_BCHW, tensors[name].long() + 1)
        suffix = name.removeprefix("mask")
        results["logits" + suffix] = head.classify(partial_BLC)
        results["label_features" + suffix] = partial_BLC
    return results
