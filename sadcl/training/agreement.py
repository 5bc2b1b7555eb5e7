"""Proof, while training, that all workers hold the same bank and prototypes to the bit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sadcl import distributed

CHUNK = 1 << 22
"""Elements looked at together, so that a large bank needs no copy of itself."""


class Disagreement(RuntimeError):
    """State that must be equal on all workers is not."""


def fingerprint(tensor: Tensor) -> Tensor:
    """A 64-bit sum over the raw bits, weighted by position, so that a changed bit or two swapped rows show."""
    flat = tensor.detach().contiguous().view(-1)
    bits = flat.view(torch.uint8 if flat.element_size() % 4 else torch.int32)
    total = torch.zeros((), dtype=torch.int64, device=bits.device)
    for start in range(0, len(bits), CHUNK):
        part = bits[start : start + CHUNK]
        total += (part * (torch.arange(start, start + len(part), device=bits.device) * 2654435761 + 1)).sum()
    return total


def check(tensors: Mapping[str, Tensor], step: int) -> None:
    """Compare fingerprints with the first worker's.

    Raises:
        Disagreement: naming tensor and worker, on all workers alike.
    """
    if distributed.world_size() == 1 or not tensors:
        return
    mine = torch.stack([fingerprint(t) for t in tensors.values()])
    everyone = distributed.all_gather_rows(mine[None])
    wrong = (everyone != everyone[0]).nonzero()
    if len(wrong):
        worker, which = (int(i) for i in wrong[0])
        raise Disagreement(
            f"After step {step} worker {worker} holds another {list(tensors)[which]!r} than worker 0: the run stops "
            "because from here on it would not be the experiment that it claims to be."
        )
