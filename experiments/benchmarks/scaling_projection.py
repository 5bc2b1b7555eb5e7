"""What the model of :mod:`scaling_model` says of runs on 8 to 1,024 GPUs, with published constants.

It is a model: no GPU was measured for it, and it holds as far as its constants do. Stragglers,
congestion and failures are not in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from rich import box
from rich.table import Table
from scaling_model import Between, Fabric, Load, Parts, padding, parts, pass_seconds, run_seconds

from sadcl.config import Config
from sadcl.console import console

GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)
TRAIN, TEST = 82_783, 40_504
"""Images of COCO 2014 (the paper's Table 2); a part of the first is held out."""
CARDINALITY = 2.9
"""Mean number of labels of an image in COCO 2014 (the paper's Table 2)."""


@dataclass(frozen=True)
class Gpu:
    """A GPU, by NVIDIA's data sheet of its SXM form.

    Attributes:
        name: for the table.
        peak: operations a second in bfloat16 without sparsity.
        float32: operations a second in float32, outside the tensor cores.
        bandwidth: bytes a second of its memory.
        memory: bytes.
    """

    name: str
    peak: float
    float32: float
    bandwidth: float
    memory: float


KINDS = {
    "h100": Gpu("H100", 989e12, 67e12, 3.35e12, 80e9),
    "h200": Gpu("H200", 989e12, 67e12, 4.8e12, 141e9),
}
PRODUCTS = 0.4
"""Share of the peak that the transformer's and the heads' products reach: an assumption.

It is what trainings of large transformers report of an H100.
"""
CONVOLUTIONS = 31.0
"""Operations of convolutions, normalisation and ReLU for each byte of the memory's bandwidth.

What limits them is memory, not the peak, of which an H100 gets 10 % in this way. The figure is that
of ResNet-50 on an A100, of which 2,600 images/s are reported for timm in mixed precision and
channels last (issue 1491 of pytorch-image-models): 3 x 8.2 GFLOP an image, 2.04 TB/s.
"""
FLOAT32 = 0.8
"""Share of the float32 rate that Eq. 4 reaches, which stays in float32 under autocast."""
UPDATE = 10
"""Times that a step moves as many bytes as the weights have, outside forward and backward.

AdamW reads weights, gradients and two moments and writes all but the gradients, and the average
reads weights and itself and writes itself.
"""
DOLLARS = 2.5
"""Price of an hour of an H100: an assumption in the middle of what clouds ask on demand."""
CORE, CORES = 324.0, 12
"""Images a second that a core reads from JPEG if the GPU augments, and cores of a GPU.

The first is what input.py measured of COCO at 448 px (stage 2, a core of an Intel Xeon; the table
in README.md). The number of cores is an assumption.
"""
ACTIVATION = 1.25 * 136e6
"""Bytes of an image's activations in bfloat16 at 448 px without checkpointing.

memory.py computes 13.0 GB for 64 images, of which 4.3 GB are no activations. A real process took
1.25 times as much for the convolutions' own buffers (on a CPU).
"""
CONTEXT = 2e9
"""Bytes of CUDA's context, its libraries and NCCL's buffers: an assumption."""
HOST = 64e9
"""Bytes a second from a GPU to the host, by the data sheet: PCIe 5 with 16 lanes."""
DISK = 1e9
"""Bytes a second that one process writes to a shared disk: an assumption."""
LARGEST = 4096
"""Images of a global batch at which fine-tuning may still work if lr is tuned again: an assumption.

The published run has 64; AdamW's results beyond 4,096 come from training on millions of images.
"""
REACHED = 0.8
"""Share of a nominal rate that large messages and copies reach, as nccl-tests report of links."""
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
        gradients: bytes that are averaged, as many as the weights have.
        peer: bytes that the gathers bring to each other worker.
        calls: gathers.
        sums: small all-reduces.
        operations: of a step without rows of the bank.
        convolutions: those of them that are convolutions'.
        row_operations: of each row of the bank.
        contrast_operations: of Eq. 4, by workers and rows of the bank.
        state: rows of a full bank, and bytes of bank and prototypes, by global batch.
    """

    gradients: int
    peer: float
    calls: int
    sums: int
    operations: int
    convolutions: int
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
        peak: bytes of each GPU's memory in a step.
        cores: of a CPU that a GPU needs, so that it need not wait for its input in training.
        steps: of an epoch.
        hours: of one run, both stages.
        outside: share of ``hours`` outside the steps.
        dollars: of one run.
    """

    gpus: int
    global_batch: int
    parts: Parts
    efficiency: float
    peak: float
    cores: float
    steps: int
    hours: float
    outside: float
    dollars: float


@dataclass(frozen=True)
class Assumptions:
    """What a user may say about the GPUs.

    Attributes:
        images: of a GPU in a step.
        speed: images a second that a GPU trains on; None is what :func:`compute_seconds` has.
        dollars: price of a GPU for an hour.
        gpu: its data sheet.
    """

    images: int
    speed: float | None = None
    dollars: float = DOLLARS
    gpu: Gpu = KINDS["h100"]


def compute_seconds(counts: Counts, given: Assumptions) -> float:
    """Return the seconds in which a GPU computes a step without communication and bank."""
    if given.speed is not None:
        return given.images / given.speed
    gpu = given.gpu
    products = (counts.operations - counts.convolutions) / (PRODUCTS * gpu.peak)
    convolutions = counts.convolutions / (CONVOLUTIONS * gpu.bandwidth)
    return products + convolutions + UPDATE * counts.gradients / (REACHED * gpu.bandwidth)


def peak_bytes(counts: Counts, config: Config, images: int, workers: int) -> float:
    """Return the bytes of a GPU's memory at the peak of a step of stage 2.

    Weights, their average, gradients and two moments are five times the weights, and DDP's buckets
    hold the gradients again. Eq. 4 holds the gathered rows and their gradients in float32, and the
    update of the bank gathers as many rows of features. Of each row of the bank that takes part
    there are a copy, three activations of the projection in bfloat16, and the projected row with
    its gradient in float32.

    Args:
        counts: of ``config``.
        config: gives the widths.
        images: of a GPU.
        workers: their number.
    """
    hidden, projection = config.model.hidden or 0, config.model.projection
    rows, bank = counts.state(images * workers)
    weights = (5 + (workers > 1)) * counts.gradients
    gathered = images * CARDINALITY * workers * 4 * (2 * projection + hidden)
    if workers > 1:
        gathered *= padding(images * CARDINALITY, workers)
    of_bank = rows * (4 * hidden + 3 * 2 * hidden + 2 * 4 * projection)
    return CONTEXT + weights + ACTIVATION * images + gathered + bank + of_bank


def between_epochs(
    counts: Counts, config: Config, given: Assumptions, workers: int, bank: int
) -> Between:
    """Return what a run does outside its steps.

    A forward pass is a third of a step's computation. After an epoch the weights and their average
    are evaluated; the first prototypes are one pass over the training images and the test is one
    over its own. The state is weights, average and two moments, with the best weights and the bank.

    Args:
        counts: of ``config``.
        config: gives the share of images that is held out.
        given: images, speed and the GPU.
        workers: their number.
        bank: bytes of bank and prototypes.
    """
    forward, read = compute_seconds(counts, given) / 3, given.images / CORE / CORES
    held_out = round(TRAIN * config.data.holdout)
    state = 5 * counts.gradients + bank

    def pass_over(images: int, networks: int = 1) -> float:
        return pass_seconds(images, given.images, workers, networks * forward, read)

    return Between(
        evaluation=pass_over(held_out, 2),
        copy=state / (REACHED * HOST),
        write=state / DISK,
        once=pass_over(TRAIN - held_out) + pass_over(TEST),
    )


def project_counts(
    counts: Counts, config: Config, fabric: Fabric, given: Assumptions, gpus: Sequence[int]
) -> list[Line]:
    """Return a line for each number of GPUs.

    Args:
        counts: of ``config``.
        config: gives the epochs of both stages.
        fabric: between the GPUs.
        given: images, speed, price and the GPU.
        gpus: the numbers of GPUs.
    """
    gpu, images = given.gpu, given.images
    compute, read = compute_seconds(counts, given), images / CORE / CORES
    epochs = config.stage1.epochs + config.stage2.epochs
    train = TRAIN - round(TRAIN * config.data.holdout)

    def step_of(workers: int) -> Parts:
        rows, _ = counts.state(images * workers)
        products = rows * counts.row_operations / (PRODUCTS * gpu.peak)
        contrast = counts.contrast_operations(workers, rows) / (FLOAT32 * gpu.float32)
        peer = counts.peer * padding(images * CARDINALITY, workers)
        load = Load(
            compute, counts.gradients, peer, counts.calls, counts.sums, bank=products + contrast
        )
        return parts(load, fabric, workers, read)

    single, lines = step_of(1).step, []
    for workers in gpus:
        step, (_, bank) = step_of(workers), counts.state(images * workers)
        steps = train / (images * workers)
        steps = max(math.floor(steps), 1) if config.optim.drop_last else math.ceil(steps)
        between = between_epochs(counts, config, given, workers, bank)
        seconds = run_seconds(steps * step.step, between, epochs)
        lines.append(
            Line(
                gpus=workers,
                global_batch=images * workers,
                parts=step,
                efficiency=single / step.step,
                peak=peak_bytes(counts, config, images, workers),
                cores=images / step.without_input / CORE,
                steps=steps,
                hours=seconds / 3600,
                outside=1 - epochs * steps * step.step / seconds,
                dollars=seconds / 3600 * workers * given.dollars,
            )
        )
    return lines


def describe_limits(lines: Sequence[Line], gpu: Gpu) -> list[str]:
    """Say in sentences where and why more GPUs stop to help."""
    sentences = []
    slow = next((line for line in lines if line.efficiency < 0.8), None)
    if slow is not None:
        times = asdict(slow.parts)
        del times["compute"], times["input"]
        largest = max(times, key=lambda name: times[name])
        sentences.append(f"below 80 % from {slow.gpus} GPUs on, most of it for: {largest}")
    full = next((line for line in lines if line.peak > gpu.memory), None)
    if full is not None:
        sentences.append(
            f"a step does not fit into {gpu.memory / 1e9:.0f} GB from {full.gpus} GPUs on "
            f"({full.peak / 1e9:.0f} GB)"
        )
    large = next((line for line in lines if line.global_batch > LARGEST), None)
    if large is not None:
        sentences.append(
            f"the global batch exceeds {LARGEST:,} images at {large.gpus} GPUs "
            f"({large.global_batch:,}, {large.steps} steps an epoch)"
        )
    idle = next((line for line in lines if line.outside > 0.2), None)
    if idle is not None:
        sentences.append(
            f"more than a fifth of a run is not in its steps from {idle.gpus} GPUs on "
            f"({idle.outside:.0%})"
        )
    return sentences or ["no limit is reached"]


def print_projection(lines: Sequence[Line], title: str, gpu: Gpu) -> None:
    """Print the steps and the runs of lines in tables of at most 80 columns, and the limits."""
    names = ("step", "compute", "bank", "gradients", "gathers", "input")
    _print_table(
        f"{title}: a step, in ms",
        ("GPUs", *names, "eff.", "most"),
        [
            (
                f"{line.gpus:,}",
                *(f"{1e3 * t:,.0f}" for t in (line.parts.step, *asdict(line.parts).values())),
                f"{line.efficiency:.0%}",
                line.parts.largest,
            )
            for line in lines
        ],
    )
    _print_table(
        f"{title}: a run",
        ("GPUs", "batch", "images/s", "cores/GPU", "GB/GPU", "steps", "hours", "outside", "$"),
        [
            (
                f"{line.gpus:,}",
                f"{line.global_batch:,}",
                f"{line.global_batch / line.parts.step:,.0f}",
                f"{line.cores:.1f}",
                f"{line.peak / 1e9:.0f}",
                f"{line.steps:,}",
                f"{line.hours:.2f}",
                f"{line.outside:.0%}",
                f"{line.dollars:,.0f}",
            )
            for line in lines
        ],
    )
    for sentence in describe_limits(lines, gpu):
        console.print(f"  {sentence}", highlight=False)


def _print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == "most" else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
