"""Rank, sizes and gathers over torch.distributed.

Without a process group there is one worker, and every gather returns its own rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist


def rank() -> int:
    """Rank of this worker, 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Number of workers, 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def collectives_begun() -> int:
    """Number of collective calls that this worker has begun, those of DDP among them.

    Workers make the same calls in the same order, so that one that has begun fewer keeps the others
    waiting. With NCCL nothing else tells: the others wait wherever they next need a result. Another
    thread may ask, too.
    """
    if world_size() == 1:
        return 0
    group: Any = dist.distributed_c10d._get_default_group()
    return int(group._get_sequence_number_for_group())


def is_broken() -> bool:
    """Whether a collective was cut short by an error or a time limit, and may have left garbage.

    NCCL itself raises nothing then: the kernels of an aborted communicator return early.
    """
    if world_size() == 1:
        return False
    group = dist.distributed_c10d._get_default_group()
    backends = [group._get_backend(device) for device in group._device_types]
    return any(backend.get_error().name != "SUCCESS" for backend in backends)


def split(count: int, worker: int, workers: int) -> tuple[int, int]:
    """Start and stop of a worker's contiguous share; shares differ by at most one."""
    return count * worker // workers, count * (worker + 1) // workers


class Shares(NamedTuple):
    """How a global batch is split, in rank order: numbers that every host knows.

    Gathers take them as sizes, so that the workers need not ask each other, nor wait for a device.
    """

    images: list[int]
    """Images of each worker; an empty share has one that stands in."""
    positives: list[int]
    """Targets of real images that are 1, of each worker."""


def global_sum(values: Tensor) -> Tensor:
    """Sum over the workers, without gradient. This is a collective call."""
    total = values.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total


def all_gather_sizes(count: int, device: torch.device) -> list[int]:
    """Gather every worker's count, in rank order. This is a collective call."""
    if world_size() == 1:
        return [count]
    sizes = torch.zeros(world_size(), dtype=torch.int64, device=device)
    sizes[rank()] = count
    dist.all_reduce(sizes)
    size_list: list[int] = sizes.tolist()
    return size_list


def all_gather_rows(rows: Tensor, sizes: list[int] | None = None) -> Tensor:
    """Concatenate every worker's rows along the first axis, in rank order.

    Workers may have different numbers of rows, and none. This is a collective call with gradient: a
    worker's rows receive the sum over all workers of the gradient of the gathered tensor. The
    backward pass is a collective call too, so the gathered tensor must take part in the loss on
    every worker or on none.

    On a CPU (gloo) each row travels to each worker, without padding. On a GPU (NCCL) it travels
    once to each node, where the links between nodes are what is scarce; shares are padded to the
    largest.

    Args:
        rows: this worker's; the other axes and the type are the same on every worker.
        sizes: what :func:`all_gather_sizes` returned for these rows; None gathers the sizes here.
    """
    if world_size() == 1:
        return rows
    if rows.dtype == torch.bool:  # gloo does not carry it
        return all_gather_rows(rows.to(torch.uint8), sizes).bool()
    gather = _GatherRows if rows.device.type == "cpu" else _GatherPaddedRows
    gathered: Tensor = gather.apply(rows, sizes or all_gather_sizes(len(rows), rows.device))
    return gathered


class _GatherRows(torch.autograd.Function):
    """Gather by all-to-all with unequal parts, so that no padding travels."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        if not sum(sizes):
            return rows.clone()
        gathered = rows.new_empty((sum(sizes), *rows.shape[1:]))
        copies = rows.detach().repeat(len(sizes), *[1] * (rows.dim() - 1))
        dist.all_to_all_single(gathered, copies, sizes, [len(rows)] * len(sizes))
        return gathered

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,), sizes = gradients, ctx.sizes
        count, parts = sizes[rank()], len(sizes)
        received = gradient.new_empty((parts * count, *gradient.shape[1:]))
        if sum(sizes):
            dist.all_to_all_single(received, gradient.contiguous(), [count] * parts, sizes)
        return received.unflatten(0, (parts, count)).sum(0), None


class _GatherPaddedRows(torch.autograd.Function):
    """Gather by all-gather, of which NCCL sends each row into a node once.

    Backwards a worker receives the sum of its rows' gradients by reduce-scatter. The order of that
    sum is the backend's, and does not change from run to run on the same workers. No other worker
    computes it.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes, largest = sizes, max(sizes)
        if not largest:
            return rows.clone()
        gathered = rows.new_empty((len(sizes) * largest, *rows.shape[1:]))
        _all_gather(gathered, _pad(rows.detach(), [len(rows)], largest))
        if min(sizes) == largest:
            return gathered
        shares = zip(gathered.split(largest), sizes, strict=True)
        return torch.cat([share[:size] for share, size in shares])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,), sizes = gradients, ctx.sizes
        summed = gradient.new_empty((max(sizes), *gradient.shape[1:]))
        if len(summed):
            _reduce_scatter(summed, _pad(gradient, sizes, len(summed)))
        return summed[: sizes[rank()]], None


def _pad(rows: Tensor, sizes: list[int], size: int) -> Tensor:
    """Fill each of the consecutive shares up to ``size`` rows with zeros."""
    if min(sizes) == size:
        return rows.contiguous()
    zeros = rows.new_zeros((size - min(sizes), *rows.shape[1:]))
    shares = zip(rows.split(sizes), sizes, strict=True)
    return torch.cat([part for share, own in shares for part in (share, zeros[: size - own])])


def _all_gather(gathered: Tensor, rows: Tensor) -> None:
    name = "all_gather_single" if hasattr(dist, "all_gather_single") else "all_gather_into_tensor"
    getattr(dist, name)(gathered, rows)  # torch 2.14 renamed it


def _reduce_scatter(summed: Tensor, rows: Tensor) -> None:
    renamed = hasattr(dist, "reduce_scatter_single")
    getattr(dist, "reduce_scatter_single" if renamed else "reduce_scatter_tensor")(summed, rows)
