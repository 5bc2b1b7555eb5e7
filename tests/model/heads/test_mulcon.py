"""MulCon against plain loops."""

from __future__ import annotations

import pytest
import torch

from sadcl.model.heads.mulcon import MulCon
from tests.model.heads import plain_attention as plain
from tests.model.heads.making import filled, maps, task

LABELS, CHANNELS, DIM, HEADS = 5, 8, 6, 2


def block(query_TE, key_SC, state):
    """B(Q, K) and its attention of each head."""
    q, k, v = (
        x @ state[f"{name}.weight"].T + state[f"{name}.bias"]
        for x, name in ((query_TE, "query"), (key_SC, "key"), (key_SC, "value"))
    )
    dim, outputs, weights = q.shape[1], [], []
    for head in range(HEADS):
        own = slice(head * dim // HEADS, (head + 1) * dim // HEADS)
        weights.append(plain.softmax_rows(q[:, own] @ k[:, own].T / dim**0.5))
        outputs.append(q[:, own] + weights[-1] @ v[:, own])
    o = plain.layer_norm(torch.cat(outputs, 1), plain.part(state, "norm0"))
    o = o + (o @ state["output.weight"].T + state["output.bias"]).clamp(min=0)
    return plain.layer_norm(o, plain.part(state, "norm1")), torch.stack(weights)


@torch.no_grad()
def test_equals_plain_loops():
    head = filled(MulCon(task(LABELS, CHANNELS), dim=DIM, heads=HEADS))
    state = head.state_dict()
    (map_BCHW,) = maps(2, (CHANNELS, 2, 3))
    output, attention = head(map_BCHW), head.attention(map_BCHW)
    for image in range(2):
        x = torch.stack([map_BCHW[image, :, p // 3, p % 3] for p in range(6)])
        for number in range(2):
            x, _ = block(x, x, plain.part(state, f"positions.{number}"))
        h, weights = block(state["query_LD"], x, plain.part(state, "queries"))
        h, _ = block(h, h, plain.part(state, "labels"))
        torch.testing.assert_close(output.features_BLD[image], h)
        torch.testing.assert_close(attention[image], weights)
        for label in range(LABELS):
            logit = h[label] @ state["classifier.weight_LD"][label]
            logit = logit + state["classifier.bias_L"][label]
            torch.testing.assert_close(output.logits_BL[image, label], logit)
            map_HW = weights[:, label].mean(0).reshape(2, 3)
            torch.testing.assert_close(head.attention_maps(map_BCHW)[image, label], map_HW)


@torch.no_grad()
def test_start_values():
    head = MulCon(task(40, 64), dim=32)
    for name, parameter in head.named_parameters():
        if name == "query_LD":
            assert float(parameter.abs().max()) <= (6 / (40 + 32)) ** 0.5
            assert float(parameter.std()) == pytest.approx((2 / (40 + 32)) ** 0.5, rel=0.1)
        elif parameter.dim() > 1:
            assert float(parameter.std()) == pytest.approx(0.02, rel=0.1)
        else:
            norm_weight = "norm" in name and name.endswith("weight")
            assert (parameter == float(norm_weight)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heads": 3}, "channels must be a multiple of heads, but got 8, 3"),
        ({"dim": 10}, "dim must be a multiple of heads, but got 10, 4"),
        ({"dim": 0}, "dim must be a multiple of heads, but got 0, 4"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        MulCon(task(LABELS, CHANNELS), **arguments)
