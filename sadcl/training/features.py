"""The feature maps of a frozen backbone: computed once for each image and view, then read.

They lie in the user's cache folder on each node, below ``features``, and are found by everything
that they depend on. Trials, seeds and workers share them: whoever needs them first computes them,
and others wait.

Axes: B images of a batch, C, H, W channels, height and width of a map.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sadcl import build, distributed
from sadcl.config import Augmentation, Config
from sadcl.data import manifest
from sadcl.data.base import MultiLabelData, digest_of
from sadcl.data.feature_file import DTYPES, FeatureFile, Layout, prune
from sadcl.data.feature_views import Pool, SplitFeatures, pool_digest, pool_of
from sadcl.data.loader import Loader
from sadcl.errors import UserError
from sadcl.model import Network

VERSION = "1"
"""Raise it with every change to how maps are computed or stored; older files are then not read."""
AGREE_SECONDS, POLL_SECONDS = 15.0, 0.5
"""Workers that wait for one another tell each other so often whether all are done, so that no
collective call runs out of time; and so often they look how far another process is."""
REPORT_SECONDS = 10.0
SEED = 0
"""Seed of the views' augmentation, whatever the seed of the run."""

FeaturesReport = Callable[[int, int, float], object]
"""Called with the finished rows of a file, all of its rows, and the seconds that are left."""


def cache_folder() -> Path:
    """Return the folder of all feature maps on this machine."""
    return manifest.cache_folder() / "features"


class FeatureStore:
    """The stored feature maps of a data set for one frozen backbone.

    Args:
        config: with ``stores_features``.
        network: with the backbone's weights, on the worker's device.
        data: the data set.
        worker: this process.
        report: called every few seconds while maps are computed.
    """

    def __init__(
        self,
        config: Config,
        network: Network,
        data: MultiLabelData,
        worker: build.Worker,
        report: FeaturesReport | None = None,
    ) -> None:
        self.config, self.backbone, self.data = config, network.backbone, data
        self.worker, self._report = worker, report
        self._pools: dict[str, tuple[Pool, str]] = {}

    def split(self, name: str, augmentation: Augmentation | None = None) -> SplitFeatures:
        """Return the maps of a split, after computing what is missing. This is a collective call.

        Args:
            name: ``train``, ``val`` or ``test``.
            augmentation: of the stage that trains on it; None is the plain view.

        Raises:
            UserError: for an image that cannot be decoded, a disk that is full or cannot be
                written, or maps that the number format cannot hold.
        """
        pool, _ = self._pool(name)
        try:
            files = self.files(name, augmentation)
            for view, file in files.items():
                self._wait_for_all(self._complete(file, pool, view, augmentation))
            return SplitFeatures(pool.rows[name], [file.rows() for file in files.values()])
        except OSError as error:
            raise UserError(
                f"The feature maps cannot be stored in {str(cache_folder())!r}: {error}. Set "
                "XDG_CACHE_HOME to a folder that can be written, or data.feature_views = 0, which "
                "stores none."
            ) from None

    def files(self, name: str, augmentation: Augmentation | None = None) -> dict[int, FeatureFile]:
        """Return the files of a split by view: 0 is the plain one, 1 and more are augmented."""
        views = 0 if augmentation is None else self.config.views_of(augmentation)
        pool, digest = self._pool(name)
        layout = replace(self._layout, rows=len(pool.images))
        files = {}
        for view in range(1, views + 1) if views else [0]:
            about = self._about(digest, augmentation, view)
            text = json.dumps(about, sort_keys=True)
            folder = cache_folder() / f"{digest_of(text)}"
            files[view] = FeatureFile(folder, layout, build.EVALUATION_BATCH)
        return files

    def _about(self, pool: str, augmentation: Augmentation | None, view: int) -> dict[str, Any]:
        """Return everything that the maps of a view depend on."""
        config, own = self.config, None
        drawn = augmentation.model_dump(mode="json") if augmentation is not None and view else None
        if drawn is not None and drawn["own"] is not None:
            own = config.sources.get(drawn["own"].partition(":")[0])
        return {
            "version": VERSION,
            "images": pool,
            "backbone": config.model.backbone,
            "weights": self._weights,
            "layout": [self._layout.shapes, self._layout.dtype],
            "image_size": config.data.image_size,
            "normalisation": build.normalisation(config),
            "precision": build.precision(config, self.worker.device),
            "device": self.worker.device.type,
            "augmentation": drawn,
            "own": own,
            "view": view,
        }

    def _pool(self, name: str) -> tuple[Pool, str]:
        kind = "test" if name == "test" else "train"
        if kind not in self._pools:
            pool = pool_of(self.data, kind)
            self._pools[kind] = pool, pool_digest(pool.images)
        return self._pools[kind]

    @cached_property
    def _weights(self) -> str:
        """Digest of the content of the backbone's weights and statistics."""
        content = hashlib.sha256()
        for name, tensor in sorted(self.backbone.state_dict().items()):
            content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            content.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
        return content.hexdigest()[:24]

    @cached_property
    def _layout(self) -> Layout:
        """Layout of a file without rows."""
        side, device = self.config.data.image_size, next(self.backbone.parameters()).device
        maps = self._maps(torch.zeros(1, 3, side, side, device=device))
        shapes = tuple((part.shape[1], part.shape[2], part.shape[3]) for part in maps)
        return Layout(0, shapes, self.config.data.feature_dtype)

    @torch.no_grad()
    def _maps(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        with build.autocast(self.config, self.worker.device):
            return self.backbone.maps(images_BCHW)

    def _complete(
        self, file: FeatureFile, pool: Pool, view: int, augmentation: Augmentation | None
    ) -> Iterator[None]:
        """Compute a file, or wait for the process that computes it; yield now and then."""
        before, began, reported = file.rows_recorded(), time.monotonic(), time.monotonic()
        while not file.is_whole():
            with file.claimed() as is_held:
                steps = self._compute(file, pool, view, augmentation) if is_held else _wait()
                for _ in steps:
                    now, done = time.monotonic(), file.rows_recorded()
                    if now - reported >= REPORT_SECONDS and done > before:
                        reported = now
                        left = (now - began) / (done - before) * (file.layout.rows - done)
                        self._tell(done, file.layout.rows, left)
                    yield
        if (done := file.rows_recorded()) > before:
            self._tell(done, done, 0.0)
        file.touch()

    def _compute(
        self, file: FeatureFile, pool: Pool, view: int, augmentation: Augmentation | None
    ) -> Iterator[None]:
        """Check what is there of a file, and compute what is missing, batch by batch."""
        if file.is_whole():  # another process was faster
            return
        good = 0
        for count in file.check():
            good = count
            Loader.total_batches += 1  # a sign of life
            yield
        row = file.begin(good)
        prune(cache_folder(), manifest.DAYS)
        if row == file.layout.rows:
            return
        loader = build.loader(
            self.config.model_copy(update={"seed": SEED}),
            pool.images,
            build.Worker(device=self.worker.device, loader_workers=self.worker.loader_workers),
            augmentation=augmentation if view else None,
        )
        dtype = DTYPES[file.layout.dtype][0]
        for batch in loader.batches(view, row // build.EVALUATION_BATCH):
            maps = self._maps(batch.images_BCHW)
            stored = [part.to(dtype).cpu() for part in maps]
            self._check_finite(maps, stored)
            file.append(row, stored)
            row += len(batch.index_B)
            yield

    def _check_finite(self, maps: tuple[Tensor, ...], stored: list[Tensor]) -> None:
        if all(bool(part.isfinite().all()) for part in stored):
            return
        name = self.config.data.feature_dtype
        if all(bool(part.isfinite().all()) for part in maps):
            raise UserError(
                f"data.feature_dtype = {name!r} cannot hold the feature maps of "
                f"{self.config.model.backbone}: one has a value of "
                f"{max(float(part.abs().max()) for part in maps):.3g}. Set it to 'bf16' or 'fp32'."
            )
        raise UserError(
            f"The feature maps of {self.config.model.backbone} are not finite: its weights are "
            "damaged, or do not fit data.mean and data.std."
        )

    def _wait_for_all(self, steps: Iterator[None]) -> None:
        """Take the steps to their end, on all workers."""
        is_done = False
        while not is_done:
            until, is_done = time.monotonic() + AGREE_SECONDS, True
            for _ in steps:
                if time.monotonic() > until:
                    is_done = False
                    break
            ended = torch.tensor(int(is_done), device=self.worker.device)
            is_done = int(distributed.global_sum(ended)) == distributed.world_size()

    def _tell(self, done: int, rows: int, seconds: float) -> None:
        if self._report is not None and distributed.rank() == 0:
            self._report(done, rows, seconds)


def _wait() -> Iterator[None]:
    """Wait a little for another process, which is a sign of life as well."""
    time.sleep(POLL_SECONDS)
    Loader.total_batches += 1
    yield


def store_of(
    config: Config,
    network: Network,
    data: MultiLabelData,
    worker: build.Worker,
    report: FeaturesReport | None = None,
) -> FeatureStore | None:
    """Return the store of a configuration; None where the backbone computes every step."""
    return FeatureStore(config, network, data, worker, report) if config.stores_features else None


def split_of(
    store: FeatureStore | None, name: str, augmentation: Augmentation | None = None
) -> SplitFeatures | None:
    """Return the maps of a split, as :meth:`FeatureStore.split` does; None without a store."""
    return None if store is None else store.split(name, augmentation)
