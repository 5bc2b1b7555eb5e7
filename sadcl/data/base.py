"""What a data set is: images on disk and a matrix of targets, the same for every source.

Axes: N images, L labels.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

TARGET = {"negative": 0, "ignore": -1, "positive": 1}
"""Of a policy for doubtful objects."""
Progress = Callable[[int, int], None]
"""Called with how many are done and how many there are in all."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split: where its images are and what they show; nothing is kept as one Python object an image."""

    name: str
    folder: str
    files: pa.StringArray
    """File names below ``folder``."""
    targets: NDArray[np.int8]
    """(N, L): 1 shows, 0 does not, -1 is ignored by losses and metrics."""
    labels: tuple[str, ...]
    listed: str = ""
    """Name of the file that lists the images, for messages."""
    again: Callable[[], ImageSet] | None = None
    """Opens the same set in another process, so that the mapped pages are shared; None where it is only in memory."""

    kept_in: str = ""
    """The file that ``again`` opens; where it was removed meanwhile, another process gets the content."""

    def __post_init__(self) -> None:
        assert self.targets.shape == (len(self.files), len(self.labels))

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> str:
        return f"{self.folder}/{self.files[index].as_py()}"

    def subset(self, indices: ArrayLike, name: str) -> ImageSet:
        """The images at these positions, in this order."""
        positions = np.asarray(indices, dtype=np.int64)
        files = self.files.take(pa.array(positions))
        again = partial(ImageSet.subset, self, positions, name) if self.again is not None else None
        return ImageSet(
            name, self.folder, files, self.targets[positions], self.labels, self.listed, again
        )

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        gone = self.again is None or (self.kept_in and not os.path.exists(self.kept_in))
        return super().__reduce_ex__(protocol) if gone else (self.again, ())

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits of labels, file names and targets, wherever the files lie."""
        return digest_of(*self.labels, "", *self.files.to_pylist(), extra=self.targets.tobytes())


class Boxes(NamedTuple):
    """Where the objects of an image set are, in the order of its images; K boxes."""

    image_K: NDArray[np.int64]
    """Position in the set."""
    label_K: NDArray[np.int64]
    box_K4: NDArray[np.float64]
    """Left, top, right, bottom, each 0 to 1 of the image's width or height."""

    @classmethod
    def sorted(cls, rows: Iterable[tuple[float, ...]]) -> Boxes:
        """From rows of image, label, left, top, right and bottom, in any order; what is outside the image is cut off."""
        rows_K6 = np.array(sorted(rows), dtype=np.float64).reshape(-1, 6)
        return cls(
            rows_K6[:, 0].astype(np.int64),
            rows_K6[:, 1].astype(np.int64),
            rows_K6[:, 2:].clip(0, 1),
        )

    def of(self, image: int) -> dict[int, NDArray[np.float64]]:
        """The boxes (K, 4) of each label that has some in this image."""
        start, stop = np.searchsorted(self.image_K, [image, image + 1])
        labels_K, boxes_K4 = self.label_K[start:stop], self.box_K4[start:stop]
        return {label: boxes_K4[labels_K == label] for label in np.unique(labels_K).tolist()}


@dataclass(frozen=True, eq=False)
class MultiLabelData:
    """A data set ready for training; test images never choose anything."""

    name: str
    """Concrete: ``coco14`` or ``coco17``, not ``coco``."""
    labels: tuple[str, ...]
    train: ImageSet
    val: ImageSet
    """The held-out part of the training images, which selects; empty where nothing is held out."""
    test: ImageSet
    version: str = ""
    """Of the generator, where the images were made by one."""
    missing: int = 0
    """Listed images that are not on disk and were dropped."""
    boxes: Callable[[ImageSet], Boxes] | None = None
    """Reads the boxes of objects in one of its sets; None where the publisher's are not read. They change no digest."""

    @property
    def evaluable(self) -> bool:
        """False where no label of the test images is known (VOC 2012's are with its server)."""
        return bool((self.test.targets >= 0).any())

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits of everything but the place: labels, file names, targets, who is in which split."""
        return digest_of(self.version, self.train.digest, self.val.digest, self.test.digest)


def digest_of(*words: str, extra: bytes = b"") -> str:
    return hashlib.sha256("\0".join(words).encode() + b"\0\0" + extra).hexdigest()[:12]
