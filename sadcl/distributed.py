"""Rank, sizes and gathers over torch.distributed; without a process group everything is the one worker's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def split(count: int, worker: int, workers: int) -> tuple[int, int]:
    """Start and stop of a worker's contiguous share; shares differ by at most one."""
    return count * worker // workers, count * (worker + 1) // workers


def global_sum(values: Tensor) -> Tensor:
    """Sum over the workers, without gradient."""
    total = values.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total


def all_gather_sizes(count: int, device: torch.device) -> list[int]:
    """Every worker's count, in rank order."""
    if world_size() == 1:
        return [count]
    sizes = torch.zeros(world_size(), dtype=torch.int64, device=device)
    sizes[rank()] = count
    dist.all_reduce(sizes)
    found: list[int] = sizes.tolist()
    return found


def all_gather_rows(rows: Tensor, sizes: list[int] | None = None) -> Tensor:
    """Every worker's rows, concatenated along the first axis in rank order; numbers of rows may differ, also be none.

    With gradient: a worker's rows receive the sum over all workers of the gradient of the gathered tensor. The backward
    pass is a collective call too, so what is gathered takes part in the loss on every worker or on none.

    Args:
        rows: this worker's; the other axes and the type are the same everywhere.
        sizes: what :func:`all_gather_sizes` gave for these rows, where it was asked already.
    """
    if world_size() == 1:
        return rows
    if rows.dtype == torch.bool:  # which gloo does not carry
        return all_gather_rows(rows.to(torch.uint8), sizes).bool()
    gathered: Tensor = _GatherRows.apply(rows, sizes or all_gather_sizes(len(rows), rows.device))
    return gathered


class _GatherRows(torch.autograd.Function):
    """By all-to-all with unequal parts: exactly the rows travel, whatever their number on each worker."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        if not sum(sizes):
            return rows.clone()
        everyone = rows.new_empty((sum(sizes), *rows.shape[1:]))
        mine = rows.detach().repeat(len(sizes), *[1] * (rows.dim() - 1))
        dist.all_to_all_single(everyone, mine, sizes, [len(rows)] * len(sizes))
        return everyone

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,), sizes = gradients, ctx.sizes
        count, parts = sizes[rank()], len(sizes)
        received = gradient.new_empty((parts * count, *gradient.shape[1:]))
        if sum(sizes):
            dist.all_to_all_single(received, gradient.contiguous(), [count] * parts, sizes)
        return received.unflatten(0, (parts, count)).sum(0), None
