"""Projections have a line for each number of GPUs, and name what limits them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from sadcl import recipes
from tests.experiments.benchmarks.test_scaling_model import fabric


@pytest.fixture
def counts(load):
    """Counts of round numbers: 2 images a GPU, a bank that grows with the batch."""
    return load("scaling_projection").Counts(
        gradients=800_000_000,
        peer=1e6,
        calls=8,
        sums=4,
        operations=600_000_000_000,
        convolutions=200_000_000_000,
        row_operations=1e6,
        contrast_operations=lambda workers, rows: 1e6 * workers,
        state=lambda batch: (10 * batch, 1000 * batch),
    )


def test_a_step_is_computed_at_the_rates_of_its_parts(load, counts):
    projection = load("scaling_projection")
    gpu = projection.Gpu("x", peak=1e12, float32=1e11, bandwidth=1e10, memory=1e9)
    given = projection.Assumptions(2, gpu=gpu)
    assert projection.compute_seconds(counts, given) == pytest.approx(
        400e9 / (0.4 * 1e12) + 200e9 / (31 * 1e10) + 10 * 800e6 / (0.8 * 1e10)
    )
    given = projection.Assumptions(2, speed=4.0, gpu=gpu)
    assert projection.compute_seconds(counts, given) == 0.5


def test_the_share_of_the_peak_is_that_of_products_at_most(load):
    scaling, projection = load("scaling"), load("scaling_projection")
    counts = scaling.count(recipes.coco14(), 8)
    assert 0.5 < counts.convolutions / counts.operations < 0.65
    shares = []
    for gpu in projection.KINDS.values():
        seconds = projection.compute_seconds(counts, projection.Assumptions(8, gpu=gpu))
        shares.append(counts.operations / seconds / gpu.peak)
    assert 0.05 < shares[0] < shares[1] < projection.PRODUCTS  # the H200 has the faster memory


def test_memory_grows_with_the_gathered_rows_and_the_bank(load, counts):
    projection, config = load("scaling_projection"), recipes.coco14()
    one = projection.peak_bytes(counts, config, 2, 1)
    row = 4 * 2048 + 6 * 2048 + 8 * 1024
    gathered = 2 * 2.9 * 4 * (2 * 1024 + 2048)
    assert one == pytest.approx(
        2e9 + 5 * 800e6 + 2 * projection.ACTIVATION + gathered + 2000 + 20 * row
    )
    peaks = [projection.peak_bytes(counts, config, 2, workers) for workers in (1, 8, 64, 1024)]
    assert peaks == sorted(peaks)
    assert peaks[3] - peaks[2] > 960 * (gathered + 2000 + 20 * row)


def test_between_epochs_there_are_evaluation_and_saving(load, counts):
    projection = load("scaling_projection")
    config = recipes.coco14().override({"data.holdout": 0.1})
    slow = projection.Assumptions(2, speed=1.0)  # 2 s a step; no input keeps it waiting
    between = projection.between_epochs(counts, config, slow, 8, bank=0)
    assert between.evaluation == pytest.approx(math.ceil(8278 / 16) * 2 * 2 / 3)
    assert between.once == pytest.approx((math.ceil(74_505 / 16) + math.ceil(40_504 / 16)) * 2 / 3)
    assert between.write == pytest.approx(5 * 0.8)
    assert between.copy == pytest.approx(5 * 800e6 / (0.8 * 64e9))
    fast = projection.between_epochs(
        counts, config, projection.Assumptions(2, speed=1e9), 8, bank=0
    )
    assert fast.evaluation == pytest.approx(math.ceil(8278 / 16) * 2 / 324 / 12)


def test_a_line_is_the_sum_of_its_parts(load, counts):
    scaling, projection = load("scaling_model"), load("scaling_projection")
    config = recipes.coco14()
    given = projection.Assumptions(2, speed=100.0, dollars=2.0)
    rate = fabric(scaling, inside=1e9, between=1e9)
    (line,) = projection.project_counts(counts, config, rate, given, [8])
    assert line.steps == 74_505 // 16
    between = projection.between_epochs(counts, config, given, 8, bank=16_000)
    seconds = scaling.run_seconds(line.steps * line.parts.step, between, 160)
    assert line.hours * 3600 == pytest.approx(seconds)
    assert line.outside == pytest.approx(1 - 160 * line.steps * line.parts.step / seconds)
    assert line.dollars == pytest.approx(line.hours * 8 * 2)
    assert line.cores == pytest.approx(2 / line.parts.step / 324)


def test_tables_have_at_most_80_columns(load, counts):
    projection, model = load("scaling_projection"), load("scaling_model")
    given = projection.Assumptions(64, speed=100.0)
    for each in (*projection.FABRICS, fabric(model, inside=1e7, between=1e7)):
        lines = projection.project_counts(counts, recipes.coco14(), each, given, projection.GPUS)
        with projection.console.capture() as printed:
            projection.print_projection(lines, each.name, given.gpu)
        texts = [text.strip() for text in printed.get().splitlines()]
        assert max(len(text) for text in texts) <= 78
        assert sum(text.startswith("1,024 ") for text in texts) == 2
        assert "…" not in printed.get()


def test_limits_are_described(load):
    scaling, model, projection = map(load, ("scaling", "scaling_model", "scaling_projection"))
    fast = fabric(model, inside=math.inf, between=math.inf)
    fifo = recipes.coco14().override(
        {"bank.policy": "fifo", "bank.size": 1, "loss.candidates": "all"}
    )
    given, counts = projection.Assumptions(images=8, speed=100.0), scaling.count(fifo, 8)

    def limits(fabric, gpus, gpu=given.gpu):
        lines = projection.project_counts(counts, fifo, fabric, given, gpus)
        assert {line.parts.compute for line in lines} == {0.08}
        return projection.describe_limits(lines, gpu)

    assert limits(fast, (8, 64)) == ["no limit is reached"]
    slow, large = limits(fabric(model, inside=1e9, between=1e9), (8, 1024))
    assert slow == "below 80 % from 8 GPUs on, most of it for: gradients"
    assert large.startswith("the global batch exceeds 4,096 images at 1024 GPUs (8,192, 9 steps")
    idle = limits(fast, (8, 512, 1024))[-1]
    assert idle.startswith("more than a fifth of a run is not in its steps from 512 GPUs on (")
    small = replace(given.gpu, memory=6e9)
    assert limits(fast, (8, 64), small)[0].startswith("a step does not fit into 6 GB from 8 GPUs")
