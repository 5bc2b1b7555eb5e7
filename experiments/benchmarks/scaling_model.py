"""The arithmetic of a training step on W GPUs; :mod:`scaling` counts what goes into it.

A step is computation, then the part of the gradients' all-reduce that the backward pass could not
hide, then the gathers of both contrasts and of the bank; and it is no shorter than the input takes.

Axes: W workers.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass

BACKWARD = 2 / 3
"""Share of a step's computation in the backward pass: two products for each of the forward pass."""
BUCKET = 100 << 20
"""Bytes of DDP's buckets on a GPU. Nothing is left to hide the last one."""


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
        peer: bytes that the gathers send to each other worker.
        calls: collectives that carry them, and the sums of the loss.
        bank: seconds for the bank's rows and Eq. 4 that are not in ``compute``; 0 if they are in
            it.
    """

    compute: float
    gradients: float
    peer: float
    calls: int
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
    def step(self) -> float:
        """Seconds of the whole step."""
        return max(self.compute + self.bank + self.gradients + self.gathers, self.input)

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


def gathers(peer: float, calls: int, fabric: Fabric, workers: int) -> float:
    """Return the seconds of the gathers.

    Each worker has ``peer`` bytes for each other worker, in ``calls`` collectives. A node receives
    each of them once. The padding of unequal shares is left out.
    """
    inside = min(workers, fabric.gpus)
    between = (workers - inside) * peer / fabric.between
    return (inside - 1) * peer / fabric.inside + between + calls * delay(fabric, workers)


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
    return Parts(
        load.compute, load.bank, sums, gathers(load.peer, load.calls, fabric, workers), read
    )


def measured_fabric(times: dict[str, list[float]], world: int) -> Fabric:
    """Return the fabric of gloo on this machine, from the times of its reductions."""
    if world == 1:
        return Fabric("one machine", world, math.inf, 0.0, math.inf, 0.0)
    nothing, megabytes = (statistics.median(times[name]) for name in ("nothing", "megabytes"))
    rate = 2 * (world - 1) / world * (16 << 20) / max(megabytes - nothing, 1e-9)
    latency = nothing / 2 / math.ceil(math.log2(world))
    return Fabric("gloo", world, rate, latency, rate, 0.0, hidden=False)
