"""Crop, flip, Cutout and RandAugment for one image or a batch, on a CPU or a GPU.

The augmentation of an image is drawn first, as a row of numbers (:func:`draw`), and applied
afterwards (:func:`apply`) by integer operations and by float operations that round once each. So an
image comes out the same alone, in any batch and on any device. The one exception is the resizing of
a crop, which is fixed-point on a CPU and float on a GPU: there a value may differ by one of its 256
levels.

Axes: B images, S side in pixels, W side before the crop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from sadcl.config import Augmentation

_TOP, _LEFT, _SIDE, _FLIP, _HOLE, _COLOUR, _OPERATIONS = 0, 1, 2, 3, 4, 6, 9
"""Columns of a plan. ``_HOLE`` has two columns, ``_COLOUR`` three, and each operation two: its
number and its magnitude."""
_BINS = 30
"""The largest of RandAugment's magnitudes."""


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
    plan = np.zeros(_OPERATIONS + 2 * spec.randaugment)
    plan[_SIDE] = whole
    if spec.multiscale:
        plan[_SIDE] = side = max(
            round(whole * spec.multiscale[rng.integers(len(spec.multiscale))]), 1
        )
        plan[_TOP : _LEFT + 1] = rng.integers(0, whole - side + 1, 2)
    if spec.flip:
        plan[_FLIP] = rng.random() < 0.5
    if spec.cutout:
        plan[_HOLE : _HOLE + 2] = rng.integers(0, size, 2) - round(spec.cutout * size) // 2
        plan[_COLOUR : _COLOUR + 3] = rng.integers(0, 256, 3)
    for column in range(_OPERATIONS, len(plan), 2):
        number = rng.integers(len(OPERATIONS))
        _, magnitude, signed = OPERATIONS[number]
        sign = -1 if signed and rng.random() < 0.5 else 1
        plan[column : column + 2] = number, sign * magnitude(spec.randaugment_magnitude, size)
    return torch.from_numpy(plan)


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
    if spec.multiscale:
        images = _crop(images, plans, size)
    images = resize(images, size)
    if spec.flip:
        images = _apply_to(images, plans[:, _FLIP] > 0, lambda part, _: part.flip(-1))
    if spec.cutout:
        images = _cut(images, plans, round(spec.cutout * size))
    if spec.randaugment:
        images = images.contiguous()
    for column in range(_OPERATIONS, plans.shape[1], 2):
        for number in plans[:, column].unique().int().tolist():
            operation, magnitude = OPERATIONS[number][0], plans[:, column + 1]
            chosen = plans[:, column] == number
            images = _apply_to(images, chosen, partial(_operate, operation, magnitude))
    return images


def _operate(
    operation: Callable[..., Tensor], magnitude_B: Tensor, images: Tensor, chosen_B: Tensor
) -> Tensor:
    return operation(images, magnitude_B[chosen_B])


def _apply_to(
    images: Tensor, chosen_B: Tensor, function: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Replace the chosen images by what the function makes of them."""
    if not bool(chosen_B.any()):
        return images
    if bool(chosen_B.all()):
        return function(images, chosen_B)
    index = chosen_B.nonzero()[:, 0].to(images.device)
    return images.index_copy(0, index, function(images.index_select(0, index), chosen_B))


def _crop(images: Tensor, plans: Tensor, size: int) -> Tensor:
    """Crop each image; windows of the same side are resized together."""
    out = images.new_empty((len(images), 3, size, size))
    windows = plans[:, : _SIDE + 1].int().tolist()
    for side in {side for _, _, side in windows}:
        index = [i for i, window in enumerate(windows) if window[2] == side]
        crops = torch.empty((len(index), 3, side, side), dtype=torch.uint8, device=images.device)
        # bytes are resized fast in this memory format
        crops = crops.contiguous(memory_format=torch.channels_last)
        for crop, i in zip(crops, index, strict=True):
            top, left, _ = windows[i]
            crop.copy_(images[i, :, top : top + side, left : left + side])
        resized = resize(crops, size)
        if len(index) == len(images):
            return resized
        out[torch.tensor(index, device=images.device)] = resized
    return out


def _cut(images: Tensor, plans: Tensor, side: int) -> Tensor:
    """Cut a square hole of one random colour into each image.

    Its centre lies anywhere, and the part beyond the border is cut off. In the source the hole is
    zero after normalisation; the method's released code fills it with a random colour, and so do
    we.

    Source: DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with
    Cutout, 2017.
    """
    images = images.clone()
    colours = plans[:, _COLOUR : _COLOUR + 3].to(torch.uint8).to(images.device)[:, :, None, None]
    for image, colour, (top, left) in zip(
        images, colours, plans[:, _HOLE : _HOLE + 2].int().tolist(), strict=True
    ):
        image[:, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = colour
    return images


def _identity(images: Tensor, magnitude: Tensor) -> Tensor:
    return images


_Matrix = tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]


def _affine(
    matrix: Callable[[NDArray[np.float64], int], _Matrix],
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return an operation that takes the nearest pixels under an affine map, and zeros outside.

    Args:
        matrix: gives for magnitudes (B,) and the side S the map from positions (x, y, 1) in the
            result to positions in the image, both relative to the centre: two rows of three numbers
            or (B,) arrays.
    """

    def operation(images: Tensor, magnitude: Tensor) -> Tensor:
        B, S = len(images), images.shape[-1]
        m_B23 = np.empty((B, 2, 3))
        for axis, row in enumerate(matrix(magnitude.numpy(), S)):
            for column, value in enumerate(row):
                m_B23[:, axis, column] = value
        at_S = np.arange(S) - (S - 1) / 2
        middle = (S - 1) / 2 + 1.5  # 1 for the border of zeros, and a half to round
        parts = (m_B23[..., :1] * at_S, m_B23[..., 1:2] * at_S + m_B23[..., 2:] + middle)
        along, across = (
            torch.from_numpy((p * 2**16).round().astype(np.int32)).to(images.device) for p in parts
        )
        x_y = (
            (along[:, :, None, :] + across[:, :, :, None]).bitwise_right_shift_(16).clamp_(0, S + 1)
        )
        index = (x_y[:, 1] * (S + 2)).add_(x_y[:, 0]).flatten(1).long()
        padded = torch.nn.functional.pad(images, (1, 1, 1, 1)).flatten(2)
        return padded.gather(2, index[:, None].expand(-1, 3, -1)).view_as(images)

    return operation


def _rotation(degrees: NDArray[np.float64], side: int) -> _Matrix:
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return (cos, -sin, 0), (sin, cos, 0)


def _bytes(values: Tensor) -> Tensor:
    """Clamp floats and truncate them to uint8, through int16, which is five times faster on a
    CPU."""
    return values.clamp_(0, 255).short().to(torch.uint8)


def _factor(images: Tensor, value: Tensor) -> Tensor:
    return value.float().to(images.device)[:, None, None, None]


def _gray(images: Tensor) -> Tensor:
    """Return the luminance in whole numbers, float32 (B, 1, S, S)."""
    red, green, blue = (channel.float() for channel in images.split(1, dim=1))
    return red.mul_(0.2989).add_(green.mul_(0.587)).add_(blue.mul_(0.114)).floor_()


def _blend(images: Tensor, other: Tensor, magnitude: Tensor) -> Tensor:
    """Return (1 + m) of the images minus m of the others, whose memory is overwritten."""
    return _bytes(
        images.float()
        .mul_(_factor(images, 1 + magnitude))
        .add_(other.mul_(_factor(images, -magnitude)))
    )


def _brightness(images: Tensor, magnitude: Tensor) -> Tensor:
    return _bytes(images.float().mul_(_factor(images, 1 + magnitude)))


def _colour(images: Tensor, magnitude: Tensor) -> Tensor:
    return _blend(images, _gray(images), magnitude)


def _contrast(images: Tensor, magnitude: Tensor) -> Tensor:
    # a sum of integers, which is the same in any order
    total = _gray(images).sum((1, 2, 3), dtype=torch.float64, keepdim=True)
    return _blend(images, (total / images[0, 0].numel()).float(), magnitude)


def _sharpness(images: Tensor, magnitude: Tensor) -> Tensor:
    """Blend with a blur by 3 x 3 weights, 5 in the middle and 1 around; the border stays."""
    x = images.short()
    rows = x[..., :-2] + x[..., 1:-1] + x[..., 2:]
    blurred = (
        (rows[..., :-2, :] + rows[..., 1:-1, :] + rows[..., 2:, :])
        .add_(x[..., 1:-1, 1:-1], alpha=4)
        .float()
    )
    inner, out = images[..., 1:-1, 1:-1].float(), images.clone()
    blurred.mul_(1 / 13).round_().sub_(inner).mul_(_factor(images, -magnitude))
    out[..., 1:-1, 1:-1] = _bytes(inner.add_(blurred))
    return out


def _posterize(images: Tensor, bits: Tensor) -> Tensor:
    mask = (256 - 2 ** (8 - bits)).to(torch.uint8).to(images.device)
    return images & mask[:, None, None, None]


def _solarize(images: Tensor, threshold: Tensor) -> Tensor:
    bright = images >= threshold.ceil().to(torch.int16).to(images.device)[:, None, None, None]
    return images ^ (bright.to(torch.uint8) * 255)


def _autocontrast(images: Tensor, magnitude: Tensor) -> Tensor:
    low, high = (
        value.float()
        for value in (images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True))
    )
    flat = low == high
    scale = (high - low).mul_(1 / 255).masked_fill_(flat, 1)
    return _bytes(images.float().sub_(low.masked_fill_(flat, 0)).div_(scale))


def _equalize(images: Tensor, magnitude: Tensor) -> Tensor:
    """Equalise the histogram of each channel as Pillow does: the brightest value does not count."""
    B, S = len(images), images.shape[-1]
    offset = torch.arange(0, B * 3 * 256, 256, dtype=torch.int32, device=images.device).view(
        B, 3, 1, 1
    )
    values = (images + offset).flatten()
    count = torch.bincount(values, minlength=B * 3 * 256).view(B, 3, 256)
    summed = count.cumsum(2)
    brightest = count.gather(2, summed.argmax(2, keepdim=True))
    step = (S * S - brightest) // 255
    table = ((summed + step // 2) // step.clamp(min=1)).clamp_(0, 255).roll(1, 2)
    table[..., 0] = 0
    table = torch.where(step == 0, torch.arange(256, device=images.device), table).to(torch.uint8)
    return table.flatten().index_select(0, values).view_as(images)


_Magnitude = Callable[[int, int], float]
OPERATIONS: tuple[tuple[Callable[[Tensor, Tensor], Tensor], _Magnitude, bool], ...] = (
    (_identity, lambda m, S: 0, False),
    (_affine(lambda m, S: ((1, m, m * S / 2), (0, 1, 0))), lambda m, S: 0.3 * m / _BINS, True),
    (_affine(lambda m, S: ((1, 0, 0), (m, 1, m * S / 2))), lambda m, S: 0.3 * m / _BINS, True),
    (
        _affine(lambda m, S: ((1, 0, -m), (0, 1, 0))),
        lambda m, S: int(150 / 331 * S * m / _BINS),
        True,
    ),
    (
        _affine(lambda m, S: ((1, 0, 0), (0, 1, -m))),
        lambda m, S: int(150 / 331 * S * m / _BINS),
        True,
    ),
    (_affine(_rotation), lambda m, S: 30 * m / _BINS, True),
    (_brightness, lambda m, S: 0.9 * m / _BINS, True),
    (_colour, lambda m, S: 0.9 * m / _BINS, True),
    (_contrast, lambda m, S: 0.9 * m / _BINS, True),
    (_sharpness, lambda m, S: 0.9 * m / _BINS, True),
    (_posterize, lambda m, S: 8 - round(m / (_BINS / 4)), False),
    (_solarize, lambda m, S: 255 * (1 - m / _BINS), False),
    (_autocontrast, lambda m, S: 0, False),
    (_equalize, lambda m, S: 0, False),
)
"""The operations of RandAugment in torchvision's order.

Each has a function of images and magnitudes, its magnitude as a function of
``randaugment_magnitude`` and the side S, and whether a coin decides the sign of the magnitude.

Source: Cubuk, Zoph, Shlens, Le, RandAugment: Practical Automated Data Augmentation with a Reduced
Search Space, 2020.
"""
