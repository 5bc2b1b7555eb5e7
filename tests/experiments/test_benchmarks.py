"""What the benchmarks have in common: rows, the one command, and the arithmetic of scaling."""

from __future__ import annotations

import importlib
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, addmm_flop

from sadcl import recipes, results
from tests.conftest import sample_sum

HERE = Path(__file__).parents[1] / "experiments" / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module


def run(script, *words):
    return subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True)


def test_run_writes_rows_that_sql_reads(tmp_path):
    done = run(HERE / "run.py", "--quick", "--only", "metrics", "--storage", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "mAP and F1" in done.stdout
    (row,) = results.sql(str(tmp_path), "from benchmarks").to_pylist()
    assert (row["benchmark"], row["unit"], row["quick"]) == ("metrics", "ms", True)
    assert row["command"] == "python experiments/benchmarks/metrics.py"
    assert row["low"] == row["ratio"] == row["high"] == row["reference"] / row["ours"] > 0
    assert row["share"] == pytest.approx(row["bound"] / row["ours"])
    assert row["goal"] is row["reached"] is None  # of the full size alone
    assert None not in [
        row[name] for name in ("measured", "code", "cpu", "device", "threads", "cores", "torch")
    ]


def test_one_that_fails_does_not_keep_the_others(tmp_path):
    for name in ("run.py", "rows.py", "metrics.py"):
        shutil.copy(HERE / name, tmp_path)
    (tmp_path / "losses.py").write_text(
        "def benchmark(quick):\n    raise ValueError('no reference')\n"
    )
    (tmp_path / "startup.py").write_text("import os\n\ndef benchmark(quick):\n    os._exit(3)\n")
    store = str(tmp_path / "runs")
    done = run(
        tmp_path / "run.py", "--quick", "--only", "losses, startup,metrics", "--storage", store
    )
    assert done.returncode == 1
    assert "losses FAILED: ValueError: no reference" in done.stdout
    assert "startup FAILED: BrokenProcessPool" in done.stdout
    assert "2 of 3 failed: startup, losses" in done.stdout
    assert [row["benchmark"] for row in results.sql(store, "from benchmarks").to_pylist()] == [
        "metrics"
    ]


def test_an_unknown_name_is_an_error_with_the_nearest(tmp_path):
    done = run(HERE / "run.py", "--only", "metrics,loses", "--storage", str(tmp_path))
    assert (done.returncode, done.stderr) == (
        2,
        "error: There is no benchmark 'loses'; did you mean 'losses'?\n",
    )
    assert not list(tmp_path.iterdir())


def test_every_benchmark_gives_rows(load):
    assert {f"{name}.py" for name in (*load("run").NAMES, "run", "rows")} == {
        path.name for path in HERE.glob("*.py")
    }


@pytest.mark.parametrize("name", ["step", "memory"])
def test_rows_of_a_benchmark_that_needs_torch_alone(load, monkeypatch, name):
    run, module = load("run"), load(name)
    made = {
        "step": lambda repeats=5: [module.row("a", "GB", [1.0], [2.0])],
        "memory": lambda repeats=3: [
            module.row("a", "GB", 1.0, state=0.5, how="computed", reference=2.0, ratio=2.0)
        ],
    }
    monkeypatch.setattr(module, "measure", made[name])
    monkeypatch.setattr(run.importlib, "import_module", lambda _: module)
    for quick in (False, True):
        (row,), _ = run.measured(name, {"quick": quick})
        assert (row.name, row.ours, row.reference, row.ratio, row.limit) == (
            "a",
            1.0,
            2.0,
            2.0,
            None,
        )


@pytest.mark.parametrize(
    ("figures", "reached"),
    [
        ({"ratio": 50.0, "goal": 50.0}, True),
        ({"ratio": 49.9, "goal": 50.0}, False),
        ({"goal": 50.0}, False),
        ({"at_most": 2.0}, True),
        ({"at_most": 1.9}, False),
        ({"ratio": 60.0, "goal": 50.0, "at_most": 1.9}, False),
        ({"ratio": 60.0}, None),
    ],
)
def test_what_is_reached(load, figures, reached):
    assert load("rows").Row("x", 2.0, "s", **figures).reached is reached


def test_ratios_are_of_pairs(load):
    row = load("rows").compared("x", "s", [1.0, 2.0, 4.0], [10.0, 10.0, 100.0], limit=0.5)
    assert (row.ours, row.reference, row.ratio, row.low, row.high, row.share) == (
        2.0,
        10.0,
        10.0,
        5.0,
        25.0,
        0.25,
    )
    assert load("rows").compared("x", "s", [1.0]).ratio is None


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
    scaling = load("scaling")
    assert scaling.all_reduce(100, fabric(scaling), 4) == pytest.approx(2 * 3 / 4)
    assert scaling.all_reduce(100, fabric(scaling), 8) == pytest.approx(2 * 3 / 4 + 2 * 1 / 2 * 10)
    slow = fabric(scaling, inside_latency=1.0, latency=5.0)
    assert scaling.all_reduce(0, slow, 4) == 2 * 2
    assert scaling.all_reduce(0, slow, 16) == 2 * (2 + 2 * 5)


def test_gathers_share_the_links_of_a_node(load):
    scaling = load("scaling")
    assert scaling.gathers(5.0, 0, fabric(scaling), 2) == pytest.approx(5 / 100)
    assert scaling.gathers(5.0, 0, fabric(scaling), 8) == pytest.approx(
        3 * 5 / 100 + 4 * 4 * 5 / 10
    )
    assert scaling.gathers(0.0, 7, fabric(scaling, inside_latency=1.0), 2) == 7 * 2


def test_the_backward_pass_hides_gradients_but_for_the_last_bucket(load):
    scaling = load("scaling")
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
    scaling = load("scaling")
    alone = scaling.parts(scaling.Load(1.0, 1e9, 1e9, 9, bank=0.5), fabric(scaling), 1, read=2.0)
    assert (alone.gradients, alone.gathers, alone.step, alone.largest) == (0.0, 0.0, 2.0, "input")


def test_bytes_to_each_other_worker_are_those_of_the_formulas_and_do_not_depend_on_their_number(
    load,
):
    scaling = load("scaling")
    config, B, L, P, D = recipes.coco14(), 10, 80, 1024, 2048
    A = round(B * scaling.CARDINALITY)
    sample = 2 * 4 * A * P + 8 * A  # rows and their gradient in float32, labels in int64
    prototype = 2 * 4 * B * L + 8 * B * L
    bank = 4 * A * D + 3 * 8 * A  # rows; position, label and score in float64
    for workers in (2, 5):
        assert scaling.traffic(config, L, B, workers)[0] == sample + prototype + bank
    assert scaling.traffic(config, L, B, 2)[1] == scaling.traffic(config, L, B, 5)[1]


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
    slot = recipes.coco14()
    rows, size = scaling.state(slot, 80, 512)
    assert (rows, scaling.state(slot, 80, 1024)[0]) == (512 * 80, 1024 * 80)
    assert size > rows * 2048 * 4
    fifo = slot.override({"bank.policy": "fifo", "bank.size": 4})
    assert scaling.state(fifo, 80, 512) == scaling.state(fifo, 80, 65_536)


def test_what_breaks_is_said(load):
    scaling = load("scaling")
    fast = fabric(scaling, inside=math.inf, between=math.inf)
    fifo = recipes.coco14().override({"bank.policy": "fifo", "bank.size": 1})
    lines = scaling.project(fifo, fast, 8, 100.0, 2.0, (8, 64))
    assert [line.parts.compute for line in lines] == pytest.approx([0.08, 0.08])
    assert scaling.breaks(lines) == ["nothing breaks up to here"]
    hours = 40 * math.ceil(82_783 / 64) * lines[0].parts.step / 3600
    assert (lines[0].hours, lines[0].dollars) == pytest.approx((hours, hours * 8 * 2))
    (slow, large) = scaling.breaks(
        scaling.project(fifo, fabric(scaling, inside=1e9, between=1e9), 8, 100.0, 2.0, (8, 1024))
    )
    assert slow == "below 80 % from 8 GPUs on, most of it for: gradients"
    assert large.startswith("the global batch passes 4,096 images at 1024 GPUs (8,192, 11 steps")


def test_a_bad_number_is_refused():
    for words in (
        ["--images-per-second", "0"],
        ["--batch", "-1"],
        ["--dollars-per-gpu-hour", "nan"],
        ["--steps", "-1"],
    ):
        done = run(HERE / "scaling.py", *words)
        assert done.returncode == 2
        assert f"error: {words[0]} {words[1]}" in done.stderr
