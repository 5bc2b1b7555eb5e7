"""What a network costs, against counts by hand."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sadcl import build, recipes
from sadcl.launch.cost import network_cost

DEMO = recipes.demo()


def backbone_gflops(config):
    body = build.model(config, 20).eval().backbone
    with FlopCounterMode(display=False) as counter:
        body.maps(torch.zeros(1, 3, 64, 64))
    return counter.get_total_flops() / 1e9


def test_the_pooled_head_adds_one_linear_layer():
    config = DEMO.override(recipes.methods.shared("pooled, BCE", DEMO, small=True))
    cost = network_cost(config, 20)
    body = build.model(config, 20).backbone
    in_body = sum(p.numel() for p in body.parameters() if p.requires_grad)
    assert cost["parameters"] == in_body + 128 * 20 + 20
    assert cost["gflops"] == pytest.approx(backbone_gflops(config) + 2 * 128 * 20 / 1e9)


def test_attention_is_counted():
    """Fused attention and torch's fast path are one operation of an unknown number of products."""
    config = DEMO.override(recipes.methods.shared("C-Tran", DEMO, small=True))
    channels, tokens = 128, 4 * 4 + 20
    projections = 4 * 2 * tokens * channels * channels
    scores = 2 * 2 * tokens * tokens * channels
    perceptron = 2 * 2 * tokens * channels * 128
    expected = backbone_gflops(config) + (projections + scores + perceptron) / 1e9
    assert network_cost(config, 20)["gflops"] == pytest.approx(expected, rel=1e-3)


def test_only_contrasts_train_the_projection():
    alone = DEMO.override({"stage2.epochs": 0})
    dim, width = DEMO.model.hidden, DEMO.model.projection
    projection = dim * dim + dim + dim * width + width
    both = network_cost(DEMO, 20)["parameters"]
    assert both - network_cost(alone, 20)["parameters"] == projection
    weights = {"loss.sample_weight": 0.0, "loss.prototype_weight": 0.0}
    assert both - network_cost(DEMO.override(weights), 20)["parameters"] == projection
    learned = DEMO.override({"prototypes.policy": "learned"})
    assert network_cost(learned, 20)["parameters"] - both == 20 * dim


def test_frozen_parts_do_not_count():
    frozen = DEMO.override({"model.frozen": ("stem",)})
    assert network_cost(frozen, 20)["parameters"] < network_cost(DEMO, 20)["parameters"]
    assert network_cost(frozen, 20)["gflops"] == network_cost(DEMO, 20)["gflops"]
