"""ML-Decoder under the names of its golden files: its own queries, and those of word vectors.

Axes: B images, C channels, H, W height and width of the feature map, L labels, K queries, D hidden
size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sadcl.model.heads.head import Task
from sadcl.model.heads.ml_decoder import MLDecoder, ZeroShotMLDecoder
from tests.parity import filled_state

LAYER = "decoder.layers.0."
NAMES = {
    "multihead_attn": "attention",
    "linear1": "expand",
    "linear2": "contract",
    "norm1": "norm1",
    "norm2": "norm2",
    "norm3": "norm3",
}


def _decoder_state(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state = {
        f"decoder.embed.{what}": published[f"decoder.embed_standart.{what}"]
        for what in ("weight", "bias")
    }
    for key, tensor in published.items():
        if key.startswith(LAYER):
            module, what = key.removeprefix(LAYER).split(".", 1)
            state[f"decoder.{NAMES[module]}.{what}"] = tensor
    return state


def build(
    spec: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[MLDecoder | ZeroShotMLDecoder, Tensor]:
    """Build our head with the state that the JSON describes, and return its queries too."""
    published, num_labels = filled_state(spec, tensors), spec["labels"]
    state = _decoder_state(published)
    dim, channels = state["decoder.embed.weight"].shape
    task = Task(
        (channels,), tuple(map(str, range(num_labels))), torch.zeros(num_labels, num_labels)
    )
    sizes = {
        "dim": dim,
        "heads": spec["hyper_parameters"]["heads"],
        "feedforward": len(state["decoder.expand.weight"]),
    }
    weight, bias = (published["decoder.duplicate_pooling" + end] for end in ("", "_bias"))
    head: MLDecoder | ZeroShotMLDecoder
    if "word_vectors" in tensors:
        words_LE = tensors["word_vectors"]
        head = ZeroShotMLDecoder(task, **sizes, word_dim=words_LE.shape[1])
        state |= {
            "word_vectors_LE": words_LE,
            "classifier.weight": weight.T,
            "classifier.bias": bias,
        }
        for key in [key for key in published if key.startswith("wordvec_proj.")]:
            state[key.replace("wordvec_proj", "project")] = published[key]
        head.load_state_dict(state)
        head = head.double().eval()
        return head, head.queries()
    groups = spec["hyper_parameters"]["groups"]
    head = MLDecoder(task, **sizes, groups=None if groups < 0 else min(groups, num_labels))
    state |= {
        "query_KD": published["decoder.query_embed.weight"],
        "weight_KDG": weight,
        "bias_L": bias,
    }
    head.load_state_dict(state)
    head = head.double().eval()
    return head, head.query_KD


@torch.no_grad()
def outputs(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Compute what the golden file holds."""
    (head, query_KD), map_BCHW = build(spec, tensors), tensors["features"].double()
    return {
        "logits": head(map_BCHW).logits_BL,
        "query_features": head.decoder(query_KD, map_BCHW),
        "attention": head.decoder.weights(query_KD, map_BCHW),
    }
