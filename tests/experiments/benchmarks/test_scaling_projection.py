"""Projections have a line for each number of GPUs, and name what limits them."""

from __future__ import annotations

import math

import pytest

from sadcl import recipes
from tests.experiments.benchmarks.test_scaling_model import fabric


def test_limits_are_described(load):
    scaling, model, projection = map(load, ("scaling", "scaling_model", "scaling_projection"))
    fast = fabric(model, inside=math.inf, between=math.inf)
    fifo = recipes.coco14().override(
        {"bank.policy": "fifo", "bank.size": 1, "loss.candidates": "all"}
    )
    given = projection.Assumptions(images=8, speed=100.0, dollars=2.0)
    lines = scaling.project(fifo, fast, given, (8, 64))
    assert [line.parts.compute for line in lines] == pytest.approx([0.08, 0.08])
    assert projection.describe_limits(lines) == ["no limit is reached"]
    hours = 160 * math.ceil(82_783 / 64) * lines[0].parts.step / 3600
    assert (lines[0].hours, lines[0].dollars) == pytest.approx((hours, hours * 8 * 2))
    slow_fabric = fabric(model, inside=1e9, between=1e9)
    (slow, large) = projection.describe_limits(scaling.project(fifo, slow_fabric, given, (8, 1024)))
    assert slow == "below 80 % from 8 GPUs on, most of it for: gradients"
    assert large.startswith("the global batch exceeds 4,096 images at 1024 GPUs (8,192, 11 steps")
