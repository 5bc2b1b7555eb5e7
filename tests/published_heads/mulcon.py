"""MulCon under the names of its golden files, with the projector of its second stage.

Axes: B images, C channels, H, W height and width of the feature map, L labels, D hidden size, N
attention heads, P positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sadcl.model.heads.head import Task
from sadcl.model.heads.mulcon import MulCon
from tests.parity import filled_state

BLOCKS = {
    "A.sab1.mab": "positions.0",
    "A.sab2.mab": "positions.1",
    "A.sab3.mab": "labels",
    "A.mab": "queries",
}
LAYERS = {
    "fc_q": "query",
    "fc_k": "key",
    "fc_v": "value",
    "fc_o": "output",
    "ln0": "norm0",
    "ln1": "norm1",
}


def build(spec: Mapping[str, Any], published: Mapping[str, Tensor]) -> MulCon:
    """Build our head with a published state, in float64 and evaluation mode."""
    num_labels, dim = published["A.I"].shape[1:]
    state = {
        "query_LD": published["A.I"][0],
        "classifier.weight_LD": torch.cat([published[f"C.{n}.weight"] for n in range(num_labels)]),
        "classifier.bias_L": torch.cat([published[f"C.{n}.bias"] for n in range(num_labels)]),
    }
    for theirs, ours in BLOCKS.items():
        for key, tensor in published.items():
            if key.startswith(f"{theirs}."):
                layer, what = key.removeprefix(f"{theirs}.").split(".")
                state[f"{ours}.{LAYERS[layer]}.{what}"] = tensor
    channels = published["A.mab.fc_k.weight"].shape[1]
    task = Task(
        (channels,), tuple(map(str, range(num_labels))), torch.zeros(num_labels, num_labels)
    )
    head = MulCon(task, dim=dim, heads=spec["hyper_parameters"]["heads"])
    head.load_state_dict(state)
    return head.double().eval()


@torch.no_grad()
def outputs(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Compute what the golden file holds.

    The projector has the layers of this package's projection; cosine similarity gives its outputs
    unit length there.
    """
    published = filled_state(spec, tensors)
    head, map_BCHW = build(spec, published), tensors["features"].double()
    output = head(map_BCHW)
    results = {
        "logits": output.logits_BL,
        "label_features": output.features_BLD,
        "attention": head.attention(map_BCHW).transpose(0, 1),
    }
    if "P.0.weight" in published:
        first, last = published["P.0.weight"], published["P.2.weight"]
        projection = nn.Sequential(
            nn.Linear(first.shape[1], len(first)), nn.ReLU(), nn.Linear(last.shape[1], len(last))
        )
        of_projector = {key[2:]: value for key, value in published.items() if key.startswith("P.")}
        projection.load_state_dict(of_projector)
        results["embeddings"] = F.normalize(projection.double()(output.features_BLD), dim=-1)
    return results
