"""ML-GCN: the published state's keys, and what its golden files hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sadcl.model.heads.head import Task
from sadcl.model.heads.ml_gcn import MLGCN, correlation, normalised
from tests import parity

KEYS = {"gc1.weight": "weight_ED", "gc2.weight": "weight_DC"}


@torch.no_grad()
def outputs(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    pairs_LL, counts_L = tensors["cooccurrence"].double(), tensors["label_counts"].double()
    co_occurrence_LL = pairs_LL - pairs_LL.diag().diag() + counts_L.diag()
    map_BCHW, vectors_LE = tensors["features"].double(), tensors["word_vectors"].double()
    num_labels, word_dim = vectors_LE.shape
    shapes = {key: shape for key, (shape, _) in spec["state"].items()}
    threshold = spec["hyper_parameters"]["threshold"]
    labels = tuple(f"label {i}" for i in range(num_labels))
    head = MLGCN(
        Task((map_BCHW.shape[1],), labels, co_occurrence_LL),
        hidden=shapes["gc1.weight"][1],
        threshold=threshold,
        word_dim=word_dim,
    )
    correlation_LL = correlation(co_occurrence_LL, threshold, 0.25)
    state = parity.filled_state(spec, {**tensors, "A": correlation_LL})
    head.double().eval()
    head.load_state_dict(
        {
            **{ours: state[key] for key, ours in KEYS.items()},
            "word_vectors_LE": vectors_LE,
            "adjacency_LL": normalised(state["A"]),  # float64; our own is rounded to float32
        }
    )
    return {
        "logits": head(map_BCHW).logits_BL,
        "correlation": correlation_LL,
        "adjacency": head.adjacency_LL,
        "label_classifiers": head.classifiers(),
        "pooled": map_BCHW.amax((2, 3)),
    }
