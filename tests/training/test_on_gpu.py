"""The training step on the GPUs that are there, one worker on each, against one CPU process.

``pytest -m gpu`` runs these alone, and a plain ``pytest`` runs them wherever torch sees a GPU.
Every test also runs on the CPU with two workers, so that its own code works before it meets a GPU.

Figures are those of small networks after each of ``STEPS`` steps; all positives are admitted, so
that rounding decides nothing.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing as mp

from sadcl import distributed
from sadcl.data.loader import Batch
from sadcl.errors import FailureKind
from sadcl.study import failure
from sadcl.training import engine, setup
from tests.training.test_engine import BASE, L, Waits
from tests.training.test_on_cuda import CHECK_WAITS, LIMITS

STEPS = 4
RUNS: dict[str, tuple[dict[str, Any], float]] = {
    "fp64": ({"optim.precision": "fp64"}, 1e-7),
    "fp32": ({"optim.precision": "fp32"}, 1e-3),
    "bf16": ({"optim.precision": "bf16"}, 5e-2),
    "compiled": ({"optim.precision": "fp32", "optim.compile": True}, 1e-3),
}
"""What each run changes, and how far a loss may be from that of one CPU process in float64."""
EAGER = tuple(name for name in RUNS if name != "compiled")
CONFIG = BASE.override(
    {
        "bank.epsilon": 0.0,
        "prototypes.epsilon": 0.0,
        "prototypes.policy": "learned",
        "model.freeze_batchnorm": True,
        "stage2.lr": 1e-4,
    }
)
IMAGES = CONFIG.optim.batch_size
NO_GPU = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch sees no GPU; the same test has run on the CPU"
)


@pytest.fixture(
    scope="module", params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])]
)
def kind(request) -> str:
    """The kind of device that the workers compute on."""
    return request.param


def workers_on(kind: str) -> int:
    return torch.cuda.device_count() if kind == "cuda" else 2


def prepared(device: torch.device, changes: dict[str, Any]) -> engine.Training:
    config = CONFIG.override(changes)
    training = setup.prepare(2, config, tuple(map(str, range(L))), device, steps=99)
    training.network.train()
    return training


def share(step: int, device: torch.device, dtype: torch.dtype) -> Batch:
    """Return this worker's part of a batch, with the positives and sizes that the loader finds."""
    generator = torch.Generator().manual_seed(step)
    images_NCHW = torch.randn(IMAGES, 3, 32, 32, generator=generator, dtype=torch.float64)
    targets_NL = (torch.rand(IMAGES, L, generator=generator) < 0.2).to(torch.int8)
    workers = distributed.world_size()
    edges = [distributed.split(IMAGES, rank, workers) for rank in range(workers)]
    start, stop = edges[distributed.rank()]
    sizes = distributed.Shares(
        [last - first for first, last in edges],
        [int((targets_NL[first:last] == 1).sum()) for first, last in edges],
    )
    parts = (
        images_NCHW[start:stop].to(dtype),
        targets_NL[start:stop],
        torch.ones(stop - start),
        torch.arange(start, stop),
        *((each == 1).flatten().nonzero()[:, 0] for each in (targets_NL[start:stop], targets_NL)),
    )
    images, targets, weight, index, own, everyone = (part.to(device) for part in parts)
    return Batch(images, targets, weight, index, start, own, everyone, sizes)


def train(device: torch.device, changes: dict[str, Any]) -> dict[str, Any]:
    """Train some steps, and one more in which the host's waits are counted."""
    training = prepared(device, changes)
    dtype = torch.float64 if training.config.optim.precision == "fp64" else torch.float32
    shares = [share(step, device, dtype) for step in range(STEPS + 1)]
    trace = []
    for each in shares[:STEPS]:
        values = engine.train_step(training, each)
        trace.append({name: value.tolist() for name, value in values.items()})
    weights = training.network.state_dict()
    state = {name: value.cpu().clone() for name, value in engine.shared_state(training).items()}
    return {
        "trace": trace,
        "kinds": {value.device.type for value in (*weights.values(), *values.values())},
        "state": state | {name: value.cpu().clone() for name, value in weights.items()},
        "waits": count_waits(device, lambda: engine.train_step(training, shares[-1])),
    }


def count_waits(device: torch.device, work: Callable[[], object]) -> int:
    """Count how often the host waits for the device; PyTorch reports each as a ``UserWarning``."""
    if device.type == "cpu":
        with Waits() as waits:
            work()
        return len(waits.found)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as messages:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(each.message) for each in messages)


@contextlib.contextmanager
def as_on_a_gpu():
    """Read the bank with padding rows, and compile without a compiler for the CPU."""
    compiler = functools.partial(torch.compile, backend="aot_eager")
    with mock.patch.object(engine.Training, "padded", True):
        with mock.patch.object(torch, "compile", compiler):
            yield


def worker(rank: int, kind: str, world: int, folder: str, names: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    device = torch.device(kind, rank if kind == "cuda" else None)
    if kind == "cuda":
        torch.cuda.set_device(device)
    if world > 1:
        dist.init_process_group(
            "nccl" if kind == "cuda" else "gloo",
            init_method=f"file://{folder}/group",
            rank=rank,
            world_size=world,
        )
    with contextlib.nullcontext() if kind == "cuda" else as_on_a_gpu():
        for name in names:
            torch.save(train(device, RUNS[name][0]), f"{folder}/{name}-{rank}.pt")
    if world > 1:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(kind, tmp_path_factory) -> Callable[[str], list[dict[str, Any]]]:
    """Loads what each worker recorded of a run; all that are not compiled run together."""
    world = workers_on(kind)

    @functools.cache
    def spawn(names: tuple[str, ...]) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        mp.spawn(worker, args=(kind, world, str(folder), names), nprocs=world)
        return folder

    def load(name: str) -> list[dict[str, Any]]:
        folder = spawn((name,) if name == "compiled" else EAGER)
        paths = [folder / f"{name}-{rank}.pt" for rank in range(world)]
        return [torch.load(path, weights_only=False) for path in paths]

    return load


@pytest.fixture(scope="module")
def reference() -> list[dict[str, Any]]:
    """Losses of one CPU process in float64."""
    return train(torch.device("cpu"), RUNS["fp64"][0])["trace"]


@pytest.mark.parametrize("run", EAGER)
def test_losses_are_those_of_one_cpu_process(results, reference, run):
    assert_close(results(run), reference, RUNS[run][1])
    assert reference[-1]["anchors"] > 0
    assert reference[-1]["counted_labels"] > 0


@pytest.mark.soak
def test_losses_of_a_compiled_step_are_those_of_one_cpu_process(results, reference):
    recorded = results("compiled")
    assert_close(recorded, reference, RUNS["compiled"][1])
    assert_same_bits(recorded)


def assert_close(
    recorded: list[dict[str, Any]], reference: list[dict[str, Any]], tolerance: float
) -> None:
    """On every worker, each term of each step is as near to the reference as ``RUNS`` says."""
    for each in recorded:
        for values, expected in zip(each["trace"], reference, strict=True):
            assert values.keys() == expected.keys()
            assert values["admitted_L"] == expected["admitted_L"]
            for name in values.keys() - {"admitted_L"}:
                assert values[name] == pytest.approx(expected[name], rel=tolerance), name


def assert_same_bits(recorded: list[dict[str, Any]]) -> None:
    """Bank, prototypes and weights are equal on all workers."""
    first, *others = recorded
    for other in others:
        assert other["state"].keys() == first["state"].keys()
        for name, tensor in first["state"].items():
            assert torch.equal(other["state"][name], tensor), name


@pytest.mark.parametrize("run", EAGER)
def test_all_workers_hold_the_same_bits_on_their_devices(results, kind, run):
    first = results(run)[0]
    assert first["kinds"] == {kind}
    assert bool(first["state"]["bank.valid_KL"].any())
    assert bool(first["state"]["prototypes.valid_L"].any())
    assert_same_bits(results(run))


@pytest.mark.parametrize("run", EAGER)
def test_the_host_waits_no_more_than_the_fake_gpu_says(results, kind, run):
    limit = LIMITS["coco14", 1 if workers_on(kind) == 1 else 8].waits
    if kind == "cpu":  # where each step checks its loss
        limit += CHECK_WAITS
    assert all(each["waits"] <= limit for each in results(run))


def test_a_wait_is_counted(kind):
    numbers = torch.ones(3, device=kind)
    assert count_waits(torch.device(kind), lambda: numbers.sum().item()) == 1
    assert count_waits(torch.device(kind), lambda: numbers.sum()) == 0


def test_moments_from_a_cpu_are_laid_out_as_the_weights_are(kind):
    """A convolution is channels-last here and not on the CPU that saved; a step then agrees."""
    changes = {"optim.precision": "fp64"}
    saved = prepared(torch.device("cpu"), changes)
    for step in range(2):
        engine.train_step(saved, share(step, saved.device, torch.float64))
    loaded = prepared(torch.device(kind), changes)
    loaded.network.to(memory_format=torch.channels_last)  # a GPU has it so already
    loaded.network.load_state_dict(saved.network.state_dict())
    loaded.optimizer.load_state_dict(copy.deepcopy(saved.optimizer.state_dict()))
    pairs = list(zip(loaded.network.parameters(), saved.network.parameters(), strict=True))
    assert any(here.stride() != there.stride() for here, there in pairs)
    for here, there in pairs:
        for name in ("exp_avg", "exp_avg_sq"):
            moment = loaded.optimizer.state[here][name]
            assert (moment.device, moment.stride()) == (here.device, here.stride())
            assert torch.equal(moment.cpu(), saved.optimizer.state[there][name])
        there.grad = torch.randn_like(there)
        here.grad = torch.empty_like(here).copy_(there.grad)
    for training in (saved, loaded):
        training.optimizer.step()
    for here, there in pairs:
        torch.testing.assert_close(here.cpu(), there, rtol=1e-12, atol=1e-14)


def live_tensors() -> list[torch.Tensor]:
    gc.collect()
    return [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]


def used_bytes(device: torch.device, others: list[torch.Tensor]) -> int:
    """Bytes in use: PyTorch's allocator's on a GPU, else those of the live tensors.

    Args:
        device: where the trial runs.
        others: tensors that were alive before, such as other tests' that compute symbolic sizes.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        gc.collect()
        return torch.cuda.memory_allocated(device)
    ignored = {id(each) for each in others}
    return sum(each.nbytes for each in live_tensors() if id(each) not in ignored)


def trial(device: torch.device, needed_bytes: int) -> None:
    """Train a step that needs so many bytes at the end of its forward pass."""
    training = prepared(device, {"optim.precision": "fp32"})

    def allocate(*_: object) -> None:
        torch.empty(needed_bytes, dtype=torch.uint8, device=device)

    training.network.register_forward_hook(allocate)
    engine.train_step(training, share(0, device, torch.float32))


def test_a_trial_that_runs_out_of_memory_leaves_none_taken(kind):
    device = torch.device(kind)
    trial(device, 1)  # libraries take their workspaces, and keep them
    failure.device_computes()
    others = live_tensors()
    before = used_bytes(device, others)
    try:
        trial(device, 2**50)
    except RuntimeError as error:
        assert used_bytes(device, others) > before  # the error keeps the frames of the step
        diagnosis = failure.diagnose(error)
        assert used_bytes(device, others) == before
    assert (diagnosis.kind, diagnosis.final) == (FailureKind.MEMORY, True)
