"""Check during training that all workers hold the same bank, prototypes and weights, bit by bit."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

from sadcl import distributed

CHUNK = 1 << 20
"""Words that are summed together, so that a large bank needs no copy of itself."""


class Disagreement(RuntimeError):
    """State that must be equal on all workers is not.

    Args:
        step: the step after which it was found.
        worker: rank of the first worker that differs from worker 0.
        tensor: name of the first tensor that differs.
    """

    def __init__(self, step: int, worker: int, tensor: str) -> None:
        super().__init__(step, worker, tensor)
        self.step, self.worker, self.tensor = step, worker, tensor

    def __str__(self) -> str:
        return (
            f"After step {self.step} worker {self.worker} holds another {self.tensor!r} than "
            "worker 0: the run stops because its results would not be those of the experiment."
        )


def fingerprint(tensor: Tensor) -> Tensor:
    """Sum the raw bits into 64, weighted by position: a changed bit or two swapped rows show."""
    flat = tensor.detach().contiguous().view(-1)
    word_type = next(
        kind for kind in (torch.int64, torch.int32, torch.uint8) if flat.nbytes % kind.itemsize == 0
    )
    words = flat.view(torch.uint8).view(word_type)
    total = torch.zeros((), dtype=torch.int64, device=words.device)
    for chunk, part in enumerate(words.split(CHUNK)):
        total += (2 * chunk + 1) * (part * _position_weights(words.device)[: len(part)]).sum()
    return total


@cache
def _position_weights(device: torch.device) -> Tensor:
    """Odd weights, so that no changed bit is multiplied away."""
    return torch.arange(CHUNK, device=device) * (2 * 2654435761) + 1


def check_replicas(tensors: Mapping[str, Tensor], step: int) -> None:
    """Compare the fingerprints of all workers with the first one's. This is a collective call.

    Args:
        tensors: what must be equal, by name.
        step: steps done, for the message.

    Raises:
        Disagreement: naming tensor and worker, on all workers alike.
    """
    if distributed.world_size() == 1 or not tensors:
        return
    local = torch.stack([fingerprint(tensor) for tensor in tensors.values()])
    fingerprints = distributed.all_gather_rows(local[None])
    mismatches = (fingerprints != fingerprints[0]).nonzero()
    if len(mismatches):
        worker, number = (int(i) for i in mismatches[0])
        raise Disagreement(step, worker, list(tensors)[number])
