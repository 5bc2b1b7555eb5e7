"""RandAugment: operations that are drawn at random, of two kinds, for one image or a batch.

Both kinds draw each operation alone, so that one may come twice. ``torchvision`` applies all of
them, at one magnitude. ``published`` is the package of the published run: 1 to 9 is drawn as the
magnitude of each operation, and a coin decides whether it is applied.

Axes: B images, S side in pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sadcl.config import Augmentation
from sadcl.data import pillow_operations, torchvision_operations
from sadcl.data.batch_step import BatchStep, index_of
from sadcl.data.torchvision_operations import Operation

OPERATIONS = {
    "torchvision": torchvision_operations.OPERATIONS,
    "published": pillow_operations.OPERATIONS,
}
"""The operations of each kind."""
_COLUMNS = {"torchvision": 2, "published": 4}
"""How many numbers each operation has in a plan: its index and its magnitude, and for ``published``
a row and a column. The index -1 is no operation."""


def columns(spec: Augmentation) -> int:
    """Return how many numbers the operations of an image have in its plan."""
    return spec.randaugment * _COLUMNS[spec.randaugment_kind]


def draw(spec: Augmentation, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the operations of one image.

    Args:
        spec: the augmentation.
        size: side S of the image in pixels.
        rng: the only source of randomness.

    Returns:
        float64 (columns,).
    """
    plan = np.zeros((spec.randaugment, _COLUMNS[spec.randaugment_kind]))
    for row in plan:
        if spec.randaugment_kind == "published":
            row[:] = _draw_published(size, rng)
        else:
            index = rng.integers(len(torchvision_operations.OPERATIONS))
            operation = torchvision_operations.OPERATIONS[index]
            row[:] = index, _magnitude(operation, spec.randaugment_magnitude, size, rng)
    return plan.flatten()


def _draw_published(size: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    index, strength = int(rng.integers(len(pillow_operations.OPERATIONS))), int(rng.integers(1, 10))
    if rng.random() >= 0.5:
        return -1, 0, 0, 0
    operation = pillow_operations.OPERATIONS[index]
    magnitude = _magnitude(operation, strength, size, rng)
    row, column = rng.integers(0, size, 2).tolist() if operation.placed else (0, 0)
    return index, magnitude, row, column


def _magnitude(operation: Operation, strength: int, size: int, rng: np.random.Generator) -> float:
    sign = -1 if operation.signed and rng.random() < 0.5 else 1
    return sign * operation.magnitude(strength, size)


def steps(plans: Tensor, spec: Augmentation, size: int) -> list[BatchStep]:
    """Return the operations that were drawn, the same ones together, in their order.

    Args:
        plans: float64 (B, columns) on the CPU, one row of :func:`draw` for each image.
        spec: the augmentation that the plans were drawn for.
        size: side S of the images in pixels.
    """
    operations, width = OPERATIONS[spec.randaugment_kind], _COLUMNS[spec.randaugment_kind]
    result = [BatchStep(Tensor.contiguous)]
    for plan in plans.split(width, dim=1):
        for index in plan[:, 0].unique().int().tolist():
            if index < 0:
                continue
            operation, chosen_B = operations[index], plan[:, 0] == index
            values = plan[chosen_B, 1 : 4 if operation.placed else 2]
            constants = operation.constants(size, *values.unbind(1))
            result.append(BatchStep(operation.function, constants, index_of(chosen_B)))
    return result
