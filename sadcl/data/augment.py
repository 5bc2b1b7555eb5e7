"""Crop, flip, Cutout and RandAugment for one image or a batch, on a CPU or a GPU.

The augmentation of an image is drawn first, as a row of numbers (:func:`draw`), and applied
afterwards (:func:`apply`) by integer operations and by float operations that round once each. So an
image comes out the same alone, in any batch and on any device. The one exception is the resizing of
a crop, which is fixed-point on a CPU and float on a GPU: there a value may differ by one of its 256
levels.

Axes: B images, S side in pixels, W side before the crop.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from sadcl.config import Augmentation
from sadcl.data import randaugment
from sadcl.data.batch_step import BatchStep, index_of, run_steps

_TOP, _LEFT, _HEIGHT, _FLIP, _HOLE, _COLOUR, _OPERATIONS = 0, 1, 2, 3, 4, 6, 9
"""Columns of a plan. ``_HOLE`` has two columns, ``_COLOUR`` three, and after ``_OPERATIONS`` come
those of :func:`sadcl.data.randaugment.draw`. The last column of a crop with two sides is its
width."""
_DISTORTION = 2
"""Width and height of a distorted crop are at most so many shares apart."""
_SNAP = 3
"""A side of a distorted crop that is closer than this to the input side, in pixels, is the input
side."""
_PLACES = tuple((i, j) for i in range(5) for j in range(5) if i % 2 == j % 2)
"""Places of a distorted crop, down and to the right, in quarters of the space that it leaves: the
corners, the middles of the sides, the centre, and four points halfway to the corners."""


def resize(images: Tensor, side: int) -> Tensor:
    """Resize uint8 images (..., 3, height, width) to squares, bilinear with antialiasing."""
    if images.shape[-2:] == (side, side):
        return images
    return F.resize(
        images, [side, side], interpolation=v2.InterpolationMode.BILINEAR, antialias=True
    )


def augment(image: Tensor, spec: Augmentation, size: int, rng: np.random.Generator) -> Tensor:
    """Crop, flip, cut a hole and apply RandAugment, in this order; the argument is not changed.

    Args:
        image: uint8 (3, W, W), already resized to ``spec.resize``.
        spec: the augmentation.
        size: side S of the result in pixels.
        rng: the only source of randomness.

    Returns:
        uint8 (3, S, S).
    """
    return apply(image[None], draw(spec, image.shape[-1], size, rng)[None], spec, size)[0]


def draw(spec: Augmentation, whole: int, size: int, rng: np.random.Generator) -> Tensor:
    """Draw the plan of one image's augmentation.

    Args:
        spec: the augmentation.
        whole: side W of the image that is cropped, in pixels.
        size: side S of the result in pixels.
        rng: the only source of randomness.

    Returns:
        float64 (columns,).
    """
    plan = np.zeros(_OPERATIONS)
    top, left, height, width = 0, 0, whole, whole
    if spec.multiscale and spec.multiscale_kind == "distorted":
        top, left, height, width = _draw_distorted(spec.multiscale, whole, size, rng)
    elif spec.multiscale:
        top, left, height, width = _draw_square(spec.multiscale, whole, rng)
    plan[: _HEIGHT + 1] = top, left, height
    if spec.flip:
        plan[_FLIP] = rng.random() < 0.5
    if spec.cutout:
        plan[_HOLE : _HOLE + 2] = rng.integers(0, size, 2) - round(spec.cutout * size) // 2
        plan[_COLOUR : _COLOUR + 3] = rng.integers(0, 256, 3)
    last = [width] if spec.multiscale_kind == "distorted" else []
    return torch.from_numpy(np.concatenate([plan, randaugment.draw(spec, size, rng), last]))


def _draw_square(
    shares: tuple[float, ...], whole: int, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a square at any place."""
    side = max(round(whole * shares[rng.integers(len(shares))]), 1)
    top, left = rng.integers(0, whole - side + 1, 2)
    return top, left, side, side


def _draw_distorted(
    shares: tuple[float, ...], whole: int, size: int, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a crop whose sides are at most two shares apart.

    All pairs of sides are equally likely, and so are all places. With five shares, 14 of the 19
    pairs are not square.

    Source: Wang et al., Temporal Segment Networks, 2016. Its code has the 13 places ("more fixed
    crops") and allows sides that are one share apart; the published run allows two.
    """
    sides = [max(int(whole * share), 1) for share in shares]
    sides = [size if abs(side - size) < _SNAP and size <= whole else side for side in sides]
    pairs = [
        (height, width)
        for i, height in enumerate(sides)
        for width in sides[max(i - _DISTORTION, 0) : i + _DISTORTION + 1]
    ]
    height, width = pairs[rng.integers(len(pairs))]
    down, right = _PLACES[rng.integers(len(_PLACES))]
    return (whole - height) // 4 * down, (whole - width) // 4 * right, height, width


def apply(images: Tensor, plans: Tensor, spec: Augmentation, size: int) -> Tensor:
    """Apply the augmentations that were drawn.

    Args:
        images: uint8 (B, 3, W, W), on any device.
        plans: (B, columns) on the CPU, one row of :func:`draw` for each image.
        spec: the augmentation that the plans were drawn for.
        size: side S of the result in pixels.

    Returns:
        uint8 (B, 3, S, S), on the same device.
    """
    return run_steps(_steps(plans, spec, size), images)


def _steps(plans: Tensor, spec: Augmentation, size: int) -> list[BatchStep]:
    """Return what the plans do, in its order."""
    steps = []
    if spec.multiscale:
        widths = plans[:, -1 if spec.multiscale_kind == "distorted" else _HEIGHT]
        windows = torch.column_stack([plans[:, : _HEIGHT + 1], widths])
        steps.append(_crop_step(windows.int().tolist(), size))
    steps.append(BatchStep(resize, (size,)))
    if spec.flip and bool(plans[:, _FLIP].any()):
        steps.append(BatchStep(_mirror, (), index_of(plans[:, _FLIP] > 0)))
    if spec.cutout:
        colours = plans[:, _COLOUR : _COLOUR + 3].to(torch.uint8)[:, :, None, None]
        corners = plans[:, _HOLE : _HOLE + 2].int().tolist()
        steps.append(BatchStep(_cut, (colours, corners, round(spec.cutout * size))))
    if spec.randaugment:
        operations = plans[:, _OPERATIONS : _OPERATIONS + randaugment.columns(spec)]
        steps += randaugment.steps(operations, spec, size)
    return steps


def _mirror(images: Tensor) -> Tensor:
    return images.flip(-1)


def _crop_step(windows: list[list[int]], size: int) -> BatchStep:
    """Return the step that crops each image to (top, left, height, width)."""
    sides = sorted({(height, width) for _, _, height, width in windows})
    groups = [[i for i, w in enumerate(windows) if (w[2], w[3]) == side] for side in sides]
    return BatchStep(_crop, (windows, size, groups, *map(torch.tensor, groups)))


def _crop(
    images: Tensor, windows: list[list[int]], size: int, groups: list[list[int]], *index_b: Tensor
) -> Tensor:
    """Crop each image; windows of the same sides are a group, and are resized together."""
    out = images.new_empty((len(images), 3, size, size))
    for index, on_device_b in zip(groups, index_b, strict=True):
        _, _, height, width = windows[index[0]]
        crops = torch.empty((len(index), 3, height, width), dtype=torch.uint8, device=images.device)
        # bytes are resized fast in this memory format
        crops = crops.contiguous(memory_format=torch.channels_last)
        for crop, i in zip(crops, index, strict=True):
            top, left, _, _ = windows[i]
            crop.copy_(images[i, :, top : top + height, left : left + width])
        resized = resize(crops, size)
        if len(index) == len(images):
            return resized
        out[on_device_b] = resized
    return out


def _cut(images: Tensor, colours: Tensor, corners: list[list[int]], side: int) -> Tensor:
    """Cut a square hole of one random colour into each image.

    Its centre lies anywhere, and the part beyond the border is cut off. In the source the hole is
    zero after normalisation; the method's released code fills it with a random colour, and so do
    we. That code's rectangle includes its last row and column, so that its hole of 224 pixels has
    225; ours has 224.

    Source: DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with
    Cutout, 2017.
    """
    images = images.clone()
    for image, colour, (top, left) in zip(images, colours, corners, strict=True):
        image[:, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = colour
    return images
