"""The share of a GPU's memory that a trial may take."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from sadcl.study.placement import Placement

UNCOUNTED_BYTES = 2**30
"""Memory of a GPU that a process takes and PyTorch does not count."""


@contextlib.contextmanager
def gpu_memory(placement: Placement) -> Iterator[None]:
    """Keep to the placement's fraction of a GPU for as long as the block runs.

    The trial that takes too much then runs out of memory, and not the one beside it. What PyTorch
    does not count, such as the CUDA context, has a part of the fraction.
    """
    if not 0 < placement.gpus < 1 or not torch.cuda.is_available():
        yield
        return
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    share = max(placement.gpus - UNCOUNTED_BYTES / total, placement.gpus / 2)
    torch.cuda.set_per_process_memory_fraction(share)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
