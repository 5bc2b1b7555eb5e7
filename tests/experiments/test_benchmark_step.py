"""The benchmark's loops compute the same loss, and its rows are whole."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module")
def step():
    path = Path(__file__).parents[2] / "experiments" / "benchmarks" / "step.py"
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location("benchmark_step", path)
    sys.modules["benchmark_step"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(path.parent))
    return module


def test_both_loops_have_the_same_loss(step):
    size, cpu = step.Size("test_resnet", 64, 6, 64, False), torch.device("cpu")
    ours, released = step.Ours("SADCL", size, cpu), step.Released(size, cpu)
    bank, network = ours.training.bank, ours.training.network
    bank.rows_KLD.copy_(released.bank_BLD)
    memory = bank.read()
    with torch.no_grad():
        output = network.eval()(ours.batch.images_BCHW, memory)
    terms = ours.training.criterion(output, ours.batch, memory)
    assert float(released.sample_term(output)) == pytest.approx(
        float(terms.values["loss_sample"]), rel=1e-4
    )
    assert float(released.prototype_term(output)) == pytest.approx(
        float(terms.values["loss_prototype"]), rel=1e-4
    )


def test_rows_are_whole(step, monkeypatch):
    monkeypatch.setattr(step, "peak", lambda kind, *_: {"released": 4e9}.get(kind, 2e9))
    rows = step.measure(step.Size("test_resnet", 64, 2, 64, False), repeats=1)
    assert len({row["name"] for row in rows}) == len(rows) >= 9
    for row in rows:
        assert row["ours"] > 0, row
        assert {
            "reference",
            "unit",
            "ratio",
            "low",
            "high",
            "limit",
            "share",
            "goal",
            "at_most",
        } <= row.keys()
        assert row["share"] is None or row["share"] == pytest.approx(row["ours"] / row["limit"])
        assert row["goal"] is None
    by_name = {row["name"]: row for row in rows}
    beside = by_name["SADCL beside a released-style loop"]
    assert beside["ratio"] == pytest.approx(beside["ours"] / beside["reference"])
    assert by_name["peak memory, SADCL"]["ratio"] == 2
    assert 0 < by_name["SADCL outside forward and backward"]["ours"] < 100


def test_no_round_is_refused(step):
    with pytest.raises(ValueError, match="repeats >= 1 must hold, but got 0"):
        step.measure(repeats=0)
