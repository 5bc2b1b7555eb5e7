"""How long a step takes on W GPUs: a model, checked against processes, then for up to 1,024 GPUs.

python experiments/benchmarks/scaling.py                                     # a minute on two cores
python experiments/benchmarks/scaling.py --images-per-second 500 --batch 16  # speed as measured

:mod:`scaling_model` has the arithmetic. What is sent is counted on the project's own code: the
contrasts, forward and backward, and the gather of activated rows run with collectives that count;
bytes to each other worker do not depend on W. Bank and gradients are tensors of the project's own
modules. Operations are counted on the network itself, for each image and for each row of the bank,
because each worker projects the whole bank.

The check is the step of synchronisation.py, made smaller, on 1, 2 and 4 gloo processes. Two things
are measured in turn with it, and are put into the model: the same step without communication in as
many processes at once, because they share the cores here; and latency and bandwidth of gloo's
all-reduce of 16 MB between them, which share the cores too. Nothing is hidden there, because
communication takes the core that computes. The result is reality / model: above 1, the model is too
optimistic. Projections for GPUs are the same arithmetic with published constants
(:mod:`scaling_projection`).

Axes: W workers, B images of a worker, A activated rows of a worker, M bank rows.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any
from unittest import mock

import scaling_projection as projection
import torch
from rich import box
from rich.table import Table
from rows import Row
from scaling_model import Load, measured_fabric, parts
from scaling_processes import IMAGES, SMALL, measure
from scaling_projection import CARDINALITY
from synchronisation import LABELS
from torch import Tensor
from torch import distributed as dist
from torch.utils.flop_counter import FlopCounterMode

from sadcl import build, distributed, memory, recipes
from sadcl.config import Config
from sadcl.console import console
from sadcl.data.loader import Batch
from sadcl.errors import UserError

WORLDS = (1, 2, 4)
"""Numbers of processes of the check."""


def traffic(config: Config, labels: int, images: int, workers: int = 2) -> tuple[float, int, int]:
    """Count bytes to each other worker, gathers and sums of one step's contrasts and gather.

    The project's own functions run, with collectives that count what
    they are given and return zeros.

    Args:
        config: of the step.
        labels: their number.
        images: of a worker.
        workers: their number; the bytes do not depend on it.
    """
    sent, calls, sums = 0, 0, 0

    def reduce(tensor: Tensor) -> None:
        nonlocal sums
        sums += 1

    def to_all(output: Tensor, tensor: Tensor, _: Sequence[int], sizes: Sequence[int]) -> None:
        nonlocal sent, calls
        sent, calls = sent + tensor.nbytes * sum(sizes[1:]) // sum(sizes), calls + 1
        output.zero_()

    P, D, activated = config.model.projection, config.model.hidden, round(images * CARDINALITY)
    assert D is not None
    targets_BL = (torch.arange(images * labels) < activated).view(images, labels).long()
    embeddings_BLP = torch.zeros(images, labels, P).requires_grad_()
    prototypes_LP = torch.zeros(labels, P)
    bank_MP, valid_L = torch.zeros(1, P), torch.ones(labels, dtype=torch.bool)
    output = mock.Mock(
        logits_BL=torch.zeros(images, labels),
        embeddings_BLP=embeddings_BLP,
        bank_MP=bank_MP,
        prototypes_LP=prototypes_LP,
        prototype_valid_L=valid_L,
        auxiliary_BL=(),
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
        share = Batch(
            torch.zeros(0),
            targets_BL,
            torch.ones(images),
            torch.arange(images),
            first_position=0,
            positive_index_A=torch.arange(activated),
            global_positive_index_G=torch.arange(activated).repeat(workers),
            shares=distributed.Shares([images] * workers, [activated] * workers),
        )
        assert share.shares is not None
        bank = memory.Memory(torch.zeros(1, D), place_M, place_M)
        build.criterion(config, 2, contrast=True)(output, share, bank).loss.backward()
        memory.gather(rows, share.shares.positives)
    return sent / (workers - 1), calls, sums


def operations(config: Config, labels: int, images: int, rows: int, kind: str = "") -> int:
    """Count the operations of one worker's forward and backward pass.

    Args:
        config: of the network.
        labels: their number.
        images: of the worker.
        rows: of the bank, which the worker projects.
        kind: counts only operators with this in their name, such as ``convolution``.
    """
    side = config.data.image_size
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
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
    counts = counter.get_flop_counts()["Global"]
    return int(sum(count for operator, count in counts.items() if kind in str(operator)))


def contrast_operations(config: Config, images: int, workers: int, bank: int) -> float:
    """Count the operations of Eq. 4 on one worker.

    They are three products of its anchors and all candidates (``losses/sample_to_sample.py``).

    Args:
        config: of the loss.
        images: of the worker.
        workers: their number.
        bank: rows of the bank.
    """
    activated = images * CARDINALITY
    anchors = activated + bank / workers * (config.loss.anchors_of_eq4 == "batch+bank")
    return 6 * anchors * (activated * workers + bank) * config.model.projection


def state(config: Config, labels: int, global_batch: int) -> tuple[int, int]:
    """Return the rows of a full bank that take part, and the bytes of bank and prototypes.

    ``matched`` rows are at most as many as the activated rows of the global batch.
    """
    scaled = config.override({"optim.batch_size": global_batch})
    assert scaled.model.hidden is not None
    with torch.device("meta"):
        bank = build.bank(scaled, labels, scaled.model.hidden, 1)
        network = build.model(scaled, labels, pretrained=False)
    assert network.prototypes is not None
    tensors = [*bank.buffers(), *network.prototypes.buffers(), *network.prototypes.parameters()]
    rows = bank.valid_KL.numel()
    if config.loss.candidates == "matched":
        rows = min(rows, round(global_batch * CARDINALITY))
    return rows, sum(tensor.nbytes for tensor in tensors)


def gradients(config: Config, labels: int) -> int:
    """Return the bytes that DDP averages."""
    with torch.device("meta"):
        network = build.model(config, labels, pretrained=False)
    return sum(parameter.nbytes for parameter in network.parameters() if parameter.requires_grad)


# --- the check


def check(steps: int, worlds: Sequence[int] = WORLDS) -> list[dict[str, Any]]:
    """Return the parts of the model and the real step for each number of processes.

    Args:
        steps: timed steps.
        worlds: numbers of processes.

    Raises:
        UserError: for fewer than one step.
    """
    if steps < 1:
        raise UserError(f"--steps {steps} is not possible: give at least 1.")
    results, size = [], gradients(SMALL, LABELS)
    for world in worlds:
        times = measure(world, steps)
        alone = statistics.median(times["alone"])
        load = Load(alone, size, *traffic(SMALL, LABELS, IMAGES // world))
        fabric = measured_fabric(times, world)
        model = {"parts": parts(load, fabric, world), "fabric": fabric}
        results.append({"workers": world, "real": times["together"], **model})
        console.print(f"{world} processes done", highlight=False)
    return results


def benchmark(quick: bool = False, steps: int = 5) -> list[Row]:
    """Return real steps and the model's in milliseconds; neither is better.

    ``quick`` measures one step of two processes.
    """
    return [
        Row(
            f"step against the model, {each['workers']} processes",
            1e3 * statistics.median(each["real"]),
            "ms",
            reference=1e3 * each["parts"].step,
        )
        for each in (check(1, (2,)) if quick else check(steps))
    ]


def print_check(results: list[dict[str, Any]]) -> None:
    """Print what :func:`check` returns."""
    columns = ("processes", "computation", "gradients", "gathers", "model", "real")
    table = Table(
        *columns,
        *("reality / model (range)", "gloo"),
        box=box.SIMPLE_HEAD,
        title="checked on this machine",
    )
    for each in results:
        model, real, fabric = each["parts"], each["real"], each["fabric"]
        ratios = [duration / model.step for duration in real]
        times = (model.compute, model.gradients, model.gathers, model.step)
        table.add_row(
            str(each["workers"]),
            *(f"{1e3 * duration:,.1f} ms" for duration in times),
            f"{1e3 * statistics.median(real):,.1f} ms",
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})",
            "" if fabric.inside == math.inf else f"{fabric.inside / 1e9:.2f} GB/s",
        )
    console.print(table)


# --- projections


def count(config: Config, images: int) -> projection.Counts:
    """Count what a step of a configuration does on a GPU with ``images`` images."""
    peer, calls, sums = traffic(config, LABELS, images)
    base = operations(config, LABELS, images, 0)
    return projection.Counts(
        gradients=gradients(config, LABELS),
        peer=peer,
        calls=calls,
        sums=sums,
        operations=base,
        convolutions=operations(config, LABELS, images, 0, "convolution"),
        row_operations=(operations(config, LABELS, images, 1000) - base) / 1000,
        contrast_operations=partial(contrast_operations, config, images),
        state=partial(state, config, LABELS),
    )


def parse_arguments() -> argparse.Namespace:
    """Read the command line.

    Raises:
        UserError: for a number that is not above 0.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images-per-second",
        type=float,
        help="speed of one GPU as step.py measured it (default: from its data sheet)",
    )
    parser.add_argument(
        "--gpu", choices=projection.KINDS, default="h100", help="data sheet (default: h100)"
    )
    parser.add_argument(
        "--dollars-per-gpu-hour",
        type=float,
        default=projection.DOLLARS,
        help=f"default: {projection.DOLLARS}",
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=64,
        help="images of a GPU (default: 64; the published run has 8 on 8 GPUs)",
    )
    parser.add_argument(
        "--steps", type=int, default=5, help="timed steps of the check (default: 5); 0 skips it"
    )
    options = parser.parse_args()
    for name in ("images_per_second", "dollars_per_gpu_hour", "batch"):
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} {value} is not possible: give a number above 0.")
    return options


def main() -> None:
    """Check the model on this machine, and print its projections."""
    options = parse_arguments()
    if options.steps:
        print_check(check(options.steps))
    slot = recipes.coco14()
    fifo = slot.override({"bank.policy": "fifo", "bank.size": 64, "loss.candidates": "all"})
    gpu = projection.KINDS[options.gpu]
    given = projection.Assumptions(
        options.batch, options.images_per_second, options.dollars_per_gpu_hour, gpu
    )
    print_assumptions(count(slot, options.batch), slot, given)
    for policy, config in (("slot", slot), ("fifo of 64", fifo)):
        counts = count(config, options.batch)
        for fabric in projection.FABRICS:
            lines = projection.project_counts(counts, config, fabric, given, projection.GPUS)
            projection.print_projection(lines, f"{fabric.name}; {policy}", gpu)


def print_assumptions(
    counts: projection.Counts, config: Config, given: projection.Assumptions
) -> None:
    """Print what the projections rest on."""
    speed = given.images / projection.compute_seconds(counts, given)
    share = speed * counts.operations / given.images / given.gpu.peak
    whence = "as given" if given.speed is not None else "from its data sheet, not measured"
    console.print(
        f"A model, not a measurement. ResNet-101, 448 px, {given.images} images on each "
        f"{given.gpu.name}: {counts.operations / 1e12:.1f} TFLOP a step, {speed:,.0f} images/s "
        f"({whence}; {share:.0%} of the peak); {counts.gradients / 1e6:.0f} MB of gradients "
        f"averaged; {counts.peer / 1e6:.2f} MB gathered to each other GPU in {counts.calls} "
        f"calls, and {counts.sums} small sums. A run is {config.stage1.epochs} + "
        f"{config.stage2.epochs} epochs of COCO 2014 with {config.data.holdout:.0%} held out; "
        "every step counts as one of stage 2 with a full bank, as late in a run. cores/GPU read "
        f"{projection.CORE:.0f} images/s each, and a GPU is assumed to have {projection.CORES}. "
        "outside: the share of a run in evaluation, first prototypes, test and saving. Banks: the "
        "recipe's (slot, matched rows), or fifo with 64 rows a label, all of which take part.",
        highlight=False,
    )


if __name__ == "__main__":
    from sadcl.console import guarded

    with guarded():
        main()
