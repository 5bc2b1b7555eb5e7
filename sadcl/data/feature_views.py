"""Which stored feature maps an image of a split has: its row, and the view of each epoch.

Held-out and training images are one pool, so that every way to divide them, and the final run on
all of them, use the same rows. Test images are another pool. A view of a pool is a file
(:mod:`sadcl.data.feature_file`): the plain images, or the k-th draw of an augmentation. How the
k-th view of an image is augmented depends on (k, row of the image) alone, and not on ``seed``.

Axes: N images of a split, P images of a pool, B images of a batch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from sadcl.data import remote
from sadcl.data.base import ImageSet, MultiLabelData, digest_of
from sadcl.data.feature_file import FeatureRows
from sadcl.data.image_augmentation import ImageKey

_VIEW = 7
"""A stream of random numbers: the view that an image begins with."""


class Pool(NamedTuple):
    """Images whose feature maps are stored together, in the order of their names."""

    images: ImageSet
    rows: dict[str, NDArray[np.int64]]
    """(N,) row of each image of the splits ``train`` and ``val``, or of ``test``."""


def pool_of(data: MultiLabelData, split: str) -> Pool:
    """Return the pool of a split: ``train``, ``val`` or ``test``."""
    splits = {"test": data.test} if split == "test" else {"train": data.train, "val": data.val}
    parts = [part for part in splits.values() if len(part)]
    files = pa.concat_arrays([part.files for part in parts])
    order_P = np.argsort(files.to_numpy(zero_copy_only=False), kind="stable")
    row_P = np.empty_like(order_P)
    row_P[order_P] = np.arange(len(order_P))
    targets = np.concatenate([part.targets for part in parts])[order_P]
    first = parts[0]
    name = f"{data.name}-{split if split == 'test' else 'train'}-pool"
    files = files.take(pa.array(order_P))
    images = ImageSet(
        *(name, first.folder, files, targets, first.labels), max_pixels=first.max_pixels
    )
    edges = np.cumsum([len(part) for part in splits.values()])[:-1]
    return Pool(images, dict(zip(splits, np.split(row_P, edges), strict=True)))


def pool_digest(images: ImageSet) -> str:
    """Return a digest of a pool's files: names and, of local ones, sizes and times of change."""
    states: list[tuple[int, int]] = []
    if not remote.is_remote(images.folder):
        for name in images.files.to_pylist():
            try:
                state = os.stat(f"{images.folder}/{name}")
                states.append((state.st_size, state.st_mtime_ns))
            except OSError:  # reading the image says so
                states.append((0, 0))
    return digest_of(*images.files.to_pylist(), extra=np.array(states, np.int64).tobytes())


@dataclass
class SplitFeatures:
    """Reads the stored maps of a split's images."""

    row_N: NDArray[np.int64]
    """Row of each image."""
    views: Sequence[FeatureRows]
    """The plain view alone, or augmented ones."""
    _start: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    """View (N,) of each image in the epoch before the first, by seed."""

    def view_of(self, key: ImageKey) -> int:
        """Return the view that an image has: it goes through all of them, epoch by epoch."""
        seed, epoch, index, repeat = key
        if len(self.views) == 1:
            return 0
        if seed not in self._start:
            rng = np.random.default_rng([_VIEW, seed])
            self._start[seed] = rng.integers(len(self.views), size=len(self.row_N))
        return int(self._start[seed][index] + epoch + repeat) % len(self.views)

    def read(self, item: Sequence[ImageKey]) -> tuple[Tensor, ...]:
        """Return the maps of images, (B, C, H, W) each, in the order of the keys."""
        row_B = self.row_N[[key[2] for key in item]]
        view_B = np.array([self.view_of(key) for key in item])
        if (view_B == view_B[0]).all():
            return self.views[int(view_B[0])].read(row_B)
        maps: tuple[Tensor, ...] = ()
        for view in np.unique(view_B):
            chosen = np.flatnonzero(view_B == view)
            parts = self.views[int(view)].read(row_B[chosen])
            maps = maps or tuple(part.new_empty(len(item), *part.shape[1:]) for part in parts)
            for whole, part in zip(maps, parts, strict=True):
                whole[chosen] = part
        return maps
