"""What a step of the recipes does on a GPU, counted without one: see :mod:`.fake_cuda`.

No kernel gets a tensor of the host, and waits, copies, kernels and bytes stay within ``LIMITS``.
``test_on_gpu.py`` runs a step on a real GPU.

torch.compile makes fake tensors of its own from real ones, and its kernels are what Triton builds
for a GPU that is there: neither is possible here. What can be tested is that the network of each
recipe, at a small size on the CPU, is one graph without breaks, for any number of the bank's rows.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import distributed as dist

from sadcl import build, recipes
from sadcl.config import Config
from sadcl.memory import Memory
from sadcl.training import engine
from tests.training import fake_cuda
from tests.training.test_engine import batch, doubled, prepared

IMAGES = 64
"""Of each worker."""


class Limits(NamedTuple):
    """The most that a step may do on each worker; DDP's sum of the gradients comes on top."""

    kernels: int
    """In bf16, whose casts are kernels too; fp32 has 339 fewer."""
    waits: int
    """Times that the host waits for the GPU: numbers that it reads, sizes that travel."""
    collectives: int
    megabytes: float
    """That the worker sends in them."""


LIMITS = {
    ("coco14", 1): Limits(1680, 0, 0, 0.0),
    ("coco14", 8): Limits(1810, 4, 12, 21.8),
    ("coco14", 64): Limits(2300, 4, 12, 196.0),
    ("vg500", 1): Limits(2010, 0, 0, 0.0),
    ("vg500", 8): Limits(2300, 4, 12, 102.0),
    ("vg500", 64): Limits(4370, 4, 12, 918.0),
}
"""Of each recipe and number of workers; a change that needs less lowers its line."""
CHECK_WAITS = 2
"""Further waits in each tenth step, which checks the loss and counts the bank's valid rows."""
LABELS = {"coco14": 80, "vg500": 500}
POSITIVES = {"coco14": 186, "vg500": 870}
"""Of the images of a worker: 2.9 for each of COCO, 13.6 for each of VG-500."""

COSTLY = ("vg500", "fp32")
"""Its steps do what those in bf16 do but for the casts."""
SMALL = {
    "model.pretrained": False,
    "model.backbone": "test_resnet",
    "model.hidden": 64,
    "model.feedforward": 64,
    "model.projection": 16,
    "data.image_size": 64,
}


def recipe(name: str, **changes: object) -> Config:
    config: Config = getattr(recipes, name)()
    return config.override({"model.pretrained": False, **changes})


def count(name: str, workers: int, precision: str) -> tuple[fake_cuda.Counts, fake_cuda.Counts]:
    """Count an ordinary step of a recipe, and one that checks."""
    changes = {"optim.batch_size": IMAGES * workers, "optim.precision": precision}
    with fake_cuda.fake_gpu(workers):
        training = fake_cuda.prepare(recipe(name, **changes), LABELS[name])
        share = fake_cuda.batch(training, IMAGES, POSITIVES[name], workers)
        return fake_cuda.count_step(training, share, workers)


def excess(counts: fake_cuda.Counts, limits: Limits) -> dict[str, object]:
    """Return what a step does beyond its limits, with the places."""
    found: dict[str, object] = {
        "host tensors": counts.host_tensors,
        "blocking copies": counts.blocking_copies,
    }
    if counts.kernels > limits.kernels:
        found["kernels"] = counts.kernels
    if counts.waits.total() > limits.waits:
        found["waits"] = counts.waits
    if counts.collectives.total() > limits.collectives:
        found["collectives"] = counts.collectives
    if counts.sent_bytes > limits.megabytes * 1e6:
        found["megabytes"] = counts.sent_bytes / 1e6
    return {name: value for name, value in found.items() if value}


@pytest.mark.parametrize(
    ("name", "workers", "precision"),
    [
        pytest.param(
            name,
            workers,
            precision,
            marks=[pytest.mark.soak] if (name, precision) == COSTLY else [],
        )
        for name, workers in LIMITS
        for precision in ("bf16", "fp32")
    ],
)
def test_a_step_stays_within_its_limits(name, workers, precision):
    step, check = count(name, workers, precision)
    assert excess(step, LIMITS[name, workers]) == {}
    assert step.kernels > 1000  # the network's alone are more
    assert check.waits.total() - step.waits.total() <= CHECK_WAITS


SMALL_LIMITS = Limits(10**6, 4, 12, 1e6)
FAULTS = {
    "an item": ("waits", lambda gpu: gpu.sum().item()),
    "a condition": ("waits", lambda gpu: bool((gpu > 0).any())),
    "a mask": ("waits", lambda gpu: gpu[gpu > 0]),
    "a write by a mask": ("waits", lambda gpu: gpu.index_put_((gpu > 0,), gpu.new_zeros(()))),
    "nonzero": ("waits", lambda gpu: gpu.nonzero()),
    "a list": ("waits", lambda gpu: gpu.tolist()),
    "a copy to the host": ("waits", lambda gpu: gpu.cpu()),
    "a copy to the GPU": ("blocking copies", lambda gpu: torch.tensor([1.0], device=gpu.device)),
    "a number copied to the GPU": ("blocking copies", lambda gpu: gpu.new_tensor(3)),
    "a number of the host": ("host tensors", lambda gpu: gpu * torch.tensor(2.0)),
    "indices of the host": ("host tensors", lambda gpu: gpu[torch.arange(2)]),
    "a collective": ("collectives", lambda gpu: dist.all_reduce(gpu)),
}


@pytest.fixture(scope="module")
def small_step():
    """Counts a small step of eight workers, in which something is done with the gradients."""
    name, workers = "coco14", 8

    def count_with(fault) -> fake_cuda.Counts:
        with fake_cuda.fake_gpu(workers), pytest.MonkeyPatch.context() as patch:
            config = recipe(name, **{**SMALL, "optim.batch_size": 2 * workers})
            training = fake_cuda.prepare(config, LABELS[name])
            weights = [each for each in training.network.parameters() if each.requires_grad]
            bias = next(each for each in weights if each.dim() == 1)
            patch.setattr(engine, "clip_gradients", lambda _: fault(bias.grad))
            share = fake_cuda.batch(training, 2, 6, workers)
            return fake_cuda.count_step(training, share, workers)[0]

    return count_with


def test_without_a_fault_none_is_found(small_step):
    assert excess(small_step(lambda gpu: None), SMALL_LIMITS) == {}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(small_step, fault):
    kind, insert = FAULTS[fault]
    found = excess(small_step(insert), SMALL_LIMITS)
    assert set(found) == {kind}
    if kind != "collectives":
        assert any("test_on_cuda.py" in each or "engine.py" in each for each in found[kind])


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("call", "sent"),
    [
        (lambda own, all_: dist.all_reduce(own), 2 * 7 / 8 * 400),
        (lambda own, all_: dist.all_gather_into_tensor(all_, own), 7 * 400),
        (lambda own, all_: dist.all_to_all_single(all_, all_.clone()), 7 * 400),
        (lambda own, all_: dist.all_gather(list(all_.chunk(8)), own), 7 * 400),
        (lambda own, all_: dist.reduce_scatter_tensor(own, all_), 7 * 400),
    ],
)
def test_bytes_are_those_that_a_worker_sends(call, sent):
    """Of 100 float32 numbers on each of eight workers."""
    with fake_cuda.fake_gpu(8), fake_cuda.Recorder(8) as recorder:
        call(torch.zeros(100, device=fake_cuda.GPU), torch.zeros(8 * 100, device=fake_cuda.GPU))
    assert recorder.counts.sent_bytes == sent
    assert recorder.counts.collectives.total() == 1


def test_gradients_are_those_of_torchs_engine():
    """Of a whole step on the CPU, with both contrasts: the counts rest on this stand-in."""
    training = prepared({"optim.precision": "fp64", "bank.epsilon": 0.0, "prototypes.epsilon": 0.0})
    first, second = (doubled(batch(step)) for step in range(2))
    engine.train_step(training, first)
    training.network.prototypes.end_epoch()
    memory = training.read_memory(second)
    output = training.network(second.images_BCHW, memory)
    terms = training.criterion(output, second, memory)
    assert min(terms.values.values()) > 0
    parameters = [each for each in training.network.parameters() if each.requires_grad]
    expected = torch.autograd.grad(terms.loss, parameters, retain_graph=True)
    training.optimizer.zero_grad()
    fake_cuda.backward(terms.loss)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", LABELS)
def test_the_network_of_a_recipe_is_one_graph(name):
    """As on a GPU, with rows of padding, and the second time with another number of rows."""
    torch._dynamo.reset()
    config = recipe(name, **SMALL)
    network = build.model(config, LABELS[name]).train()
    images_BCHW = torch.zeros(2, 3, 64, 64)
    for rows in (16, 32):
        labels_M = torch.zeros(rows, dtype=torch.int64)
        memory = Memory(torch.zeros(rows, 64), labels_M, labels_M, padded=True)
        explained = torch._dynamo.explain(network)(images_BCHW, memory)
        assert explained.graph_count == 1
        assert explained.graph_break_count == 0, explained.break_reasons
