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
    return [int(size) for size in sizes]


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
    gathered: Tensor = _GatherRows.apply(rows, sizes or all_gather_sizes(len(rows), rows.device))
    return gathered


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int]) -> Tensor:
        ctx.start, ctx.count, longest = sum(sizes[: rank()]), len(rows), max(sizes)
        if longest == 0:
            return rows.clone()
        padded = rows.new_zeros((longest, *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        if len(total):
            dist.all_reduce(total)
        return total[ctx.start : ctx.start + ctx.count], None
