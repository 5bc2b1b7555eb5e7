"""Batches: which images, in which order, which of them are this worker's.

An epoch's global batches are one ordered list that depends on (seed, epoch) alone, and what happens to an image
depends on (seed, epoch, index) alone: not on the number of training workers or loader processes, nor on where a run was
resumed.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sadcl import distributed
from sadcl.config import Augmentation
from sadcl.data import remote
from sadcl.data.augment import apply, draw
from sadcl.data.base import ImageSet
from sadcl.data.gpu_prefetch import GpuPrefetch
from sadcl.data.transforms import read_image, to_input
from sadcl.errors import UserError

CACHE_SIDE, CACHE_BYTES = 160, 2**30
"""Decoded images are kept in memory up to this side in pixels and this size of the whole set."""
_ORDER, _AUGMENT = 1, 2  # streams of random numbers

if (
    sys.platform == "linux"
):  # glibc gives memory back after each image and takes it again page by page: half of the time
    for _option, _bytes in ((-3, 2**25), (-1, 2**28)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
        getattr(ctypes.CDLL(None), "mallopt", lambda *_: None)(_option, _bytes)

_Item = tuple[int, tuple[int, ...]]
"""Epoch, and the indices of this worker's images."""
_Read = tuple[Tensor, Tensor] | UserError
"""Images, and what is to happen to each."""


class Batch(NamedTuple):
    """This worker's share of a global batch, on its device.

    Axes: B images of this worker, C colour channels (3), H, W the side S of the square input,
    L labels, A positives.
    """

    images_BCHW: Tensor
    """float32, normalised."""
    targets_BL: Tensor
    """int8: 1, 0 or -1 (ignored)."""
    weight_B: Tensor
    """float32: 1; 0 for the image that stands in for an empty share."""
    index_B: Tensor
    """int64: index of each image in the image set."""
    first_position: int
    """Position of the first image in the global batch."""
    positive_index_A: Tensor | None = None
    """int64: indices of the positives of real images into the flattened (B, L) axes; None where
    they have not been computed."""


class Loader:
    """Global batches of an image set, this worker's contiguous share of each.

    Args:
        images: the split.
        image_size: side of the square input in pixels.
        augmentation: what is done to an image; None only resizes.
        seed: of order and augmentation.
        batch_size: of the global batch; the last one of an epoch may be smaller.
        rank, world_size: which share; shares differ by at most one image, and an empty one runs the batch's first image
            with weight 0.
        workers: processes that decode; 0 decodes in this one.
        shuffle: False keeps the set's order.
        whole: give each worker whole batches in turn, as evaluation wants them: then an image is computed beside the same
            others whatever the number of workers, and its score is the same to the bit.
        device: where batches are wanted; None is the CPU.
        batched: augment a whole batch on its device and not each image where it is decoded; None does so on a GPU. It is the
            same function of (seed, epoch, index), to the bit on a CPU and to one level of 256 on a GPU.
    """

    given = 0
    """Batches that all loaders of this process have given: it grows while anything is trained on or evaluated."""

    def __init__(
        self,
        images: ImageSet,
        *,
        image_size: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        shuffle: bool = False,
        whole: bool = False,
        device: torch.device | None = None,
        batched: bool | None = None,
    ) -> None:
        assert 0 <= rank < world_size
        self.images, self.seed, self.batch_size, self.shuffle, self.whole = (
            images,
            seed,
            batch_size,
            shuffle,
            whole,
        )
        self.rank, self.world_size, self.workers = rank, world_size, workers
        self.device = device or torch.device("cpu")
        self._targets = torch.from_numpy(images.targets)
        self.size, self.augmentation = image_size, augmentation
        self.batched = self.device.type != "cpu" if batched is None else batched
        self._reader = _Reader(
            images, image_size, augmentation, seed, keep=workers == 0, augments=not self.batched
        )
        self._items: list[_Item] = []
        self._processes: DataLoader[_Read] | None = None

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return -(-len(self.images) // self.batch_size)

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from ``start_step`` (counted from 0; 0 for whole batches) on.

        Raises:
            UserError: naming the file, for an image that is missing or damaged.
        """
        order = self._order(epoch)
        steps = (
            range(self.rank, self.steps, self.world_size)
            if self.whole
            else range(start_step, self.steps)
        )
        shares = [self._share(order, step) for step in steps]
        items: list[_Item] = [(epoch, tuple(index.tolist())) for index, _, _ in shares]
        beside = GpuPrefetch(self.device)
        for (index, weight, position), read in zip(shares, self._read(items), strict=True):
            if isinstance(read, UserError):
                raise read
            images, plans = read
            where = torch.from_numpy(index)
            targets = self._targets[where]
            place_A = (targets == 1).flatten().nonzero()[:, 0] if weight else where.new_zeros(0)
            with beside():
                images = beside.send(images)
                if self.batched and self.augmentation is not None:
                    images = apply(images, plans, self.augmentation, self.size)
                images = to_input(images)
                weights = torch.full((len(index),), weight)
                targets, weights, where, place_A = map(
                    beside.send, (targets, weights, where, place_A)
                )
            beside.hand_over(images, targets, weights, where, place_A)
            Loader.given += 1
            yield Batch(images, targets, weights, where, position, place_A)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if not self.shuffle:
            return np.arange(len(self.images))
        return np.random.default_rng([_ORDER, self.seed, epoch]).permutation(len(self.images))

    def _share(self, order: NDArray[np.int64], step: int) -> tuple[NDArray[np.int64], float, int]:
        """Indices, weight and first position of this worker's part of a global batch."""
        whole = order[step * self.batch_size : (step + 1) * self.batch_size]
        if self.whole:
            return whole, 1.0, 0
        start, stop = distributed.split(len(whole), self.rank, self.world_size)
        return (whole[start:stop], 1.0, start) if start < stop else (whole[:1], 0.0, start)

    def _read(self, items: list[_Item]) -> Iterator[_Read]:
        if not self.workers:
            return map(self._reader.__getitem__, items)
        if self._processes is None:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__])  # torch is imported once, not once a process
            self._processes = DataLoader(
                self._reader,
                batch_size=None,  # an item is a whole share
                sampler=self._items,
                num_workers=self.workers,
                multiprocessing_context=context,
                persistent_workers=True,
                pin_memory=self.device.type == "cuda",
            )
        self._items[:] = items
        return iter(self._processes)


class _Reader(Dataset[_Read]):
    """Reads the images of one share and draws what happens to them; runs in this process or in loader processes.

    Args:
        keep: images in memory, where they are few and small.
        augments: do what was drawn, too.
    """

    def __init__(
        self,
        images: ImageSet,
        size: int,
        augmentation: Augmentation | None,
        seed: int,
        *,
        keep: bool,
        augments: bool,
    ) -> None:
        self.images, self.size, self.augmentation, self.seed = images, size, augmentation, seed
        self.side = (augmentation.resize if augmentation is not None else None) or size
        self.keep = (
            keep and self.side <= CACHE_SIDE and len(images) * 3 * self.side**2 <= CACHE_BYTES
        )
        self.augments = augments and augmentation is not None

    def __getitem__(self, item: _Item) -> _Read:
        """uint8 (b, 3, W, W) and a plan (b, columns); an error is a value here, so that it crosses processes unchanged."""
        epoch, indices = item
        plans = torch.stack([self._plan(epoch, index) for index in indices])
        side = self.size if self.augments else self.side
        if self.augments:
            images = torch.empty(len(indices), 3, side, side, dtype=torch.uint8)
        else:  # each pixel's colours side by side, as decoding and resizing give them: turned where the batch is wanted
            images = torch.empty(len(indices), side, side, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        try:
            with _side_by_side(self.images) as each:
                for place, image in zip(images, each(self._image, indices, plans), strict=True):
                    place.copy_(image)
        except UserError as error:
            return error
        return images, plans

    def _plan(self, epoch: int, index: int) -> Tensor:
        if self.augmentation is None:
            return torch.zeros(0)
        rng = np.random.default_rng([_AUGMENT, self.seed, epoch, index])
        return draw(self.augmentation, self.side, self.size, rng)

    def _image(self, index: int, plan: Tensor) -> Tensor:
        image = self._kept(index) if self.keep else read_image(self.images.path(index), self.side)
        if not self.augments or self.augmentation is None:
            return image
        return apply(image[None], plan[None], self.augmentation, self.size)[0]

    def _kept(self, index: int) -> Tensor:
        """An image out of memory, read at its first use; all loaders of a set share them."""
        kept = _KEPT.setdefault(self.images, {})
        if self.side not in kept:
            count = len(self.images)
            kept[self.side] = (
                torch.empty(count, 3, self.side, self.side, dtype=torch.uint8),
                np.zeros(count, dtype=bool),
            )
        pixels, there = kept[self.side]
        if not there[index]:
            pixels[index] = read_image(self.images.path(index), self.side)
            there[index] = True
        return pixels[index]


@contextlib.contextmanager
def _side_by_side(images: ImageSet) -> Iterator[Callable[..., Iterator[Tensor]]]:
    """``map``, in threads where files are fetched, because each is answered late."""
    if not remote.elsewhere(images.folder):
        yield map
        return
    with ThreadPoolExecutor(remote.THREADS) as pool:
        yield pool.map


_KEPT: WeakKeyDictionary[ImageSet, dict[int, tuple[Tensor, NDArray[np.bool_]]]] = (
    WeakKeyDictionary()
)
