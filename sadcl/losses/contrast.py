"""What both contrasts share.

Axes: N images, L labels, P embedding size, A positives.
"""

from __future__ import annotations

from torch import Tensor

from sadcl import distributed

ZERO = 1e-12
"""A row of at most this length has no direction: it is compared as zero and gets no gradient."""


def safe_inverse(length: Tensor) -> Tensor:
    """1 / length, and 0 for a length of at most ``ZERO``."""
    return (length > ZERO) / length.clamp(min=ZERO)


def positive_index(targets: Tensor) -> Tensor:
    """Find the targets that are 1; the host waits for their number.

    Returns:
        (A,) indices into the flattened (images, labels) axes.
    """
    return (targets == 1).flatten().nonzero()[:, 0]


def check_contrast(
    embeddings: Tensor,
    targets: Tensor,
    temperature: float,
    reduction: str,
    reductions: tuple[str, ...] = ("mean", "sum"),
) -> None:
    """Raise ValueError for arguments that no contrast accepts."""
    if embeddings.dim() != 3 or embeddings.shape[:2] != targets.shape:
        raise ValueError(
            "embeddings must be (N, L, P) and targets (N, L), but got "
            f"{tuple(embeddings.shape)} and {tuple(targets.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature > 0 must hold, but got {temperature}")
    if reduction not in reductions:
        raise ValueError(
            f"reduction must be {' or '.join(map(repr, reductions))}, but got {reduction!r}"
        )


def reduce_globally(total: Tensor, count: Tensor, reduction: str) -> Tensor:
    """A worker's loss from its sum and count: W times its share of the global loss of W workers."""
    divisor = 1 if reduction == "sum" else distributed.global_sum(count).clamp(min=1)
    return distributed.world_size() * total / divisor
