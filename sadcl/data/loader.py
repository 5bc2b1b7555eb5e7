"""Batches: which images, in which order, and which of them belong to this worker.

The global batches of an epoch are one ordered list that depends on (seed, epoch) alone. How an
image is augmented depends on (seed, epoch, index) alone, and on how often the epoch had it before
where a sampler repeats images. Neither depends on the number of training workers or loader
processes, nor on the step at which a run was resumed.

Axes: b images of this worker's share, S side in pixels, W side before the augmentation, L labels,
A targets of real images that are 1.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
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
from sadcl.data.child_processes import without_main_module
from sadcl.data.feature_views import SplitFeatures
from sadcl.data.freed_memory import keep_freed_memory
from sadcl.data.gpu_prefetch import GpuPrefetch
from sadcl.data.image_augmentation import ImageKey, OwnAugmentation
from sadcl.data.one_copy import send_together
from sadcl.data.sampler import Sampler, count_repeats, draw_order, permute
from sadcl.data.socket_folder import make_socket_folder
from sadcl.data.transforms import IMAGENET, Normalisation, read_image, to_input
from sadcl.errors import UserError

CACHE_SIDE, CACHE_BYTES = 160, 2**30
"""Decoded images stay in memory up to this side in pixels and these bytes of the whole set."""
_AUGMENT = 2  # a stream of random numbers

_Item = tuple[ImageKey, ...]
"""This worker's images."""
_Read = tuple[Tensor, ...] | UserError
"""Images, and a plan of the augmentation for each (:func:`sadcl.data.augment.draw`); or stored
feature maps."""


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
    """float32: 1; 0 for a padding image, such as the one that stands in for an empty share."""
    index_B: Tensor
    """int64: index of each image in the image set."""
    first_position: int
    """Position of the first image in the global batch."""
    positive_index_A: Tensor | None = None
    """int64: indices of the positives of real images into the flattened (B, L) axes; None where
    they have not been computed."""
    global_positive_index_G: Tensor | None = None
    """int64: the same of the global batch, into (N, L) for its N images; None where it has not been
    computed. Every worker computes it without asking the others."""
    shares: distributed.Shares | None = None
    """Sizes of all workers' shares; None where they have not been computed, and for whole batches,
    of which no worker has a share."""
    maps: tuple[Tensor, ...] = ()
    """float32 (B, C, H', W') each: the backbone's stored feature maps, in place of images; then
    ``images_BCHW`` has no pixels."""

    @property
    def inputs(self) -> Tensor | tuple[Tensor, ...]:
        """What the network is called with: the images, or their feature maps."""
        return self.maps or self.images_BCHW


class Loader:
    """Iterates over the global batches of an image set and yields this worker's share of each.

    Memory that decoding frees is kept for the next image (:func:`keep_freed_memory`): in loader
    processes, and in this process if it decodes or computes on the CPU.

    Args:
        images: the split.
        image_size: side of the square input in pixels.
        normalisation: mean and standard deviation that the backbone was trained with.
        augmentation: how an image is changed; None only resizes it.
        own_augmentation: what changes it after that; None is nothing.
        sampler: orders the images of an epoch where they are shuffled.
        sampler_name: its import path, for messages.
        seed: of order and augmentation.
        batch_size: of the global batch.
        drop_last: leave out an epoch's last batch if it is smaller.
        rank: of this worker, 0 to ``world_size`` - 1. It gets a contiguous share of each batch.
            Shares differ by at most one image; an empty one is the batch's first image with weight
            0.
        world_size: number of workers.
        workers: number of processes that decode; 0 decodes in this process.
        shuffle: False keeps the set's order.
        whole: give whole batches to the workers in turn, for evaluation. The images of a batch are
            then the same for any number of workers, so that scores are equal to the bit.
        device: of the batches; None is the CPU.
        batched: augment a whole batch on its device instead of each image where it is decoded; None
            does so on a GPU. Both are the same function of (seed, epoch, index), equal to the bit
            on a CPU and to one of 256 levels on a GPU.
        features: stored feature maps of the images, which are read in this process in their place;
            None reads the images.
    """

    total_batches = 0
    """Batches that all loaders of this process have yielded, which shows that work goes on."""

    def __init__(
        self,
        images: ImageSet,
        *,
        image_size: int,
        normalisation: Normalisation = IMAGENET,
        augmentation: Augmentation | None = None,
        own_augmentation: OwnAugmentation | None = None,
        sampler: Sampler = permute,
        sampler_name: str = "permute",
        seed: int = 0,
        batch_size: int,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        shuffle: bool = False,
        whole: bool = False,
        device: torch.device | None = None,
        batched: bool | None = None,
        features: SplitFeatures | None = None,
    ) -> None:
        assert 0 <= rank < world_size
        self.images, self.seed = images, seed
        self.batch_size, self.drop_last = batch_size, drop_last
        self.shuffle, self.whole = shuffle, whole
        self.rank, self.world_size, self.workers = rank, world_size, workers
        self.device = device or torch.device("cpu")
        self._targets = torch.from_numpy(images.targets)
        self.size, self.augmentation = image_size, augmentation
        self.own_augmentation, self.normalisation = own_augmentation, normalisation
        self.sampler, self.sampler_name = sampler, sampler_name
        self.batched = self.device.type != "cpu" if batched is None else batched
        self._reader = _Reader(
            images,
            image_size,
            augmentation,
            own_augmentation,
            keep=workers == 0,
            augments=not self.batched,
        )
        self.features = features
        self._items: list[_Item] = []
        self._processes: DataLoader[_Read] | None = None
        if not workers or self.device.type == "cpu":
            keep_freed_memory()

    @property
    def steps(self) -> int:
        """Number of batches in an epoch."""
        if self.drop_last:
            return len(self.images) // self.batch_size
        return -(-len(self.images) // self.batch_size)

    @property
    def images_per_epoch(self) -> int:
        """Number of images in an epoch's batches."""
        return min(self.steps * self.batch_size, len(self.images))

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch.

        Args:
            epoch: decides order and augmentation.
            start_step: the first step, counted from 0.

        Raises:
            UserError: with the file, for an image that is missing or damaged, or for a sampler or
                an augmentation of the user's that fails.
        """
        order = self._order(epoch)
        repeats = count_repeats(order)
        steps = (
            range(start_step + self.rank, self.steps, self.world_size)
            if self.whole
            else range(start_step, self.steps)
        )
        places = [self._share(self._global(np.arange(len(order)), step)) for step in steps]
        shares = [(order[place], weight, position) for place, weight, position in places]
        items: list[_Item] = [
            tuple((self.seed, epoch, int(order[i]), int(repeats[i])) for i in place)
            for place, _, _ in places
        ]
        prefetch = GpuPrefetch(self.device)
        for step, (index, weight, position), keys, read in zip(
            steps, shares, items, self._read(items), strict=True
        ):
            if isinstance(read, UserError):
                raise read
            where = torch.from_numpy(index)
            targets = self._targets[where]
            place_A = _positives(targets) if weight else where.new_zeros(0)
            place_G = place_A
            if self.world_size > 1:
                place_G = _positives(self._targets[torch.from_numpy(self._global(order, step))])
            sizes = None if self.whole else self._sizes(len(self._global(order, step)), place_G)
            with prefetch():
                images, maps = self._on_device(read, keys, prefetch)
                weights = torch.full((len(index),), weight)
                host = (targets, weights, where, place_A, place_G)
                parts = send_together(host, self.device)
            prefetch.hand_over(images, *maps, *parts)
            Loader.total_batches += 1
            targets, weights, where, place_A, place_G = parts
            yield Batch(images, targets, weights, where, position, place_A, place_G, sizes, maps)

    def _on_device(
        self, read: tuple[Tensor, ...], keys: _Item, prefetch: GpuPrefetch
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Send what was read to the device: normalised images, or feature maps and no pixels."""
        if self.features is not None:
            maps = tuple(prefetch.send(part).float() for part in read)
            return torch.empty(len(keys), 3, 0, 0, device=self.device), maps
        images, plans = read
        images = prefetch.send(images)
        if self.batched and self.augmentation is not None:
            images = apply(images, plans, self.augmentation, self.size)
        if self.batched and self.own_augmentation is not None:
            images = self.own_augmentation.each(images, keys)
        return to_input(images, self.normalisation), ()

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if not self.shuffle:
            return np.arange(len(self.images))
        return draw_order(self.sampler, self.images.targets, self.seed, epoch, self.sampler_name)

    def _global(self, order: NDArray[np.int64], step: int) -> NDArray[np.int64]:
        """Return the indices of a global batch."""
        return order[step * self.batch_size : (step + 1) * self.batch_size]

    def _share(self, batch: NDArray[np.int64]) -> tuple[NDArray[np.int64], float, int]:
        """Return indices, weight and first position of this worker's share of a global batch."""
        if self.whole:
            return batch, 1.0, 0
        start, stop = distributed.split(len(batch), self.rank, self.world_size)
        return (batch[start:stop], 1.0, start) if start < stop else (batch[:1], 0.0, start)

    def _sizes(self, count: int, place_G: Tensor) -> distributed.Shares:
        """Return the sizes of all shares of a global batch of ``count`` images."""
        starts = [
            distributed.split(count, rank, self.world_size)[0] for rank in range(self.world_size)
        ]
        starts.append(count)
        edges = torch.searchsorted(place_G, torch.tensor(starts) * self._targets.shape[1])
        images = [max(stop - start, 1) for start, stop in pairwise(starts)]
        return distributed.Shares(images, edges.diff().tolist())

    def _read(self, items: list[_Item]) -> Iterator[_Read]:
        if self.features is not None:
            return map(self.features.read, items)
        if not self.workers:
            return map(self._reader.__getitem__, items)
        if self._processes is None:
            make_socket_folder()
            context = multiprocessing.get_context("forkserver")
            # torch is imported once in the server, and not again in each process
            context.set_forkserver_preload([__name__])
            self._processes = DataLoader(
                self._reader,
                batch_size=None,  # an item is a whole share
                sampler=self._items,
                num_workers=self.workers,
                multiprocessing_context=context,
                persistent_workers=True,
                worker_init_fn=keep_freed_memory,
                pin_memory=self.device.type == "cuda",
            )
        self._items[:] = items
        with without_main_module():
            return iter(self._processes)


def _positives(targets: Tensor) -> Tensor:
    return (targets == 1).flatten().nonzero()[:, 0]


class _Reader(Dataset[_Read]):
    """Reads the images of one share and draws their augmentation, here or in a loader process.

    Args:
        images: the split.
        size: side of the input in pixels.
        augmentation: how an image is changed; None only resizes it.
        own_augmentation: what changes it after that.
        keep: keep decoded images in memory if they are few and small.
        augments: apply the augmentation too.
    """

    def __init__(
        self,
        images: ImageSet,
        size: int,
        augmentation: Augmentation | None,
        own_augmentation: OwnAugmentation | None,
        *,
        keep: bool,
        augments: bool,
    ) -> None:
        self.images, self.size, self.augmentation = images, size, augmentation
        self.own_augmentation = own_augmentation
        self.side = (augmentation.resize if augmentation is not None else None) or size
        self.keep = (
            keep and self.side <= CACHE_SIDE and len(images) * 3 * self.side**2 <= CACHE_BYTES
        )
        self.augments = augments and augmentation is not None

    def __getitem__(self, item: _Item) -> _Read:
        """Return the images, uint8 (b, 3, W, W), and their plans (b, columns).

        An error is returned and not raised, so that it crosses processes unchanged.
        """
        plans = torch.stack([self._plan(key) for key in item])
        side = self.size if self.augments else self.side
        if self.augments:
            images = torch.empty(len(item), 3, side, side, dtype=torch.uint8)
        else:  # channels last, as decoding and resizing return them; turned on the batch's device
            images = torch.empty(len(item), side, side, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        try:
            with _mapper(self.images) as apply_to_each:
                results = apply_to_each(self._image, item, plans)
                for row, image in zip(images, results, strict=True):
                    row.copy_(image)
        except UserError as error:
            return error
        return images, plans

    def _plan(self, key: ImageKey) -> Tensor:
        if self.augmentation is None:
            return torch.zeros(0)
        *image, repeat = key  # the plan of an image that an epoch has once does not depend on it
        rng = np.random.default_rng([_AUGMENT, *image, *[repeat] * (repeat > 0)])
        return draw(self.augmentation, self.side, self.size, rng)

    def _image(self, key: ImageKey, plan: Tensor) -> Tensor:
        index = key[2]
        image = self._cached(index) if self.keep else self._read_image(index)
        if not self.augments or self.augmentation is None:
            return image
        image = apply(image[None], plan[None], self.augmentation, self.size)[0]
        return image if self.own_augmentation is None else self.own_augmentation(image, key)

    def _read_image(self, index: int) -> Tensor:
        return read_image(self.images.path(index), self.side, self.images.max_pixels)

    def _cached(self, index: int) -> Tensor:
        """Return an image from memory, and read it at its first use; loaders of a set share it."""
        by_side = _CACHE.setdefault(self.images, {})
        if self.side not in by_side:
            count = len(self.images)
            by_side[self.side] = (
                torch.empty(count, 3, self.side, self.side, dtype=torch.uint8),
                np.zeros(count, dtype=bool),
            )
        pixels, is_read = by_side[self.side]
        if not is_read[index]:
            pixels[index] = self._read_image(index)
            is_read[index] = True
        return pixels[index]


@contextlib.contextmanager
def _mapper(images: ImageSet) -> Iterator[Callable[..., Iterator[Tensor]]]:
    """Yield ``map``; for remote images one with threads, because each request is answered late."""
    if not remote.is_remote(images.folder):
        yield map
        return
    with ThreadPoolExecutor(remote.THREADS) as pool:
        yield pool.map


_CACHE: WeakKeyDictionary[ImageSet, dict[int, tuple[Tensor, NDArray[np.bool_]]]] = (
    WeakKeyDictionary()
)
"""Decoded images of each set by side, and which of them were read; they go with their set."""
