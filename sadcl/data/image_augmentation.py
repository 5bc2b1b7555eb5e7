"""An augmentation of your own, after those that are built in.

A configuration names it by its import path, ``stage1.augmentation.own = "my_lab.looks:gray"``. The
one that this page asks for is complete::

    def gray(image_CHW: Tensor, rng: np.random.Generator, *, share: float = 0.1) -> Tensor:
        if rng.random() >= share:
            return image_CHW
        red, green, blue = image_CHW.int()
        luma_HW = (299 * red + 587 * green + 114 * blue + 500) // 1000
        return luma_HW.to(torch.uint8).expand_as(image_CHW)

Axes: B images, C colour channels (3), H, W the side S of the square input in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sadcl.config import component
from sadcl.errors import UserError, reason_of

_OWN = 3  # the stream of random numbers
ImageKey = tuple[int, int, int, int]
"""Seed of the run, epoch, index of an image in its set, and how often the epoch had it before."""


class ImageAugmentation(Protocol):
    """The call that an augmentation answers; its own arguments are keywords with a type and a
    default.

    It gets one training image, uint8 (3, S, S), after crop, flip, Cutout and RandAugment and before
    the normalisation, and returns one of the same shape and type. The image is a copy that it may
    change.

    Its generator is seeded with the run's seed, the epoch, the image and how often the epoch had
    the image before, and is its only source of randomness. So an image comes out the same on any
    number of workers and loader processes, and where a run resumes.

    On a CPU it runs in the processes that decode images. Beside a GPU the image is on the GPU, as
    it is for the built-in ones, and must come back there; the generator stays on the CPU, so that
    what it draws is equal. Whole numbers then give the same image everywhere. Floats may differ
    in the last digit between devices, which after rounding is one of 256 levels.
    """

    def __call__(self, image_CHW: Tensor, rng: np.random.Generator, /) -> Tensor: ...


class OwnAugmentation:
    """An augmentation that a configuration names; other processes import it again by its path.

    Args:
        path: import path of the function.
        arguments: its keyword arguments.
        field: that holds the path, for messages.
        recorded: hash of each module's source, as the configuration records it; None checks none.
    """

    def __init__(
        self,
        path: str,
        arguments: Mapping[str, Any],
        field: str,
        recorded: Mapping[str, str] | None = None,
    ) -> None:
        self.path, self.arguments, self.field = path, dict(arguments), field
        self.recorded = dict(recorded) if recorded is not None else None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "function"}

    @cached_property
    def function(self) -> ImageAugmentation:
        """The function.

        Raises:
            UserError: where it cannot be imported or takes no such arguments.
        """
        fields = self.field, f"{self.field}_arguments"
        return component.bound(self.path, self.arguments, *fields, self.recorded)

    def __call__(self, image_CHW: Tensor, key: ImageKey) -> Tensor:
        """Change an image; the argument stays as it is.

        Raises:
            UserError: for a function that fails, or returns something else than such an image.
        """
        function = self.function
        rng = np.random.default_rng([_OWN, *key])
        try:
            result = function(image_CHW.clone(memory_format=torch.contiguous_format), rng)
        except Exception as error:
            raise UserError(f"{self.field} = {self.path!r}: {reason_of(error)}") from None
        expected = _description(image_CHW)
        if _description(result) != expected:
            raise UserError(
                f"{self.field} = {self.path!r} must return {expected}, but returned "
                f"{_description(result)}."
            )
        return result

    def each(self, images_BCHW: Tensor, keys: Iterable[ImageKey]) -> Tensor:
        """Change each image of a batch."""
        pairs = zip(images_BCHW, keys, strict=True)
        return torch.stack([self(image_CHW, key) for image_CHW, key in pairs])

    def check(self, size: int, seed: int) -> None:
        """Try it on images of the side ``size``, before anything is reserved.

        Raises:
            UserError: as a call does, and for an image that comes out in another way when it is
                changed again.
        """
        rng = np.random.default_rng(0)
        for index in range(4):
            pixels = rng.integers(0, 256, (3, size, size), dtype=np.uint8)
            image_CHW, key = torch.from_numpy(pixels), (seed, 1, index, 0)
            first_CHW = self(image_CHW, key)
            self(image_CHW, (seed, 1, index + 1, 0))
            if not torch.equal(self(image_CHW, key), first_CHW):
                raise UserError(
                    f"{self.field} = {self.path!r} returns another image when the same image and "
                    "generator are given again, so that a run could not be repeated. Draw from "
                    "the generator that it gets alone, and keep nothing between calls."
                )


def _description(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    dtype = str(value.dtype).removeprefix("torch.")
    return f"a {dtype} tensor of the shape {tuple(value.shape)} on {value.device}"
