"""The arithmetic of a step on many GPUs."""

from __future__ import annotations

import pytest


def fabric(scaling, **changes):
    parts = {
        "gpus": 4,
        "inside": 100.0,
        "inside_latency": 0.0,
        "between": 10.0,
        "latency": 0.0,
        "hidden": False,
    }
    return scaling.Fabric("x", **{**parts, **changes})


def test_a_sum_is_a_ring_in_each_node_and_one_over_them(load):
    scaling = load("scaling_model")
    assert scaling.all_reduce(100, fabric(scaling), 4) == pytest.approx(2 * 3 / 4)
    assert scaling.all_reduce(100, fabric(scaling), 8) == pytest.approx(2 * 3 / 4 + 2 * 1 / 2 * 10)
    slow = fabric(scaling, inside_latency=1.0, latency=5.0)
    assert scaling.all_reduce(0, slow, 4) == 2 * 2
    assert scaling.all_reduce(0, slow, 16) == 2 * (2 + 2 * 5)


def test_a_node_receives_what_is_gathered_once(load):
    scaling = load("scaling_model")
    assert scaling.gathers(5.0, 0, fabric(scaling), 2) == pytest.approx(5 / 100)
    assert scaling.gathers(5.0, 0, fabric(scaling), 8) == pytest.approx(3 * 5 / 100 + 4 * 5 / 10)
    assert scaling.gathers(0.0, 7, fabric(scaling, inside_latency=1.0), 2) == 7 * 2


def test_the_backward_pass_hides_gradients_but_for_the_last_bucket(load):
    scaling = load("scaling_model")
    size = 4 * scaling.BUCKET
    rate = fabric(
        scaling, inside=float(size), hidden=True
    )  # 1.5 s among four, and 0.375 s for a bucket
    shown = [
        scaling.parts(scaling.Load(c, size, 0.0, 0), rate, 4).gradients for c in (0.0, 0.75, 30.0)
    ]
    assert shown == pytest.approx([1.5, 1.0, 0.375])
    bare = scaling.parts(scaling.Load(30.0, size, 0.0, 0), fabric(scaling, inside=float(size)), 4)
    assert bare.gradients == pytest.approx(1.5)
    assert bare.step == pytest.approx(31.5)


def test_one_worker_sends_nothing_and_waits_for_its_input(load):
    scaling = load("scaling_model")
    alone = scaling.parts(scaling.Load(1.0, 1e9, 1e9, 9, bank=0.5), fabric(scaling), 1, read=2.0)
    assert (alone.gradients, alone.gathers, alone.step, alone.largest) == (0.0, 0.0, 2.0, "input")
