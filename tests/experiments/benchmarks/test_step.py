"""The benchmark's loops compute the same loss, and its rows are complete."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from tests.training import fake_cuda


@pytest.fixture
def step(load):
    return load("step")


def test_both_loops_have_the_same_loss(step):
    size, cpu = step.Size("test_resnet", 64, 6, 64, False), torch.device("cpu")
    ours, released = step.Ours("SADCL", size, cpu), step.Released(size, cpu)
    bank, network = ours.training.bank, ours.training.network
    bank.rows_KLD.copy_(released.bank_BLD)
    memory = ours.training.read_memory(ours.batch)
    with torch.no_grad():
        output = network.eval()(ours.batch.images_BCHW, memory)
        whole = network(ours.batch.images_BCHW, bank.read())
    terms = ours.training.criterion(output, ours.batch, memory)
    assert float(released.sample_term(whole)) == pytest.approx(
        float(terms.values["loss_sample"]), rel=1e-4
    )
    assert float(released.prototype_term(whole)) == pytest.approx(
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
    compared = by_name["SADCL against a loop as released"]
    assert compared["ratio"] == pytest.approx(compared["ours"] / compared["reference"])
    assert by_name["peak memory, SADCL"]["ratio"] == 2
    assert 0 < by_name["SADCL outside forward and backward"]["ours"] < 100


@pytest.mark.soak
def test_with_compilation_sadcl_is_measured_without_it_too(step, monkeypatch):
    """The compiler is one of torch's that needs none for the CPU."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    size = step.Size("test_resnet", 64, 2, 64, True)
    cpu = torch.device("cpu")
    steps = {kind: step.make_step(kind, size, cpu) for kind in step.kinds(size)}
    wrapped = {
        kind: hasattr(each.training.model, "_orig_mod")
        for kind, each in steps.items()
        if kind != "released"
    }
    assert wrapped == {"baseline": True, "SARL": True, "SADCL": True, step.EAGER: False}
    rows = step.speed_rows(steps, size, cpu, 1, full=False)
    eager, compiled = rows[-1], next(row for row in rows if row["name"] == "SADCL against SARL")
    assert eager["name"] == "SADCL, not compiled, against compiled"
    assert eager["ratio"] == pytest.approx(eager["ours"] / compiled["ours"])
    assert eager["share"] == pytest.approx(eager["ours"] / eager["limit"])


@pytest.mark.parametrize("kind", ["baseline", "SARL", "SADCL", "SADCL, not compiled", "released"])
def test_a_loop_runs_on_a_gpu(step, kind):
    """On one that does not exist; there the loop as released waits label by label."""
    size = step.Size("test_resnet", 64, 2, 64, compile=False)
    with fake_cuda.fake_gpu(1), fake_cuda.Recorder(1) as recorder:
        loop = step.make_step(kind, size, fake_cuda.GPU)
        loop.run()
        recorder.counts = fake_cuda.Counts()
        loop.run()
    assert not recorder.counts.host_tensors
    waits = recorder.counts.waits.total()
    assert waits > 2 * step.L if kind == "released" else waits == 0


def test_no_round_is_refused(step):
    with pytest.raises(ValueError, match="repeats >= 1 must hold, but got 0"):
        step.measure(repeats=0)
