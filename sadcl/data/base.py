"""What a data set is: images on disk and a matrix of targets, the same for every source.

Axes: N images, L labels, K boxes.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

TARGET = {"negative": 0, "ignore": -1, "positive": 1}
"""Target value of each policy for doubtful objects (``data.crowd``, ``data.difficult``)."""
Progress = Callable[[int, int], None]
"""A function that is called with the number of finished items and the number of all items."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split: where its images are and what they show.

    Files and targets are arrays, so that a large split does not cost one Python object an image.
    """

    name: str
    folder: str
    files: pa.StringArray
    """(N,) file names below ``folder``."""
    targets: NDArray[np.int8]
    """(N, L): 1 if the image shows the label, 0 if not, -1 if losses and metrics ignore it."""
    labels: tuple[str, ...]
    """(L,) names."""
    list_name: str = ""
    """Name of the file that lists the images, for messages."""
    reopen: Callable[[], ImageSet] | None = None
    """Opens the same set in another process, so that both share the mapped pages of the manifest.
    None for a set that is in memory only."""
    manifest_file: str = ""
    """The manifest that ``reopen`` opens. If it was removed meanwhile, another process gets the
    content of the set instead."""
    max_pixels: int | None = None
    """Largest number of pixels of an image; None is Pillow's limit."""

    def __post_init__(self) -> None:
        assert self.targets.shape == (len(self.files), len(self.labels))

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> str:
        """Return the path, or URI, of an image."""
        return f"{self.folder}/{self.files[index].as_py()}"

    def subset(self, indices: ArrayLike, name: str) -> ImageSet:
        """Return the images at these positions, in this order, under another name."""
        positions = np.asarray(indices, dtype=np.int64)
        files = self.files.take(pa.array(positions))
        reopen = partial(ImageSet.subset, self, positions, name) if self.reopen else None
        targets = self.targets[positions]
        return ImageSet(
            *(name, self.folder, files, targets, self.labels, self.list_name, reopen),
            max_pixels=self.max_pixels,
        )

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        removed = self.manifest_file and not os.path.exists(self.manifest_file)
        if self.reopen is None or removed:
            return super().__reduce_ex__(protocol)
        return _reopened, (self.reopen, self.max_pixels)

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits of labels, file names and targets, whatever the folder."""
        return digest_of(*self.labels, "", *self.files.to_pylist(), extra=self.targets.tobytes())


def _reopened(reopen: Callable[[], ImageSet], max_pixels: int | None) -> ImageSet:
    images = reopen()
    return images if max_pixels == images.max_pixels else replace(images, max_pixels=max_pixels)


def has_area(corners: Sequence[float], width: float = math.inf, height: float = math.inf) -> bool:
    """Return whether a box has finite corners and an area inside the image.

    Args:
        corners: left, top, right and bottom.
        width, height: of the image; infinite if they are not known.
    """
    left, top, right, bottom = corners
    return (
        all(map(math.isfinite, corners))
        and max(left, 0) < min(right, width)
        and max(top, 0) < min(bottom, height)
    )


class Boxes(NamedTuple):
    """The objects of an image set as boxes, in the order of its images."""

    image_K: NDArray[np.int64]
    """Position of the image in the set."""
    label_K: NDArray[np.int64]
    """Position of the label."""
    box_K4: NDArray[np.float64]
    """Left, top, right and bottom, each 0 to 1 of the image's width or height."""

    @classmethod
    def sorted(cls, rows: Iterable[tuple[float, ...]]) -> Boxes:
        """Build boxes from rows of image, label, left, top, right and bottom, in any order.

        Parts outside the image are cut off, and a box without area in it (:func:`has_area`) is left
        out.
        """
        inside = sorted(row for row in rows if has_area(row[2:], 1, 1))
        rows_K6 = np.array(inside, dtype=np.float64).reshape(-1, 6)
        return cls(
            rows_K6[:, 0].astype(np.int64),
            rows_K6[:, 1].astype(np.int64),
            rows_K6[:, 2:].clip(0, 1),
        )

    def of(self, image: int) -> dict[int, NDArray[np.float64]]:
        """Return the boxes (K, 4) of an image by label; labels without a box are left out."""
        start, stop = np.searchsorted(self.image_K, [image, image + 1])
        labels_K, boxes_K4 = self.label_K[start:stop], self.box_K4[start:stop]
        return {label: boxes_K4[labels_K == label] for label in np.unique(labels_K).tolist()}


@dataclass(frozen=True, eq=False)
class MultiLabelData:
    """A data set that is ready for training; test images never choose anything."""

    name: str
    """The concrete name: ``coco14`` or ``coco17``, not ``coco``."""
    labels: tuple[str, ...]
    train: ImageSet
    val: ImageSet
    """The held-out part of the training images, which selects; empty if nothing is held out."""
    test: ImageSet
    version: str = ""
    """Version of the generator that drew the images; empty for photographs."""
    missing: int = 0
    """Number of listed images that were dropped because they are not on disk."""
    boxes: Callable[[ImageSet], Boxes] | None = None
    """Returns the boxes of a set of these images; None if they are not read. No digest has them."""

    @property
    def evaluable(self) -> bool:
        """False if no label of the test images is known (VOC 2012's are with its server)."""
        return bool((self.test.targets >= 0).any())

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits of labels, file names, targets and splits; no folder counts."""
        return digest_of(self.version, self.train.digest, self.val.digest, self.test.digest)


def digest_of(*words: str, extra: bytes = b"") -> str:
    """Return twelve hexadecimal digits of texts and bytes."""
    return hashlib.sha256("\0".join(words).encode() + b"\0\0" + extra).hexdigest()[:12]
