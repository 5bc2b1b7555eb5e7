"""Data sets behind one interface: images on disk, a matrix of targets, a held-out part that selects.

Axes: N images, L labels.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from sadcl.config import Data
from sadcl.data import coco, scenes, split
from sadcl.data.base import ImageSet, MultiLabelData, Progress
from sadcl.errors import UserError

__all__ = ["ImageSet", "MultiLabelData", "Progress", "load", "resolve"]


def resolve(config: Data, root: str | Path | None) -> Data:
    """The same with the concrete name of the data set that the root holds; no annotations are read.

    Raises:
        UserError: where the root is missing or holds something else.
    """
    if config.name == "scenes":
        return config
    if root is None:
        raise UserError(f"data.name = {config.name!r} needs images: say where they are with --data-root (data_root=).")
    return config.model_copy(update={"name": coco.concrete(config.name, Path(root).expanduser())})


def load(config: Data, root: str | Path | None = None, *, progress: Progress | None = None) -> MultiLabelData:
    """Read a data set, check it, and hold out the part of its training images that selects.

    Args:
        config: which images and which split.
        root: the folder of a real data set; for the embedded scenes the folder to make them in, None for the user's
            cache.
        progress: called with images made and images in all while scenes are drawn; not called where they are there.

    Raises:
        UserError: for a copy that is incomplete or damaged, or a split that comes out without images.
    """
    config = resolve(config, root)
    if config.name == "scenes":
        folder = scenes.ensure(
            Path(root).expanduser() if root is not None else _cache(),
            seed=config.scene_seed,
            train=config.scene_train,
            test=config.scene_test,
            progress=progress,
        )
        try:
            splits = coco.read(folder, "coco17")
        except UserError as error:
            raise UserError(f"The embedded scenes are damaged: {error} Delete {str(folder)!r}: they are made anew.") from None
        return _divide(config, *splits, version=f"scenes-v{scenes.VERSION}-{config.scene_seed}")
    assert root is not None
    return _divide(config, *coco.read(Path(root).expanduser(), config.name))


def _divide(config: Data, train: ImageSet, test: ImageSet, version: str = "") -> MultiLabelData:
    seed = config.split_seed
    if config.unlabelled == "drop":
        train, test = (s.subset(np.flatnonzero((s.targets == 1).any(axis=1)), s.name) for s in (train, test))
    if config.limit_train is not None:
        train = train.subset(split.draw(len(train), config.limit_train, seed), train.name)
    if config.limit_test is not None:
        test = test.subset(split.draw(len(test), config.limit_test, seed), test.name)
    held_N = split.hold_out(train.targets, config.holdout, seed)
    kept = train.subset(np.flatnonzero(~held_N), f"{config.name}-train")
    held = train.subset(np.flatnonzero(held_N), f"{config.name}-holdout")
    if not (kept.targets == 1).any():
        hint = "" if config.limit_train is None else " (data.limit_train leaves no more)"
        raise UserError(
            f"The training split of {config.name} in {train.folder!r} has {len(kept)} images{hint} and none has a label: "
            "there is nothing to learn. Check the annotations."
        )
    if config.holdout > 0 and not len(held):
        raise UserError(
            f"data.holdout = {config.holdout} of {len(train)} training images of {config.name} is no image at all: "
            "nothing could select. Raise data.holdout or data.limit_train, or set data.holdout = 0."
        )
    if not len(test):
        raise UserError(f"The test split of {config.name} in {test.folder!r} has no image with a label.")
    return MultiLabelData(
        config.name, train.labels, kept, held, test.subset(range(len(test)), f"{config.name}-test"), version
    )


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "sadcl"
