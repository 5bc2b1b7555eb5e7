"""The step of synchronisation.py, made smaller, on processes of this machine.

:mod:`scaling` compares its model with what is measured here.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch
from synchronisation import BASE, batch, make_training, slowest_seconds
from torch import distributed as dist
from torch import multiprocessing as mp

from sadcl import distributed
from sadcl.data.loader import Batch
from sadcl.training import engine

IMAGES, SMALL = 8, BASE.override({"optim.batch_size": 8, "bank.size": 4})
"""Images of all processes together, and what they train."""


@contextlib.contextmanager
def single_worker() -> Iterator[None]:
    """Let a worker train as if it were the only one."""
    with (
        mock.patch.object(distributed, "world_size", return_value=1),
        mock.patch.object(distributed, "rank", return_value=0),
    ):
        yield


MANY = 20
"""Number of small reductions that are timed together."""


def worker(rank: int, world: int, folder: str, steps: int) -> None:
    """Measure one process of the check; rank 0 writes the times to ``WORLD.pt`` in ``folder``."""
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/meet{world}", rank=rank, world_size=world
        )
    share = batch(0, IMAGES)
    with single_worker():
        alone = make_training(SMALL)
    together = make_training(SMALL)

    def step_alone() -> None:
        with single_worker():
            engine.train_step(
                alone, Batch(share.images_BCHW, share.targets_BL, share.weight_B, share.index_B, 0)
            )

    def reduce_small() -> None:
        for _ in range(MANY):
            dist.all_reduce(small)

    times: dict[str, list[float]] = {"alone": [], "together": [], "nothing": [], "megabytes": []}
    small, large = torch.zeros(1), torch.zeros(4 << 20)
    for step in range(steps + 1):
        durations = {
            "alone": slowest_seconds(step_alone),
            "together": slowest_seconds(lambda: engine.train_step(together, share)),
        }
        if world > 1:
            barrier = slowest_seconds(lambda: None)
            durations["nothing"] = max(slowest_seconds(reduce_small) - barrier, 0) / MANY
            large_seconds = slowest_seconds(lambda: dist.all_reduce(large))
            durations["megabytes"] = max(large_seconds - barrier, 0)
        if step:  # the first one warms up
            for name, duration in durations.items():
                times[name].append(duration)
    if rank == 0:
        torch.save(times, f"{folder}/{world}.pt")
    if world > 1:
        dist.destroy_process_group()


def measure(world: int, steps: int) -> dict[str, list[float]]:
    """Return the seconds of steps and reductions on ``world`` processes, of the slowest one.

    Args:
        world: number of processes.
        steps: timed steps.
    """
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(worker, args=(world, folder, steps), nprocs=world)
        times: dict[str, list[float]] = torch.load(Path(folder) / f"{world}.pt")
    return times
