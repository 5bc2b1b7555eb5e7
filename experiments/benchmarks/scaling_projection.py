"""What the model of :mod:`scaling_model` says of runs on 8 to 1,024 GPUs, with published constants.

It holds as far as the constants do. Stragglers, congestion and failures are not in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from rich import box
from rich.table import Table
from scaling_model import Fabric, Load, Parts, parts

from sadcl.config import Config
from sadcl.console import console

GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)
TRAIN = 82_783
"""Training images of COCO 2014 (the paper's Table 2)."""
PEAK = 989e12
"""Operations a second of an NVIDIA H100 SXM in bfloat16 without sparsity, by its data sheet."""
SHARE = 0.2
"""Share of the peak that training reaches: an assumption, high for convolutions.

Measure it, and pass --images-per-second.
"""
FLOAT32 = 0.8 * 67e12
"""Operations a second of Eq. 4, which stays in float32 under autocast.

This is the H100's rate by its data sheet, of which large products are assumed to reach four fifths.
"""
DOLLARS = 2.5
"""Price of an hour of an H100: an assumption in the middle of what clouds ask on demand."""
CORE, CORES = 370.0, 12
"""Images a second that a core reads if the GPU augments (input.py, COCO), and cores of a GPU.

The number of cores is an assumption.
"""
MEMORY = 80e9
"""Bytes of an H100."""
LARGEST = 4096
"""Images of a global batch at which fine-tuning may still work if lr is tuned again: an assumption.

The published run has 64; AdamW's results beyond 4,096 come from training on millions of images.
"""
REACHED = 0.8
"""Share of a link's nominal rate that large messages reach, as reported by nccl-tests."""
NVLINK = REACHED * 450e9
"""Bytes a second of an H100's NVLink 4: 900 GB/s by its data sheet, both directions together."""
FABRICS = (
    # as in a DGX H100
    Fabric("NVLink, 400 Gb/s InfiniBand for each GPU", 8, NVLINK, 3e-6, REACHED * 8 * 50e9, 5e-6),
    Fabric("NVLink, 100 Gb/s Ethernet for each node", 8, NVLINK, 3e-6, REACHED * 12.5e9, 30e-6),
    Fabric("NVLink, 25 Gb/s Ethernet for each node", 8, NVLINK, 3e-6, REACHED * 3.125e9, 30e-6),
)
"""Latencies are the usual ones of NCCL: microseconds on NVLink and InfiniBand, tens on TCP."""


@dataclass(frozen=True)
class Counts:
    """What is counted on the project's own code, for a configuration and a number of images a GPU.

    Attributes:
        gradients: bytes that are averaged.
        peer: bytes that the gathers send to each other worker.
        calls: collectives of the gathers.
        operations: of a step without rows of the bank.
        row_operations: of each row of the bank.
        contrast_operations: of Eq. 4, by workers and rows of the bank.
        state: rows of a full bank, and bytes of bank and prototypes, by global batch.
    """

    gradients: int
    peer: float
    calls: int
    operations: int
    row_operations: float
    contrast_operations: Callable[[int, int], float]
    state: Callable[[int], tuple[int, int]]


@dataclass(frozen=True)
class Line:
    """The projection for one number of GPUs.

    Attributes:
        gpus: their number.
        global_batch: images of a step.
        parts: seconds of a step.
        efficiency: speed of a GPU relative to a single GPU with as many images.
        rows: of a full bank.
        bytes: of bank and prototypes on each GPU.
        steps: of an epoch.
        hours: of one run, both stages.
        dollars: of one run.
    """

    gpus: int
    global_batch: int
    parts: Parts
    efficiency: float
    rows: int
    bytes: int
    steps: int
    hours: float
    dollars: float


@dataclass(frozen=True)
class Assumptions:
    """What a user may say about the GPUs.

    Attributes:
        images: of a GPU in a step.
        speed: images a second that a GPU trains on; None is :data:`SHARE` of :data:`PEAK`.
        dollars: price of a GPU for an hour.
    """

    images: int
    speed: float | None = None
    dollars: float = DOLLARS


def project_counts(
    counts: Counts, config: Config, fabric: Fabric, given: Assumptions, gpus: Sequence[int]
) -> list[Line]:
    """Return a line for each number of GPUs.

    Args:
        counts: of ``config``.
        config: gives the epochs of both stages.
        fabric: between the GPUs.
        given: images, speed and price.
        gpus: the numbers of GPUs.
    """
    base, images = counts.operations, given.images
    rate = PEAK * SHARE if given.speed is None else given.speed * base / images
    read = images / CORE / CORES

    def step_of(workers: int) -> tuple[Parts, int, int]:
        rows, size = counts.state(images * workers)
        contrast = counts.contrast_operations(workers, rows) / min(rate, FLOAT32)
        bank = rows * counts.row_operations / rate + contrast
        load = Load(base / rate, counts.gradients, counts.peer, counts.calls, bank)
        return parts(load, fabric, workers, read), rows, size

    single, lines = step_of(1)[0].step, []
    for workers in gpus:
        step, rows, size = step_of(workers)
        steps = math.ceil(TRAIN / (images * workers))
        hours = (config.stage1.epochs + config.stage2.epochs) * steps * step.step / 3600
        lines.append(
            Line(
                gpus=workers,
                global_batch=images * workers,
                parts=step,
                efficiency=single / step.step,
                rows=rows,
                bytes=size,
                steps=steps,
                hours=hours,
                dollars=hours * workers * given.dollars,
            )
        )
    return lines


def describe_limits(lines: Sequence[Line]) -> list[str]:
    """Say in sentences where and why more GPUs stop to help."""
    sentences = []
    slow = next((line for line in lines if line.efficiency < 0.8), None)
    if slow is not None:
        times = asdict(slow.parts)
        del times["compute"], times["input"]
        largest = max(times, key=lambda name: times[name])
        sentences.append(f"below 80 % from {slow.gpus} GPUs on, most of it for: {largest}")
    full = next((line for line in lines if line.bytes > MEMORY / 4), None)
    if full is not None:
        sentences.append(
            f"the bank takes a quarter of a GPU's memory from {full.gpus} GPUs on "
            f"({full.bytes / 1e9:.0f} GB)"
        )
    large = next((line for line in lines if line.global_batch > LARGEST), None)
    if large is not None:
        sentences.append(
            f"the global batch exceeds {LARGEST:,} images at {large.gpus} GPUs "
            f"({large.global_batch:,}, {large.steps} steps an epoch)"
        )
    return sentences or ["no limit is reached"]


def print_projection(lines: Sequence[Line], title: str) -> None:
    """Print a table of lines, and the limits."""
    columns = ("GPUs", "batch", "step", "compute", "bank", "gradients", "gathers", "input")
    table = Table(
        *columns,
        *("eff.", "most", "bank GB", "steps", "hours", "$"),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=title,
        title_justify="left",
    )
    for line in lines:
        step = line.parts
        table.add_row(
            f"{line.gpus:,}",
            f"{line.global_batch:,}",
            *(f"{1e3 * part:,.1f}" for part in (step.step, *asdict(step).values())),
            f"{line.efficiency:.0%}",
            step.largest,
            f"{line.bytes / 1e9:.2f}",
            f"{line.steps:,}",
            f"{line.hours:.2f}",
            f"{line.dollars:,.0f}",
        )
    console.print(table)
    for sentence in describe_limits(lines):
        console.print(f"  {sentence}", highlight=False)
