"""What a step of two workers over gloo waits for, and what it sends."""

from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing as mp

from sadcl import build, distributed, recipes
from sadcl.data.load import load
from sadcl.training import engine, loop
from tests.conftest import TINY
from tests.training.test_engine import Waits, name_of

SETTINGS = [
    {},
    {"bank.policy": "fifo", "prototypes.policy": "learned"},
    {"bank.scope": "worker", "loss.candidates": "all"},
    {"loss.anchor_mask": "released"},
    {"bank.policy": "none", "loss.prototype_weight": 0.0},
]
CALLS = ("all_reduce", "all_to_all_single")


def worker(rank, folder, root):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    engine.Training.padded = True  # as on a GPU
    engine.check_finite = lambda *_: None  # on a GPU it looks at every tenth step
    counted = {}

    def count(module, name):
        function = getattr(module, name)

        def counting(*given, **named):
            counted[name] = counted.get(name, 0) + 1
            return function(*given, **named)

        setattr(module, name, counting)

    for name in CALLS:
        count(dist, name)
    count(distributed, "all_gather_sizes")
    for settings in SETTINGS:
        config = recipes.demo().override({**TINY, **settings})
        data = load(config.data, root)
        training = loop.prepare(2, config, data.labels, torch.device("cpu"), steps=99)
        training.network.train()
        loader = build.loader(config, data.train, build.Worker(rank, 2), training=True)
        found = []
        for share in loader.batches(0):
            counted.clear()
            with Waits() as waits:
                engine.train_step(training, share)
            found.append((waits.found, dict(counted)))
        if rank == 0:
            torch.save(found, f"{folder}/{SETTINGS.index(settings)}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    folder, root = tmp_path_factory.mktemp("workers"), tmp_path_factory.mktemp("scenes")
    load(recipes.demo().override(TINY).data, root)
    mp.spawn(worker, args=(str(folder), str(root)), nprocs=2)
    return lambda settings: torch.load(Path(folder) / f"{SETTINGS.index(settings)}.pt")


@pytest.mark.parametrize("settings", SETTINGS, ids=name_of)
def test_the_host_waits_for_nothing_that_the_loader_knows(steps, settings):
    for waits, calls in steps(settings):
        assert waits == []
        assert "all_gather_sizes" not in calls  # each call waits


def test_a_step_gathers_what_it_must_in_as_few_calls(steps):
    """Rows of Eq. 4 and their gradient, similarities of Eq. 6 and theirs, targets, the bank's."""
    for _, calls in steps({}):
        assert calls["all_to_all_single"] == 6
    for _, calls in steps(SETTINGS[-1]):
        assert calls["all_to_all_single"] == 2
