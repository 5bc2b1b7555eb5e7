"""Proof, while training, that all workers hold the same bank, prototypes and weights to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

from sadcl import distributed

CHUNK = 1 << 20
"""Words looked at together, so that a large bank needs no copy of itself."""


class Disagreement(RuntimeError):
    """State that must be equal on all workers is not."""


def fingerprint(tensor: Tensor) -> Tensor:
    """A 64-bit sum over the raw bits, weighted by position, so that a changed bit or two swapped rows show."""
    flat = tensor.detach().contiguous().view(-1)
    words = next(
        kind for kind in (torch.int64, torch.int32, torch.uint8) if flat.nbytes % kind.itemsize == 0
    )
    bits = flat.view(torch.uint8).view(words)
    total = torch.zeros((), dtype=torch.int64, device=bits.device)
    for chunk, part in enumerate(bits.split(CHUNK)):
        total += (2 * chunk + 1) * (part * _position_weights(bits.device)[: len(part)]).sum()
    return total


@cache
def _position_weights(device: torch.device) -> Tensor:
    """Odd, so that no changed bit is multiplied away."""
    return torch.arange(CHUNK, device=device) * (2 * 2654435761) + 1


def check_replicas(tensors: Mapping[str, Tensor], step: int) -> None:
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
