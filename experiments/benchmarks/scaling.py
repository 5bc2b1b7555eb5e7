"""How long a step takes on W GPUs of M nodes: a model, checked against 1, 2 and 4 real processes, then for up to 1,024 GPUs.

python experiments/benchmarks/scaling.py                                     # a minute on two cores
python experiments/benchmarks/scaling.py --images-per-second 500 --batch 16  # a GPU's speed as measured, 16 images a GPU

A step is computation, then what is left of the gradients' all-reduce once the backward pass has hidden what it can, then the
gathers of both contrasts and of the bank; and no shorter than the input takes. What travels is counted on the project's own
code: the contrasts, forward and backward, and the gather of admitted rows run with collectives that count, and bytes to each
other worker do not depend on W. Bank and gradients are tensors of the project's own modules. Operations are counted on the
network itself, by image and by row of the bank, which each worker projects whole.

The check: the step of synchronisation.py, made smaller, on 1, 2 and 4 gloo processes. Measured beside it, in turn, and put
into the model: the same step without communication in as many processes at once, since they share the cores here, and latency
and bandwidth of gloo's all-reduce of 16 MB among them, which share the cores too. Nothing is hidden there, for communication
takes the core that computes. The figure is reality / model: above 1 the model is too hopeful. What follows for GPUs is the
same arithmetic with published constants, and holds as far as these do; stragglers, congestion and failures are not in it.

Axes: W workers, B images of a worker, A activated rows of a worker, M bank rows.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich import box
from rich.table import Table
from rows import Row
from synchronisation import BASE, LABELS, batch, prepared, until_slowest
from torch import Tensor
from torch import distributed as dist
from torch import multiprocessing as mp
from torch.utils.flop_counter import FlopCounterMode

from sadcl import build, distributed, memory, recipes
from sadcl.config import Config
from sadcl.console import console
from sadcl.data.loader import Batch
from sadcl.errors import UserError
from sadcl.model import SADCL
from sadcl.training import engine

WORLDS, IMAGES, SMALL = (1, 2, 4), 8, BASE.override({"optim.batch_size": 8, "bank.size": 4})
"""Processes of the check, their images together, and what they train."""
GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)
CARDINALITY, TRAIN = 2.9, 82_783
"""Labels an image and training images of COCO 2014 (the paper's Table 2)."""
BACKWARD = 2 / 3
"""Of a step's computation: two products for each of the forward pass."""
BUCKET = 25 << 20
"""Bytes of DDP's buckets (torch's default); the last one goes when nothing is left to hide it."""
PEAK = 989e12
"""Operations a second: NVIDIA H100 SXM, bfloat16 without sparsity, by its data sheet."""
SHARE = 0.2
"""Of the peak that training reaches: an assumption, high for convolutions. Measure it, and give --images-per-second."""
FLOAT32 = 0.8 * 67e12
"""Operations a second of Eq. 4, which stays in float32 under autocast: H100's rate by its data sheet, of which large
products are assumed to reach four fifths."""
DOLLARS = 2.5
"""For an hour of an H100: an assumption, in the midst of what clouds ask on demand."""
CORE, CORES = 370.0, 12
"""Images a second that a core reads for a GPU that augments (input.py, COCO photographs), and cores a GPU: an assumption."""
MEMORY = 80e9
"""Bytes of an H100."""
LARGEST = 4096
"""Images of a global batch at which fine-tuning may still be expected to work, if lr is tuned again: an assumption. The
published run has 64; AdamW's results beyond 4,096 come from training on millions of images."""


@dataclass(frozen=True)
class Fabric:
    """How GPUs are connected.

    Attributes:
        gpus: of a node.
        inside: bytes a second that a GPU sends to others of its node, and ``inside_latency`` seconds of a message.
        between: bytes a second that a node sends to others, and ``latency`` seconds of a message.
        hidden: whether the backward pass goes on while gradients travel.
    """

    name: str
    gpus: int
    inside: float
    inside_latency: float
    between: float
    latency: float
    hidden: bool = True


REACHED = 0.8
"""Of a link's nominal rate that large messages reach, as nccl-tests report it for such machines."""
NVLINK = REACHED * 450e9
"""H100's NVLink 4: 900 GB/s by its data sheet, both directions together."""
FABRICS = (
    Fabric(
        "NVLink, 400 Gb/s InfiniBand for each GPU", 8, NVLINK, 3e-6, REACHED * 8 * 50e9, 5e-6
    ),  # as in a DGX H100
    Fabric("NVLink, 100 Gb/s Ethernet for each node", 8, NVLINK, 3e-6, REACHED * 12.5e9, 30e-6),
    Fabric("NVLink, 25 Gb/s Ethernet for each node", 8, NVLINK, 3e-6, REACHED * 3.125e9, 30e-6),
)
"""Latencies are those usually measured of NCCL: some microseconds over NVLink and InfiniBand, tens over TCP."""


@dataclass(frozen=True)
class Load:
    """What a step asks of each worker.

    Attributes:
        compute: seconds without communication.
        bank: seconds of it that the bank's rows and Eq. 4 take, where that is known apart, and then not in ``compute``.
        gradients: bytes that are averaged.
        peer: bytes sent to each other worker by the gathers.
        calls: collectives that carry them, and the sums beside.
    """

    compute: float
    gradients: float
    peer: float
    calls: int
    bank: float = 0.0


@dataclass(frozen=True)
class Parts:
    """Seconds of a step by what they go into."""

    compute: float
    bank: float
    gradients: float
    gathers: float
    input: float

    @property
    def step(self) -> float:
        return max(self.compute + self.bank + self.gradients + self.gathers, self.input)

    @property
    def largest(self) -> str:
        """What a step takes longest for."""
        if self.input >= self.step:
            return "input"
        took = {name: value for name, value in asdict(self).items() if name != "input"}
        return max(took, key=lambda name: took[name])


def delay(fabric: Fabric, workers: int) -> float:
    """Seconds of a collective call that carries nothing: up and down a tree inside the nodes and one over them."""
    inside, nodes = min(workers, fabric.gpus), math.ceil(workers / fabric.gpus)
    return 2 * (
        math.ceil(math.log2(inside)) * fabric.inside_latency
        + math.ceil(math.log2(nodes)) * fabric.latency
    )


def all_reduce(size: float, fabric: Fabric, workers: int) -> float:
    """Seconds of a sum of ``size`` bytes: a ring inside each node and one over the nodes."""
    inside, nodes = min(workers, fabric.gpus), math.ceil(workers / fabric.gpus)
    carried = (
        2 * (inside - 1) / inside * size / fabric.inside
        + 2 * (nodes - 1) / nodes * size / fabric.between
    )
    return carried + delay(fabric, workers)


def gathers(peer: float, calls: int, fabric: Fabric, workers: int) -> float:
    """Seconds of the gathers: each worker sends ``peer`` bytes to each other one, and those of a node share its links."""
    inside = min(workers, fabric.gpus)
    away = inside * (workers - inside) * peer / fabric.between
    return (inside - 1) * peer / fabric.inside + away + calls * delay(fabric, workers)


def parts(load: Load, fabric: Fabric, workers: int, read: float = 0.0) -> Parts:
    """A step of ``workers``; ``read`` is what the input of one takes."""
    if workers == 1:
        return Parts(load.compute, load.bank, 0.0, 0.0, read)
    sums = all_reduce(load.gradients, fabric, workers)
    if fabric.hidden:
        last = all_reduce(min(BUCKET, load.gradients), fabric, workers)
        sums = max(sums - BACKWARD * (load.compute + load.bank), last)
    return Parts(
        load.compute, load.bank, sums, gathers(load.peer, load.calls, fabric, workers), read
    )


def traffic(config: Config, labels: int, images: int, workers: int = 2) -> tuple[float, int]:
    """Bytes to each other worker, and collective calls, of one step's contrasts and gather, where every positive is admitted.

    The project's own functions run, with collectives that count what they are given and bring zeros.
    """
    sent, calls = 0, 0

    def reduce(given: Tensor) -> None:
        nonlocal calls
        calls += 1
        if given.dtype == torch.int64:  # sizes: the others have as many
            given.fill_(given.max())

    def to_all(output: Tensor, given: Tensor, _: Sequence[int], sizes: Sequence[int]) -> None:
        nonlocal sent, calls
        sent, calls = sent + given.nbytes * sum(sizes[1:]) // sum(sizes), calls + 1
        output.zero_()

    P, D, activated = config.model.projection, config.model.hidden, round(images * CARDINALITY)
    assert D is not None
    targets_BL = (torch.arange(images * labels) < activated).view(images, labels).long()
    embeddings_BLP, prototypes_LP = (
        torch.zeros(images, labels, P).requires_grad_(),
        torch.zeros(labels, P),
    )
    bank_MP, valid_L = torch.zeros(1, P), torch.ones(labels, dtype=torch.bool)
    output = mock.Mock(
        logits_BL=torch.zeros(images, labels),
        embeddings_BLP=embeddings_BLP,
        bank_MP=bank_MP,
        prototypes_LP=prototypes_LP,
        prototype_valid_L=valid_L,
    )
    rows = memory.activated_rows(
        torch.zeros(images, labels, D), torch.ones(images, labels), torch.arange(activated), 0
    )
    place_M = torch.zeros(1, dtype=torch.int64)
    with (
        mock.patch.object(distributed, "world_size", return_value=workers),
        mock.patch.object(distributed, "rank", return_value=0),
        mock.patch.object(dist, "all_reduce", reduce),
        mock.patch.object(dist, "all_to_all_single", to_all),
    ):
        share = Batch(torch.zeros(0), targets_BL, torch.ones(images), torch.arange(images), 0)
        bank = memory.Memory(torch.zeros(1, D), place_M, place_M)
        build.criterion(config, contrast=True)(output, share, bank).loss.backward()
        memory.gather(rows)
    return sent / (workers - 1), calls


def operations(config: Config, labels: int, images: int, rows: int) -> int:
    """Of one worker's forward and backward pass over its images and the rows of the bank that it projects."""
    side = config.data.image_size
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        network = build.model(config, labels, pretrained=False)
        assert config.model.hidden is not None
        labels_M = torch.zeros(rows, dtype=torch.int64)
        bank = memory.Memory(torch.zeros(rows, config.model.hidden), labels_M, labels_M)
        output = network(torch.zeros(images, 3, side, side), bank)
        sum(
            part.sum()
            for part in (
                output.logits_BL,
                output.embeddings_BLP,
                output.bank_MP,
                output.prototypes_LP,
            )
        ).backward()
    return int(counted.get_total_flops())


def contrast_operations(config: Config, images: int, workers: int, bank: int) -> float:
    """Of Eq. 4 on one worker: three products of its anchors and all candidates (``losses/sample_to_sample.py``)."""
    own = images * CARDINALITY
    anchors = own + bank / workers * (config.loss.anchors == "batch+bank")
    return 6 * anchors * (own * workers + bank) * config.model.projection


def state(config: Config, labels: int, global_batch: int) -> tuple[int, int]:
    """Rows of a full bank, and bytes of bank and prototypes, at a global batch."""
    own = config.override({"optim.batch_size": global_batch})
    assert own.model.hidden is not None
    with torch.device("meta"):
        bank = build.bank(own, labels, own.model.hidden, 1)
        network = build.model(own, labels, pretrained=False)
    assert isinstance(network, SADCL)
    tensors = [*bank.buffers(), *network.prototypes.buffers(), *network.prototypes.parameters()]
    return bank.valid_KL.numel(), sum(tensor.nbytes for tensor in tensors)


def gradients(config: Config, labels: int) -> int:
    """Bytes that DDP averages."""
    with torch.device("meta"):
        network = build.model(config, labels, pretrained=False)
    return sum(parameter.nbytes for parameter in network.parameters() if parameter.requires_grad)


# --- the check


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Within it a worker trains as if it were the only one."""
    with (
        mock.patch.object(distributed, "world_size", return_value=1),
        mock.patch.object(distributed, "rank", return_value=0),
    ):
        yield


MANY = 20
"""Small reductions that are timed together."""


def worker(rank: int, world: int, folder: str, steps: int) -> None:
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/meet{world}", rank=rank, world_size=world
        )
    share = batch(0, IMAGES)
    with apart():
        alone = prepared(SMALL)
    together = prepared(SMALL)

    def step_alone() -> None:
        with apart():
            engine.train_step(
                alone, Batch(share.images_BCHW, share.targets_BL, share.weight_B, share.index_B, 0)
            )

    times: dict[str, list[float]] = {"alone": [], "together": [], "nothing": [], "megabytes": []}
    small, large = torch.zeros(1), torch.zeros(4 << 20)
    for turn in range(steps + 1):
        found = {
            "alone": until_slowest(step_alone),
            "together": until_slowest(lambda: engine.train_step(together, share)),
        }
        if world > 1:
            meeting = until_slowest(lambda: None)
            found |= {
                "nothing": max(
                    until_slowest(lambda: [dist.all_reduce(small) for _ in range(MANY)]) - meeting,
                    0,
                )
                / MANY,
                "megabytes": max(until_slowest(lambda: dist.all_reduce(large)) - meeting, 0),
            }
        if turn:  # the first one warms up
            for name, took in found.items():
                times[name].append(took)
    if rank == 0:
        torch.save(times, f"{folder}/{world}.pt")
    if world > 1:
        dist.destroy_process_group()


def check(steps: int, worlds: Sequence[int] = WORLDS) -> list[dict[str, Any]]:
    """For each number of processes the parts of the model, and the real step."""
    if steps < 1:
        raise UserError(f"--steps {steps} is not possible: at least 1.")
    found, size = [], gradients(SMALL, LABELS)
    with tempfile.TemporaryDirectory() as folder:
        for world in worlds:
            mp.spawn(worker, args=(world, folder, steps), nprocs=world)
            times = torch.load(Path(folder) / f"{world}.pt")
            load = Load(
                statistics.median(times["alone"]), size, *traffic(SMALL, LABELS, IMAGES // world)
            )
            fabric = Fabric("one machine", world, math.inf, 0.0, math.inf, 0.0)
            if world > 1:
                nothing, megabytes = (
                    statistics.median(times[name]) for name in ("nothing", "megabytes")
                )
                rate = 2 * (world - 1) / world * (16 << 20) / max(megabytes - nothing, 1e-9)
                fabric = Fabric(
                    "gloo",
                    world,
                    rate,
                    nothing / 2 / math.ceil(math.log2(world)),
                    rate,
                    0.0,
                    hidden=False,
                )
            found.append(
                {
                    "workers": world,
                    "parts": parts(load, fabric, world),
                    "real": times["together"],
                    "fabric": fabric,
                }
            )
            console.print(f"{world} processes done", highlight=False)
    return found


def benchmark(quick: bool = False, steps: int = 5) -> list[Row]:
    """Real steps beside the model's, in milliseconds; neither is better."""
    return [
        Row(
            f"step beside the model, {each['workers']} processes",
            1e3 * statistics.median(each["real"]),
            "ms",
            reference=1e3 * each["parts"].step,
        )
        for each in (check(1, (2,)) if quick else check(steps))
    ]


def show_check(found: list[dict[str, Any]]) -> None:
    table = Table(
        *(
            "processes",
            "computation",
            "gradients",
            "gathers",
            "model",
            "real",
            "reality / model (range)",
            "gloo",
        ),
        box=box.SIMPLE_HEAD,
        title="checked here",
    )
    for each in found:
        model, real, fabric = each["parts"], each["real"], each["fabric"]
        ratios = [took / model.step for took in real]
        table.add_row(
            str(each["workers"]),
            *(
                f"{1e3 * took:,.1f} ms"
                for took in (model.compute, model.gradients, model.gathers, model.step)
            ),
            f"{1e3 * statistics.median(real):,.1f} ms",
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})",
            "" if fabric.inside == math.inf else f"{fabric.inside / 1e9:.2f} GB/s",
        )
    console.print(table)


# --- what it says of GPUs


@dataclass(frozen=True)
class Line:
    """One number of GPUs.

    Attributes:
        efficiency: speed of a GPU beside that of one alone, with as many images each.
        rows: of a full bank; ``bytes`` of it and of the prototypes on each GPU.
        hours: of one run, both stages; ``dollars`` for it.
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


def project(
    config: Config,
    fabric: Fabric,
    images: int,
    speed: float | None,
    dollars: float,
    gpus: Sequence[int],
) -> list[Line]:
    """A line for each number of GPUs, each with so many images.

    Args:
        speed: images a second that a GPU trains on; None is by operations and the assumed share of the peak.
    """
    size, (peer, calls) = gradients(config, LABELS), traffic(config, LABELS, images)
    base = operations(config, LABELS, images, 0)
    row = (operations(config, LABELS, images, 1000) - base) / 1000
    rate = PEAK * SHARE if speed is None else speed * base / images

    def of(workers: int) -> tuple[Parts, int, int]:
        rows, held = state(config, LABELS, images * workers)
        bank = rows * row / rate + contrast_operations(config, images, workers, rows) / min(
            rate, FLOAT32
        )
        return (
            parts(
                Load(base / rate, size, peer, calls, bank), fabric, workers, images / CORE / CORES
            ),
            rows,
            held,
        )

    alone, lines = of(1)[0].step, []
    for workers in gpus:
        found, rows, held = of(workers)
        steps = math.ceil(TRAIN / (images * workers))
        hours = (config.stage1.epochs + config.stage2.epochs) * steps * found.step / 3600
        price = hours * workers * dollars
        lines.append(
            Line(
                workers,
                images * workers,
                found,
                alone / found.step,
                rows,
                held,
                steps,
                hours,
                price,
            )
        )
    return lines


def breaks(lines: Sequence[Line]) -> list[str]:
    """Where and why it does not go on, in sentences."""
    said = []
    slow = next((line for line in lines if line.efficiency < 0.8), None)
    if slow is not None:
        took = {
            name: value
            for name, value in asdict(slow.parts).items()
            if name not in ("compute", "input")
        }
        said.append(
            f"below 80 % from {slow.gpus} GPUs on, most of it for: {max(took, key=lambda name: took[name])}"
        )
    full = next((line for line in lines if line.bytes > MEMORY / 4), None)
    if full is not None:
        said.append(
            f"the bank takes a quarter of a GPU's memory from {full.gpus} GPUs on ({full.bytes / 1e9:.0f} GB)"
        )
    large = next((line for line in lines if line.global_batch > LARGEST), None)
    if large is not None:
        steps = f"{large.steps} steps an epoch"
        said.append(
            f"the global batch passes {LARGEST:,} images at {large.gpus} GPUs ({large.global_batch:,}, {steps})"
        )
    return said or ["nothing breaks up to here"]


def show_lines(lines: Sequence[Line], title: str) -> None:
    table = Table(
        *(
            "GPUs",
            "batch",
            "step",
            "compute",
            "bank",
            "gradients",
            "gathers",
            "input",
            "eff.",
            "most",
            "bank GB",
        ),
        *("steps", "hours", "$"),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=title,
        title_justify="left",
    )
    for line in lines:
        took = line.parts
        table.add_row(
            f"{line.gpus:,}",
            f"{line.global_batch:,}",
            *(f"{1e3 * part:,.1f}" for part in (took.step, *asdict(took).values())),
            f"{line.efficiency:.0%}",
            took.largest,
            f"{line.bytes / 1e9:.2f}",
            f"{line.steps:,}",
            f"{line.hours:.2f}",
            f"{line.dollars:,.0f}",
        )
    console.print(table)
    for text in breaks(lines):
        console.print(f"  {text}", highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images-per-second",
        type=float,
        help=f"of one GPU; default: {SHARE:.0%} of an H100's peak",
    )
    parser.add_argument(
        "--dollars-per-gpu-hour", type=float, default=DOLLARS, help=f"default {DOLLARS}"
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=64,
        help="images of a GPU (default 64; 8 on 8 GPUs is as published)",
    )
    parser.add_argument(
        "--steps", type=int, default=5, help="timed steps of the check (default 5); 0 leaves it out"
    )
    options = parser.parse_args()
    for name in ("images_per_second", "dollars_per_gpu_hour", "batch"):
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UserError(
                f"--{name.replace('_', '-')} {value} is not possible: a number above 0."
            )
    if options.steps:
        show_check(check(options.steps))
    slot = recipes.coco14()
    fifo = slot.override({"bank.policy": "fifo", "bank.size": 64})
    peer, calls = traffic(slot, LABELS, options.batch)
    work = operations(slot, LABELS, options.batch, 0)
    speed = options.images_per_second or PEAK * SHARE * options.batch / work
    console.print(
        f"ResNet-101, 448 px, {options.batch} images a GPU: {work / 1e12:.1f} TFLOP a step, {speed:,.0f} images/s; "
        f"{gradients(slot, LABELS) / 1e6:.0f} MB of gradients averaged; {peer / 1e6:.2f} MB gathered to each other GPU in "
        f"{calls} calls. Times in milliseconds; a run is {slot.stage1.epochs} + {slot.stage2.epochs} epochs of {TRAIN:,} "
        "images; every step is reckoned as one of stage 2 with a full bank, as it is late in a run.",
        highlight=False,
    )
    for policy, config in (
        ("slot bank, as released", slot),
        ("fifo bank of 64 rows a label", fifo),
    ):
        for fabric in FABRICS:
            lines = project(
                config,
                fabric,
                options.batch,
                options.images_per_second,
                options.dollars_per_gpu_hour,
                GPUS,
            )
            show_lines(lines, f"{fabric.name}; {policy}")


if __name__ == "__main__":
    from sadcl.console import guarded

    with guarded():
        main()
