"""CSRA against plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from sadcl.model.heads.csra import CSRA
from sadcl.model.heads.head import Task
from tests.model.heads import plain
from tests.published_heads import csra

CHANNELS, LABELS = 5, 3


def reference(weights, temperatures, lam, map_CP):
    """The scores of one image for each head."""
    heads = []
    for weight_LC, temperature in zip(weights, temperatures, strict=True):
        logits = []
        for w in weight_LC:
            scores = [float(w @ x) / float((w * w).sum()) ** 0.5 for x in map_CP.T]
            powers = [math.exp(temperature * s) for s in scores]
            attended = sum(s * e / sum(powers) for s, e in zip(scores, powers, strict=True))
            if temperature == 99:
                attended = max(scores)
            logits.append(sum(scores) / len(scores) + lam * attended)
        heads.append(logits)
    return torch.tensor(heads, dtype=torch.float64)


@pytest.mark.parametrize(
    ("heads", "temperatures"),
    [
        (1, [1]),
        (2, [1, 99]),
        (4, [1, 2, 4, 99]),
        (6, [1, 2, 3, 4, 5, 99]),
        (8, [1, 2, 3, 4, 5, 6, 7, 99]),
    ],
)
def test_equals_plain_loops(heads, temperatures):
    shapes = {f"multi_head.{i}.head.weight": [LABELS, CHANNELS, 1, 1] for i in range(heads)}
    spec = plain.described(shapes, hyper_parameters={"lam": 0.3})
    map_BCHW, state = plain.normal(2, CHANNELS, 2, 3), plain.filled(spec)
    weights = [state[key].flatten(1) for key in shapes]
    per_head = torch.stack(
        [reference(weights, temperatures, 0.3, image.flatten(1).double()) for image in map_BCHW], 1
    )
    ours = csra.outputs(spec, {"features": map_BCHW})
    plain.compare(ours, {"logits_per_head": per_head, "logits": per_head.sum(0)})


@pytest.mark.parametrize("temperature", [99, 3])
def test_one_block(temperature):
    hyper_parameters = {"lam": 0.2, "temperature": temperature}
    spec = plain.described({"head.weight": [4, 6, 1, 1]}, hyper_parameters=hyper_parameters)
    map_BCHW, weight = plain.normal(1, 6, 3, 2), plain.filled(spec)["head.weight"].flatten(1)
    expected = reference([weight], [temperature], 0.2, map_BCHW[0].flatten(1).double())
    plain.compare(csra.outputs(spec, {"features": map_BCHW}), {"logits": expected})


def test_attention_maps_give_back_the_attended_score():
    """base + lambda att is linear in the weights of the map."""
    task = Task((5,), ("a", "b", "c"), torch.zeros(3, 3))
    head, map_BCHW = CSRA(task, heads=1, lam=0.4).double(), plain.normal(2, 5, 3, 4).double()
    scores_BLHW = torch.einsum("lc,bchw->blhw", head.weight_KLC[0], map_BCHW)
    scores_BLHW = scores_BLHW / head.weight_KLC[0].norm(dim=1)[:, None, None]
    attended_BL = (scores_BLHW * head.attention_maps(map_BCHW)).sum((2, 3))
    expected_BL = scores_BLHW.mean((2, 3)) + 0.4 * attended_BL
    torch.testing.assert_close(head(map_BCHW).logits_BL, expected_BL)
    both = CSRA(task, heads=2).double().attention_maps(map_BCHW)
    assert (both.flatten(2).max(2).values >= 0.5).all(), "the head of the maximum is at one place"
