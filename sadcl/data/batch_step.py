"""A step of the augmentation of a batch: decided on the host, done where the images are.

Axes: B images, b those of them that a step changes, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from sadcl.data.one_copy import send_together


class BatchStep(NamedTuple):
    """What is done to some images of a batch."""

    function: Callable[..., Tensor]
    """Of these images, uint8 (b, 3, S, S), and the constants; it leaves both unchanged."""
    constants: tuple[Any, ...] = ()
    """What it needs beside the images: tensors on their device, and values that the host needs."""
    index_b: Tensor | None = None
    """int64: positions of the images in the batch; None is all of them."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return all images (B, 3, S, S) of the batch, with the changed ones replaced."""
        if self.index_b is None:
            return self.function(images, *self.constants)
        part = images.index_select(0, self.index_b)
        return images.index_copy(0, self.index_b, self.function(part, *self.constants))


def index_of(chosen_B: Tensor) -> Tensor | None:
    """Return the positions of the images that are chosen, as a step has them."""
    return None if bool(chosen_B.all()) else chosen_B.nonzero()[:, 0]


def run_steps(steps: Sequence[BatchStep], images: Tensor) -> Tensor:
    """Run steps, whose tensors are on the CPU, on images on any device; one copy takes them there.

    Args:
        steps: in their order.
        images: uint8 (B, 3, S, S), unchanged.
    """
    used = [value for step in steps for value in (step.index_b, *step.constants)]
    host = {id(value): value for value in used if isinstance(value, Tensor)}
    sent = dict(zip(host, send_together(list(host.values()), images.device), strict=True))
    for step in steps:
        index_b, *constants = (sent.get(id(v), v) for v in (step.index_b, *step.constants))
        images = BatchStep(step.function, tuple(constants), index_b)(images)
    return images
