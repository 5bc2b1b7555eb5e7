"""CSRA: the published state's keys, and what its golden files hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sadcl.model.heads.csra import CSRA
from sadcl.model.heads.head import Task
from tests import parity

BLOCK = "head.weight"
"""The key of one bare block, whose temperature its file tells."""


@torch.no_grad()
def outputs(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state, map_BCHW = parity.filled_state(spec, tensors), tensors["features"].double()
    heads, chosen = len(state), spec["hyper_parameters"]
    keys = [BLOCK] if BLOCK in state else [f"multi_head.{i}.head.weight" for i in range(heads)]
    weight_KLC = torch.stack([state[key].flatten(1) for key in keys])
    _, num_labels, channels = weight_KLC.shape
    labels = tuple(f"label {i}" for i in range(num_labels))
    head = CSRA(
        Task((channels,), labels, torch.zeros(num_labels, num_labels).double()),
        heads=heads,
        lam=chosen["lam"],
        temperatures=[chosen["temperature"]] if "temperature" in chosen else None,
    )
    head.double().eval()
    head.load_state_dict({"weight_KLC": weight_KLC})
    return {
        "logits": head(map_BCHW).logits_BL,
        "logits_per_head": head.head_logits(map_BCHW).transpose(0, 1),
    }
