"""The arithmetic of a step on many GPUs."""

from __future__ import annotations

import numpy as np
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


def test_a_row_crosses_into_a_node_once_and_goes_from_gpu_to_gpu(load):
    scaling = load("scaling_model")
    assert scaling.gathers(5.0, 0, fabric(scaling), 2) == pytest.approx(5 / 100)
    assert scaling.gathers(5.0, 0, fabric(scaling), 8) == pytest.approx(4 * 5 / 10)
    assert scaling.gathers(5.0, 0, fabric(scaling, between=1000.0), 8) == pytest.approx(7 * 5 / 100)


def test_a_gather_visits_all_gpus_in_a_ring(load):
    scaling = load("scaling_model")
    slow = fabric(scaling, inside_latency=1.0, latency=5.0)
    assert [scaling.ring_delay(slow, workers) for workers in (1, 2, 4, 8)] == [0, 1, 3, 2 * 3 + 5]
    assert scaling.gathers(0.0, 7, slow, 8) == 7 * 11
    load_of_sums = scaling.Load(0.0, 0.0, 0.0, 0, sums=3)
    assert scaling.parts(load_of_sums, slow, 8).gathers == 3 * scaling.delay(slow, 8)


def test_more_workers_and_more_bytes_never_take_less(load):
    scaling = load("scaling_model")
    slow = fabric(scaling, inside_latency=0.01, latency=0.05, hidden=True)
    steps = [
        [
            scaling.parts(scaling.Load(1.0, 50.0, peer, 2, sums=1), slow, workers).step
            for workers in (1, 2, 4, 8, 32, 256)
        ]
        for peer in (0.0, 1.0, 10.0)
    ]
    for times in (*steps, *zip(*steps, strict=True)):
        assert list(times) == sorted(times)


def test_padding_is_none_for_one_share_and_about_the_largest_of_many(load):
    scaling = load("scaling_model")
    assert scaling.padding(100.0, 1) == 1
    shares = np.random.default_rng(0).poisson(186, (200, 128))
    largest = (shares.max(1) / 186).mean()
    assert largest < scaling.padding(186, 128) < 1.06 * largest


def test_an_epoch_is_as_long_as_its_state_takes_to_be_written(load):
    scaling = load("scaling_model")
    fast = scaling.Between(evaluation=2.0, copy=0.5, write=4.0, once=7.0)
    assert scaling.run_seconds(10.0, fast, epochs=3) == 3 * 12.5 + 2 * 4 + 7
    assert scaling.run_seconds(1.0, fast, epochs=3) == 3 * 4.5 + 2 * 4 + 7


def test_a_pass_has_whole_batches_and_waits_for_its_input(load):
    scaling = load("scaling_model")
    assert scaling.pass_seconds(100, 8, 4, compute=2.0, read=1.0) == 4 * 2
    assert scaling.pass_seconds(96, 8, 4, compute=2.0, read=3.0) == 3 * 3


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
