"""A compiled run compiles its network once a stage, and trains what the same run does without.

Without compilation there are no padding images. Runs have two epochs a stage, and the last batch of
an epoch has one image: with three workers two shares of it are empty.
"""

from __future__ import annotations

import itertools

import pytest
import torch
import torch._dynamo.testing
from torch import distributed as dist
from torch import multiprocessing as mp
from torch._dynamo.utils import counters

from sadcl import distributed, recipes
from sadcl.data.load import load
from sadcl.data.loader import Batch
from sadcl.training import engine, fit, loop
from sadcl.training.compiled_share import CompiledShare, compiled_share
from tests.conftest import TINY, soaked

BASE = recipes.demo().override(
    {
        **TINY,
        "data.image_size": 64,
        "data.scene_train": 45,
        "data.holdout": 0.0,
        "optim.batch_size": 22,  # of 45 images
        "optim.precision": "fp64",
        "optim.report": "ema",
        "model.backbone": "test_resnet",
        "model.feature": -1,
        "model.freeze_batchnorm": True,
        "model.dropout": 0.0,
        "stage1.epochs": 2,
        "stage2.epochs": 2,
    }
)
RUNS = [
    {"bank.start": "empty"},
    {"loss.candidates": "all", "bank.start": "empty"},
    {"model.freeze_batchnorm": False},
    {"model.arch": "pooled", "stage2.epochs": 0},
]


def record(config, data, folder, monkeypatch, backend="eager"):
    """Train; return the outcome, terms, shapes, final weights and number of compiled graphs."""
    torch._dynamo.reset()
    counters.clear()
    counter = torch._dynamo.testing.CompileCounterWithBackend(backend)
    compiler, trace, images, rows = torch.compile, [], [], []
    seen = {}

    def step(training, batch, **options):
        read = training.read_memory

        def read_memory(batch):
            memory = read(batch)
            images.append(len(batch.images_BCHW))
            rows.append(None if memory is None else len(memory.rows_MD))
            return memory

        training.read_memory = read_memory
        values = engine.train_step(training, batch, **options)
        training.read_memory = read
        trace.append({name: value.tolist() for name, value in values.items()})
        seen["network"] = training.network
        return values

    with monkeypatch.context() as patch:
        patch.setattr(torch, "compile", lambda model: compiler(model, backend=counter))
        patch.setattr(loop, "train_step", step)
        outcome = fit(config, data, str(folder), device="cpu")
    return {
        "images": outcome.images,
        "trace": trace,
        "shares": images,
        "rows": rows,
        "state": seen["network"].state_dict(),
        # DDP cuts each of them at the borders of its buckets.
        "graphs": counters["stats"]["unique_graphs"],
        "parts": counter.frame_count,
        "breaks": sum(counters["graph_break"].values()),
    }


def assert_close(compiled, plain):
    """Equality up to rounding in float64, of every term of every step and of all weights."""
    for mine, other in zip(compiled["trace"], plain["trace"], strict=True):
        assert mine.keys() == other.keys()
        for name, value in other.items():
            assert mine[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name
    for name, tensor in plain["state"].items():
        torch.testing.assert_close(compiled["state"][name], tensor, rtol=1e-7, atol=1e-9, msg=name)


COMPILED = [(RUNS[0], "aot_eager"), *((changes, "eager") for changes in RUNS[1:])]


@pytest.mark.parametrize(
    ("changes", "backend"),
    soaked(COMPILED, (COMPILED[0], COMPILED[2])),
    ids=["filled", "all candidates", "live BatchNorm", "pooled"],
)
def test_a_run_compiles_once_a_stage_and_trains_what_it_does_without(
    changes, backend, tmp_path, monkeypatch
):
    config = BASE.override(changes)
    data = load(config.data, tmp_path / "scenes")
    assert len(data.train) == 45
    plain, compiled = (
        record(config.override({"optim.compile": c}), data, tmp_path / str(c), monkeypatch, backend)
        for c in (False, True)
    )
    stages = 1 + bool(config.stage2.epochs)
    assert (plain["graphs"], compiled["graphs"]) == (0, stages)
    assert compiled["parts"] == stages
    assert compiled["breaks"] == 0
    assert plain["shares"] == [22, 22, 1] * 2 * stages
    filled = config.model.freeze_batchnorm
    assert compiled["shares"] == ([22] * 3 if filled else [22, 22, 1]) * 2 * stages
    assert compiled["images"] == plain["images"] == 45 * 2 * stages
    if stages == 2:
        assert len(set(compiled["rows"][6:])) >= 2  # the bank's rows do change in number
        assert plain["trace"][-1]["anchors"] > 0
        assert sum(plain["trace"][-1]["admitted_L"]) > 0
    assert_close(compiled, plain)


def worker(rank, folder, root, world):
    torch.set_num_threads(1)
    init = f"file://{folder}/meet"
    dist.init_process_group("gloo", init_method=init, rank=rank, world_size=world)
    with pytest.MonkeyPatch.context() as patch:
        for changes in RUNS[::2]:
            config = BASE.override({**changes, "optim.compile": True})
            name = next(iter(changes))
            content = record(config, load(config.data, root), f"{folder}/{name}", patch)
            torch.save(content, f"{folder}/{name}-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.soak
def test_three_workers_do_too(tmp_path, monkeypatch):
    """Their shares of a complete batch differ by one image. Live BatchNorm has other statistics."""
    data = load(BASE.data, tmp_path / "scenes")
    plain = record(BASE.override(RUNS[0]), data, tmp_path / "plain", monkeypatch)
    mp.spawn(worker, args=(str(tmp_path), str(tmp_path / "scenes"), 3), nprocs=3)
    for rank, own in enumerate((7, 7, 8)):
        filled, live = (
            torch.load(tmp_path / f"{next(iter(changes))}-{rank}.pt", weights_only=False)
            for changes in RUNS[::2]
        )
        assert filled["shares"] == [8] * 12
        assert live["shares"] == [own, own, 1] * 4
        assert filled["graphs"] == live["graphs"] == 2
        assert filled["images"] == plain["images"]
        assert_close(filled, plain)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_padding_images_are_appended(layout):
    images = torch.randn(2, 3, 4, 4).contiguous(memory_format=layout)
    targets = torch.tensor([[0, 1, 1], [1, 0, -1]], dtype=torch.int8)
    share = engine.with_positive_index(Batch(images, targets, torch.ones(2), torch.arange(4, 6), 7))
    filled = CompiledShare(5, is_filled=True).fill(share)
    assert torch.equal(filled.images_BCHW, images[[0, 1, 0, 0, 0]])
    assert filled.images_BCHW.is_contiguous(memory_format=layout)
    assert filled.targets_BL.tolist() == [*targets.tolist(), *[[-1] * 3] * 3]
    assert filled.weight_B.tolist() == [1, 1, 0, 0, 0]
    assert filled.index_B.tolist() == [4, 5, 4, 4, 4]
    assert filled.first_position == 7
    assert filled.positive_index_A.tolist() == [1, 2, 3]
    for part, other in zip(filled[:4], share[:4], strict=True):
        assert part.dtype == other.dtype
    unknown = filled._replace(positive_index_A=None)
    assert engine.local_positive_index(unknown).tolist() == [1, 2, 3]


def test_a_complete_share_and_one_of_live_batchnorm_stay_as_they_are():
    share = Batch(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1), torch.ones(2), torch.arange(2), 0)
    for same in (CompiledShare(2, is_filled=True), CompiledShare(5, is_filled=False)):
        assert same.fill(share) is share


@pytest.mark.parametrize(("batch", "world"), list(itertools.product((1, 2, 7, 64), (1, 2, 3, 5))))
def test_no_share_of_any_batch_is_larger(batch, world, monkeypatch):
    """A worker with live BatchNorm compiles for what it gets of each complete batch."""
    filled, live = torch.nn.Linear(1, 1), torch.nn.BatchNorm2d(1)
    largest = max(
        len(range(*distributed.split(size, rank, world)))
        for size in range(1, batch + 1)
        for rank in range(world)
    )
    monkeypatch.setattr(distributed, "world_size", lambda: world)
    for rank in range(world):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        assert compiled_share(filled, batch) == CompiledShare(largest, is_filled=True)
        assert compiled_share(live.eval(), batch).is_filled
        own = len(range(*distributed.split(batch, rank, world)))
        assert compiled_share(live.train(), batch) == CompiledShare(max(own, 1), is_filled=False)
