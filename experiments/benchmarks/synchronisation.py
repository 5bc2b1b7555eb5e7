"""The cost of one bank for all workers in bytes and time, against a bank for each worker.

python experiments/benchmarks/synchronisation.py    # two minutes on two cores; 1, 2 and 4 processes

This is the real training step (DDP, both contrasts, EMA, bank and prototypes) on random images with
COCO's label frequency, and a small backbone at the released projection size. Every activated row is
admitted, which is the most that can be sent. All banks are full from the start and only the batch
has anchors, so both ways compute the same. The two steps alternate, so that other load of the
machine affects both. A worker's step ends when the slowest worker is done. The gloo processes share
the cores here, so a step takes longer the more there are; only the ratio matters.

Bytes are what one worker sends in a step: for the bank (rows, positions and counts) counted from
the collectives' tensors, for DDP from the sizes of the parameters (a ring sends 2 (W - 1) / W of
them). They depend on the rows admitted, not on the bank's size: the last column is of a bank 4
times as large.

Axes: W workers, B images of a worker, L labels.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.table import Table
from rows import Row, compare, seconds
from torch import Tensor
from torch import distributed as dist
from torch import multiprocessing as mp

from sadcl import distributed, memory, recipes
from sadcl.config import Config
from sadcl.console import console
from sadcl.data.loader import Batch
from sadcl.training import engine, loop, sync_points

WORLDS = (1, 2, 4)
LABELS, IMAGES, SIDE, CARDINALITY = 80, 32, 64, 2.9
BASE = recipes.coco14().override(
    {
        "data.image_size": SIDE,
        "model.backbone": "resnet18",
        "model.pretrained": False,
        "model.hidden": 512,
        "model.feedforward": 2048,
        "optim.batch_size": IMAGES,
        "bank.epsilon": 0.0,
        "prototypes.epsilon": 0.0,
        "bank.policy": "fifo",
        "loss.anchors": "batch",
    }
)
SETTINGS = {
    "cluster": BASE,
    "worker": BASE.override({"bank.scope": "worker"}),
    "larger": BASE.override({"bank.size": 4 * BASE.bank.size}),
}


class Sent:
    """Counts the bytes that this worker sends in the gather of the bank."""

    bytes = 0
    counting = False

    @classmethod
    def install(cls) -> None:
        """Replace the collectives and the gather of this process by ones that count."""
        to_all, reduce, gather = dist.all_to_all_single, dist.all_reduce, memory.gather

        def count_to_all(output: Tensor, tensor: Tensor, *sizes: Any) -> Any:
            world = dist.get_world_size()
            cls.bytes += cls.counting * tensor.nbytes * (world - 1) // world
            return to_all(output, tensor, *sizes)

        def count_reduce(tensor: Tensor) -> Any:
            world = dist.get_world_size()
            cls.bytes += cls.counting * 2 * tensor.nbytes * (world - 1) // world
            return reduce(tensor)

        def count_gather(
            rows: memory.ActivatedRows, sizes: list[int] | None = None
        ) -> memory.ActivatedRows:
            cls.counting = True
            gathered_rows = gather(rows, sizes)
            cls.counting = False
            return gathered_rows

        for name, function in (("all_to_all_single", count_to_all), ("all_reduce", count_reduce)):
            setattr(dist, name, function)
        engine.gather = count_gather


def batch(step: int, count: int = IMAGES) -> Batch:
    """Draw a random global batch of ``count`` images, and return this worker's share."""
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(count, 3, SIDE, SIDE, generator=generator)
    frequency_L = torch.arange(1, LABELS + 1).pow(-0.7)  # long-tailed, as COCO's labels are
    targets = (
        torch.rand(count, LABELS, generator=generator)
        < frequency_L * CARDINALITY / frequency_L.sum()
    ).to(torch.int8)
    start, stop = distributed.split(count, distributed.rank(), distributed.world_size())
    index = torch.arange(start, stop)
    return Batch(images[start:stop], targets[start:stop], torch.ones(stop - start), index, start)


def slowest_seconds(work: Callable[[], object]) -> float:
    """Measure the seconds until the slowest worker is done."""
    return seconds(work, wait=sync_points.barrier)


def worker(rank: int, world: int, folder: str, steps: int) -> None:
    """Measure the steps of one process; rank 0 writes the results to ``WORLD.pt`` in ``folder``."""
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/meet{world}", rank=rank, world_size=world
        )
    Sent.install()
    runs = {name: make_training(config) for name, config in SETTINGS.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    sent = dict.fromkeys(runs, 0)
    for step in range(steps + 2):
        for name, training in runs.items():
            if name == "larger" and step >= 2:
                continue  # its bytes are known, and its time is not of interest
            Sent.bytes = 0
            share = batch(step)
            duration = 1e3 * slowest_seconds(partial(engine.train_step, training, share))
            if step >= 2:  # the first two warm up
                times[name].append(duration)
            elif step == 1:
                sent[name] = Sent.bytes
    if rank == 0:
        bank = runs["cluster"].bank
        assert bank is not None
        gradient = sum(p.nbytes for p in runs["cluster"].network.parameters() if p.requires_grad)
        assert sent["worker"] == 0
        results = {
            "times": times,
            "sent": sent,
            "gradient": 2 * gradient * (world - 1) / world,
            "bank": bank.rows_KLD.nbytes,
        }
        torch.save(results, f"{folder}/{world}.pt")
    if world > 1:
        dist.destroy_process_group()


def make_training(config: Config) -> engine.Training:
    """Prepare a training whose bank and prototypes are full."""
    training = loop.prepare(
        2, config, tuple(map(str, range(LABELS))), torch.device("cpu"), steps=1000
    )
    assert training.network.prototypes is not None
    assert training.bank is not None
    torch.nn.init.normal_(training.bank.rows_KLD)
    training.bank.valid_KL.fill_(True)
    training.bank.count_valid()
    training.network.prototypes.valid_L.fill_(True)
    training.network.prototypes.end_epoch()  # as after the first epoch: they need no more rows
    training.network.train()
    return training


def measure(steps: int = 10, worlds: tuple[int, ...] = WORLDS) -> list[dict[str, Any]]:
    """Measure each number of workers.

    Args:
        steps: timed steps of each kind.
        worlds: numbers of workers.

    Raises:
        ValueError: for fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"steps >= 1 must hold, but got {steps}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for world in worlds:
            mp.spawn(worker, args=(world, folder, steps), nprocs=world)
            results = torch.load(Path(folder) / f"{world}.pt")
            cluster, separate = results["times"]["cluster"], results["times"]["worker"]
            ratios = sorted(a / b for a, b in zip(cluster, separate, strict=True))
            rows.append(
                {
                    "workers": world,
                    "step": statistics.median(cluster),
                    "times": [cluster, separate],
                    "ratio": statistics.median(ratios),
                    "ratio_low": ratios[len(ratios) // 4],
                    "ratio_high": ratios[-1 - len(ratios) // 4],
                    "sent": results["sent"]["cluster"],
                    "sent_larger": results["sent"]["larger"],
                    "gradient": results["gradient"],
                    "bank": results["bank"],
                }
            )
            console.print(f"{world} workers done", highlight=False)
    return rows


def benchmark(quick: bool = False) -> list[Row]:
    """Return two rows for each number of workers.

    They compare the step with that of separate banks, and the bytes of a bank 4 times as large with
    those of the bank. ``quick`` measures one step of two workers.
    """
    rows = []
    for each in measure(1, (2,)) if quick else measure():
        if each["workers"] > 1:
            what = f"{each['workers']} workers"
            rows.append(compare(f"step with one bank, {what}", "ms", *each["times"], goal=1 / 1.01))
            sent = [each["sent_larger"] / 1e3], [each["sent"] / 1e3]
            rows.append(
                compare(f"bytes a worker sends, bank x 4 against x 1, {what}", "kB", *sent, goal=1)
            )
    return rows


def print_measurements(rows: list[dict[str, Any]]) -> None:
    """Print what :func:`measure` returns."""
    table = Table(
        *("workers", "step", "against separate banks (quartiles)"),
        *("bank sends", "DDP sends", "bank holds", "sends, bank x 4"),
        box=box.SIMPLE_HEAD,
    )
    for each in rows:
        table.add_row(
            str(each["workers"]),
            f"{each['step']:,.0f} ms",
            f"{each['ratio']:.3f} ({each['ratio_low']:.3f}..{each['ratio_high']:.3f})",
            f"{each['sent'] / 1e3:,.0f} kB",
            f"{each['gradient'] / 1e3:,.0f} kB",
            f"{each['bank'] / 1e6:.1f} MB",
            f"{each['sent_larger'] / 1e3:,.0f} kB",
        )
    console.print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--steps", type=int, default=10, help="timed steps of each kind (default: 10)"
    )
    print_measurements(measure(**vars(parser.parse_args())))
