"""What the model of scaling counts is what the code does."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, addmm_flop

from sadcl import recipes
from tests.conftest import sample_sum
from tests.experiments.benchmarks.conftest import FOLDER


def run(script, *words):
    return subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True)


def test_bytes_to_each_other_worker_are_those_of_the_formulas_and_do_not_depend_on_their_number(
    load,
):
    scaling = load("scaling")
    config, B, L, P, D = recipes.coco14(), 10, 80, 1024, 2048
    A = round(B * scaling.CARDINALITY)
    sample = 2 * 4 * A * P  # rows and their gradient in float32; each worker knows the labels
    prototype = 2 * 4 * B * L + 8 * B * L
    bank = 4 * A * (D + 3)  # rows with position, label and score in float32
    for workers in (2, 5):
        assert scaling.traffic(config, L, B, workers)[0] == sample + prototype + bank
    assert scaling.traffic(config, L, B, 2)[1:] == scaling.traffic(config, L, B, 5)[1:]


def test_gradients_and_operations_are_the_networks(load):
    scaling = load("scaling")
    config = recipes.coco14()
    assert scaling.gradients(config, 80) == 4 * 200_037_456
    one, two, more = (scaling.operations(config, 80, *sizes) for sizes in ((1, 0), (2, 0), (1, 10)))
    head = 2 * (2048 * 2048 + 2048 * 1024)
    assert (more - one) / 10 == pytest.approx(
        3 * head, rel=0.01
    )  # all but the gradient of the bank's rows
    assert 1.9 < two / one < 2


def test_operations_of_the_contrast_are_what_it_does(load):
    scaling = load("scaling")
    B, L, P, M = 10, 8, 32, 40
    config = recipes.demo().override({"model.projection": P, "loss.anchors": "batch+bank"})
    targets = (torch.arange(B * L) < round(B * scaling.CARDINALITY)).view(B, L).long()
    x = torch.randn(B, L, P, requires_grad=True)
    in_place = {
        torch.ops.aten.addmm_: lambda *shapes, **_: addmm_flop(*shapes)
    }  # which it does not count by itself
    with FlopCounterMode(display=False, custom_mapping=in_place) as counted:
        sample_sum(x, targets, torch.randn(M, P), torch.arange(M) % L, temperature=0.2)[
            0
        ].backward()
    assert scaling.contrast_operations(config, B, 1, M) == counted.get_total_flops()


def test_a_slot_bank_grows_with_the_global_batch_and_a_fifo_bank_does_not(load):
    scaling = load("scaling")
    slot = recipes.coco14().override({"loss.candidates": "all"})
    rows, size = scaling.state(slot, 80, 512)
    assert (rows, scaling.state(slot, 80, 1024)[0]) == (512 * 80, 1024 * 80)
    assert size > rows * 2048 * 4
    matched = slot.override({"loss.candidates": "matched"})
    assert scaling.state(matched, 80, 512) == (round(512 * 2.9), size)
    fifo = slot.override({"bank.policy": "fifo", "bank.size": 4})
    assert scaling.state(fifo, 80, 512) == scaling.state(fifo, 80, 65_536)


def test_a_bad_number_is_refused():
    for words in (
        ["--images-per-second", "0"],
        ["--batch", "-1"],
        ["--dollars-per-gpu-hour", "nan"],
        ["--steps", "-1"],
    ):
        done = run(FOLDER / "scaling.py", *words)
        assert done.returncode == 2
        assert f"error: {words[0]} {words[1]}" in done.stderr
