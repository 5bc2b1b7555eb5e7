"""The arithmetic of a training step on W GPUs; :mod:`scaling` counts what goes into it.

A step is computation, then the part of the gradients' all-reduce that the backward pass could not
hide, then the gathers of both contrasts and of the bank; and it is no shorter than the input takes.
A gather is an all-gather forward and a reduce-scatter backward, both as rings through all GPUs, so
that each row crosses the link into a node once. A run is steps and what lies between the epochs.

Axes: W workers.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass

BACKWARD = 2 / 3
"""Share of a step's computation in the backward pass: two products for each of the forward pass."""
BUCKET = 25 << 20
"""Bytes of DDP's buckets (torch's default). Nothing is left to hide the last one."""


@dataclass(frozen=True)
class Fabric:
    """How GPUs are connected.

    Attributes:
        name: for the table.
        gpus: of a node.
        inside: bytes a second that a GPU sends to others of its node.
        inside_latency: seconds of a message inside a node.
        between: bytes a second that a node sends to others.
        latency: seconds of a message between nodes.
        hidden: whether the backward pass continues while gradients are sent.
    """

    name: str
    gpus: int
    inside: float
    inside_latency: float
    between: float
    latency: float
    hidden: bool = True


@dataclass(frozen=True)
class Load:
    """What a step asks of each worker.

    Attributes:
        compute: seconds without communication.
        gradients: bytes that are averaged.
        peer: bytes that the gathers bring to each other worker.
        calls: gathers that carry them.
        sums: small all-reduces of the loss and of sizes.
        bank: seconds for the bank's rows and Eq. 4 that are not in ``compute``; 0 if they are in
            it.
    """

    compute: float
    gradients: float
    peer: float
    calls: int
    sums: int = 0
    bank: float = 0.0


@dataclass(frozen=True)
class Parts:
    """The seconds of a step by what they are spent on."""

    compute: float
    bank: float
    gradients: float
    gathers: float
    input: float

    @property
    def without_input(self) -> float:
        """Seconds of the step where the input is always there."""
        return self.compute + self.bank + self.gradients + self.gathers

    @property
    def step(self) -> float:
        """Seconds of the whole step."""
        return max(self.without_input, self.input)

    @property
    def largest(self) -> str:
        """The part that takes longest."""
        if self.input >= self.step:
            return "input"
        times = {name: value for name, value in asdict(self).items() if name != "input"}
        return max(times, key=lambda name: times[name])


def delay(fabric: Fabric, workers: int) -> float:
    """Return the seconds of an empty collective: trees inside the nodes and one between them."""
    inside, nodes = min(workers, fabric.gpus), math.ceil(workers / fabric.gpus)
    return 2 * (
        math.ceil(math.log2(inside)) * fabric.inside_latency
        + math.ceil(math.log2(nodes)) * fabric.latency
    )


def all_reduce(size: float, fabric: Fabric, workers: int) -> float:
    """Return the seconds of a sum of ``size`` bytes: a ring inside each node, one between nodes."""
    inside, nodes = min(workers, fabric.gpus), math.ceil(workers / fabric.gpus)
    transfer = (
        2 * (inside - 1) / inside * size / fabric.inside
        + 2 * (nodes - 1) / nodes * size / fabric.between
    )
    return transfer + delay(fabric, workers)


def ring_delay(fabric: Fabric, workers: int) -> float:
    """Return the seconds of an empty gather: a ring visits all GPUs of a node, then the next node.

    NCCL has no trees for all-gather and reduce-scatter of several GPUs a node.
    """
    nodes = math.ceil(workers / fabric.gpus)
    return (workers - nodes) * fabric.inside_latency + (nodes - 1) * fabric.latency


def gathers(peer: float, calls: int, fabric: Fabric, workers: int) -> float:
    """Return the seconds of the gathers.

    Each worker's ``peer`` bytes reach each other worker, in ``calls`` collectives. They cross the
    link into a node once, and inside it go from GPU to GPU. The slower of both links sets the pace
    of the ring.
    """
    inside = min(workers, fabric.gpus)
    within = (workers - 1) * peer / fabric.inside
    between = (workers - inside) * peer / fabric.between
    return max(within, between) + calls * ring_delay(fabric, workers)


def padding(labels: float, workers: int) -> float:
    """Return the largest share of the positives relative to the mean; the others are padded to it.

    Shares are taken as independent Poisson numbers: the largest of W exceeds the mean by about
    sqrt(2 ln W) standard deviations.

    Args:
        labels: mean number of positives of a share.
        workers: number of shares.
    """
    return 1 + math.sqrt(2 * math.log(workers) / labels)


def parts(load: Load, fabric: Fabric, workers: int, read: float = 0.0) -> Parts:
    """Return the parts of a step.

    Args:
        load: of each worker.
        fabric: between them.
        workers: their number.
        read: seconds that the input of a worker takes.
    """
    if workers == 1:
        return Parts(load.compute, load.bank, 0.0, 0.0, read)
    sums = all_reduce(load.gradients, fabric, workers)
    if fabric.hidden:
        last = all_reduce(min(BUCKET, load.gradients), fabric, workers)
        sums = max(sums - BACKWARD * (load.compute + load.bank), last)
    exchange = gathers(load.peer, load.calls, fabric, workers) + load.sums * delay(fabric, workers)
    return Parts(load.compute, load.bank, sums, exchange, read)


@dataclass(frozen=True)
class Between:
    """What a run does outside its steps.

    Attributes:
        evaluation: seconds after each epoch for the held-out images.
        copy: seconds after each epoch in which all wait for the copy of the state.
        write: seconds in which it is written, while the next epoch trains.
        once: seconds of a run for the first prototypes and the test images.
    """

    evaluation: float
    copy: float
    write: float
    once: float


def run_seconds(training: float, between: Between, epochs: int, stages: int = 2) -> float:
    """Return the seconds of a run; an epoch is no shorter than its state takes to be written.

    Args:
        training: seconds of an epoch's steps.
        between: the rest.
        epochs: of all stages together.
        stages: each waits at its end for the last state.
    """
    epoch = max(training + between.evaluation, between.write) + between.copy
    return epochs * epoch + stages * between.write + between.once


def pass_seconds(images: int, share: int, workers: int, compute: float, read: float) -> float:
    """Return the seconds in which all workers pass ``images`` through the network.

    Args:
        images: of all workers.
        share: images of a worker's batch.
        workers: their number.
        compute: seconds that a worker computes on a batch.
        read: seconds that the input of a batch takes.
    """
    return math.ceil(images / (share * workers)) * max(compute, read)


def measured_fabric(times: dict[str, list[float]], world: int) -> Fabric:
    """Return the fabric of gloo on this machine, from the times of its reductions."""
    if world == 1:
        return Fabric("one machine", world, math.inf, 0.0, math.inf, 0.0)
    nothing, megabytes = (statistics.median(times[name]) for name in ("nothing", "megabytes"))
    rate = 2 * (world - 1) / world * (16 << 20) / max(megabytes - nothing, 1e-9)
    latency = nothing / 2 / math.ceil(math.log2(world))
    return Fabric("gloo", world, rate, latency, rate, 0.0, hidden=False)
