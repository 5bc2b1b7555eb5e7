"""What data sets, samplers, image augmentations and metrics of your own keep to.

Axes: N images, L labels, H, W height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sadcl.config import Data
from sadcl.data.base import ImageSet
from sadcl.data.dataset import checked_splits
from sadcl.data.image_augmentation import OwnAugmentation
from sadcl.data.image_check import check_files
from sadcl.data.readers import files
from sadcl.data.sampler import check_sampler as try_sampler
from sadcl.errors import UserError
from sadcl.metrics import check_metrics
from sadcl.testing.checks import attempt, check_arguments, name_of, require


def check_dataset(
    dataset: Callable[..., tuple[ImageSet, ImageSet]], root: str | Path, /, **arguments: Any
) -> None:
    """Check a data set of your own against :class:`sadcl.data.Dataset`, on a copy of it.

    Both splits must have the same labels, the same each time, no image in common, images that are
    on disk and can be read, and each label an image that has it among the training images.

    Args:
        dataset: the function.
        root: the data root of a copy, which may be small.
        **arguments: its own.

    Raises:
        AssertionError: with what is wrong and what to do.
    """
    bound, place = check_arguments(dataset, arguments, 1, ()), Path(root).absolute()
    with attempt(dataset, f"on {str(root)!r}", "See the error"):
        splits = checked_splits(dataset(place, **bound), place, name_of(dataset))
        again = checked_splits(dataset(place, **bound), place, name_of(dataset))
    for split, other in zip(splits, again, strict=True):
        require(
            split.digest == other.digest,
            dataset,
            "returns other files, targets or labels when it is called again",
            "Sort what comes from a folder or a set, and draw nothing at random",
        )
        require(len(split) > 0, dataset, f"has no image in {split.list_name}", "See its rows")
    absent_L = ~(splits[0].targets == 1).any(axis=0)
    absent = [
        label for label, is_absent in zip(splits[0].labels, absent_L, strict=True) if is_absent
    ]
    require(
        not absent,
        dataset,
        f"has no training image with the label {', '.join(absent)}",
        "Leave out labels that cannot be learned, or look for a mistake in their names",
    )
    try:
        existing = [files.existing_images(split, Data().missing) for split in splits]
        files.check_disjoint(*existing)
        check_files(existing)
    except UserError as error:
        raise AssertionError(f"{name_of(dataset)}: {error}") from None


def check_sampler(sampler: Callable[..., Any], /, **arguments: Any) -> None:
    """Check a sampler of your own against :class:`sadcl.data.Sampler`, on 40 images.

    It must return N indices in range, the same when it is asked for an epoch again, another order
    in another epoch and with another seed, and leave the targets as they are.

    Args:
        sampler: the function.
        **arguments: its own.

    Raises:
        AssertionError: with what is wrong and what to do.
    """
    bound, rng = check_arguments(sampler, arguments, 3, ()), np.random.default_rng(0)
    function = partial(sampler, **bound)
    targets_NL = (rng.random((40, 5)) < [0.5, 0.3, 0.2, 0.1, 0.05]).astype(np.int8)
    targets_NL[rng.random(targets_NL.shape) < 0.1] = -1
    try:
        for seed in (0, 1):
            try_sampler(function, targets_NL, seed, name_of(sampler))
    except UserError as error:
        raise AssertionError(str(error)) from None
    orders = [
        np.asarray(function(targets_NL, epoch, np.random.default_rng([seed, epoch]))).tolist()
        for seed, epoch in ((0, 1), (0, 2), (1, 1))
    ]
    require(
        orders[0] not in orders[1:],
        sampler,
        "returns the same order in two epochs, or with two seeds",
        "Draw from the generator that it gets",
    )


def check_augmentation(augmentation: Callable[..., Any], /, **arguments: Any) -> None:
    """Check an image augmentation of your own against :class:`sadcl.data.ImageAugmentation`.

    It must return a uint8 image of the same shape, the same for the same image and generator, for
    sides of 32 and 33 pixels.

    Args:
        augmentation: the function.
        **arguments: its own.

    Raises:
        AssertionError: with what is wrong and what to do.
    """
    bound = check_arguments(augmentation, arguments, 2, ())
    own = OwnAugmentation(name_of(augmentation), bound, "augmentation")
    own.function = partial(augmentation, **bound)
    try:
        for side in (32, 33):
            own.check(side, 0)
    except UserError as error:
        raise AssertionError(str(error)) from None


def check_metric(metric: Callable[..., float], /) -> None:
    """Check a metric of your own against :class:`sadcl.metrics.Metric`.

    It must return a finite number for random scores of 1, 2 and 7 labels, the same each time, and
    a number or NaN where targets are ignored; scores and targets must stay as they are.

    Args:
        metric: the function.

    Raises:
        AssertionError: with what is wrong and what to do.
    """
    check_arguments(metric, {}, 2, ())
    try:
        for num_labels in (1, 2, 7):
            check_metrics({name_of(metric): metric}, num_labels)
    except UserError as error:
        raise AssertionError(str(error)) from None
