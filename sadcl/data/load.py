"""Data sets behind one interface: images on disk, a matrix of targets, a held-out part that selects.

A reader is a module with ``sources(root, config)``, the files (and folders of images) that its labels and paths follow
from, and ``read(root, config)``, the training and the test split as listed; it is not called where a manifest is there.
Where the publisher has boxes, ``flat_boxes(root, config, splits)`` gives those without area, and
``boxes(root, config, images)`` may give the others.
Axes: N images, L labels.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from sadcl import storage
from sadcl.config import Data
from sadcl.data import manifest, prepared, remote, split
from sadcl.data.base import ImageSet, MultiLabelData, Progress, digest_of
from sadcl.data.readers import coco, files, folder, nuswide, scenes, vg500, voc
from sadcl.errors import UserError

_READERS = {
    "coco14": coco,
    "coco17": coco,
    "voc2007": voc,
    "voc2012": voc,
    "nuswide": nuswide,
    "vg500": vg500,
    "folder": folder,
}
_NOT_IN_KEY = {"name", "image_size", "prepared", "scene_train", "scene_test", "scene_seed"}
"""Fields that change no split of a given source; the name is in each key by itself."""
_APPLIED_LATER = {"missing", "unlabelled", "limit_train", "limit_test", "holdout", "split_seed"}
"""Fields that no reader looks at, so that one reading serves many divisions."""


def resolve(config: Data, root: str | Path | None) -> Data:
    """The same with the concrete name of the data set that the root holds; no annotations are read.

    Raises:
        UserError: where the root is missing or holds something else.
    """
    if config.name == "scenes":
        return config
    if root is None:
        raise UserError(
            f"data.name = {config.name!r} needs images: say where they are with --data-root (data_root=)."
        )
    place = annotation_folder(root)
    if not files.encodes(str(place)):
        raise UserError(f"The data root {str(root)!r} is no UTF-8 text; rename the folder.")
    if not place.is_dir():
        what = "is a file, not a folder" if place.exists() else "does not exist"
        raise UserError(
            f"The data root {str(root)!r} {what}; give the folder that holds annotations and the images."
        )
    with remote.told(root, place):
        if config.name.startswith("coco"):
            return config.model_copy(update={"name": coco.concrete(config.name, place)})
        _READERS[config.name].sources(place, config)
    return config


def load(
    config: Data, root: str | Path | None = None, *, progress: Progress | None = None
) -> MultiLabelData:
    """Read a data set, check it, and hold out the part of its training images that selects.

    Annotations are read once and kept as a manifest in the user's cache, until one of them changes. That the images are
    on disk is looked at each time.

    Args:
        config: which images and which split.
        root: the folder of a real data set, or its s3:// or gs:// URI; for the embedded scenes the folder to make them in,
            None for the user's cache.
        progress: called with scenes drawn, or annotation files fetched, and how many in all; not called where all are there.

    Raises:
        UserError: for a copy that is incomplete or damaged, or a split that comes out without images.
    """
    found = read_listed(config, root, progress=progress)
    with _named_errors(found.config.name, found.place, root):
        splits = [files.present(images, config.missing) for images in found.splits]
        files.disjoint(*splits)  # again: names as they are on disk
    if root is not None:
        splits = [remote.moved(images, found.place, root) for images in splits]
    train, test = splits
    fields = found.config.model_dump_json(exclude=_NOT_IN_KEY)
    key = digest_of(
        manifest.VERSION,
        found.config.name,
        train.folder,
        train.digest,
        test.folder,
        test.digest,
        fields,
    )
    kept, held, test = manifest.cached(key, lambda: _divide(found.config, *splits))
    version = f"scenes-v{scenes.VERSION}-{config.scene_seed}" if config.name == "scenes" else ""
    missing = sum(map(len, found.splits)) - sum(map(len, splits))
    name = found.config.name + f"-{config.scene_seed}" * (version != "" and config.scene_seed > 0)
    boxes = (
        partial(found.reader.boxes, found.place, found.reading)
        if hasattr(found.reader, "boxes")
        else None
    )
    return MultiLabelData(name, kept.labels, kept, held, test, version, missing, boxes)


class Listed(NamedTuple):
    """What a copy lists, whether its images are there or not."""

    config: Data
    """With the concrete name."""
    place: Path
    reader: ModuleType
    reading: Data
    """What the reader is given; scenes are read as COCO 2017."""
    splits: Sequence[ImageSet]
    """Train and test."""


def read_listed(
    config: Data, root: str | Path | None = None, *, progress: Progress | None = None
) -> Listed:
    """Both splits before anything is dropped or held out, from the manifest where nothing has changed.

    Arguments and errors are those of :func:`load`.
    """
    config = reading = resolve(config, root)
    if config.name == "scenes":
        if config.prepared is not None:
            raise UserError(
                f"data.prepared = {config.prepared} is not possible with the embedded scenes."
            )
        place = scenes.ensure(
            storage.local(root) if root is not None else manifest.cache(),
            seed=config.scene_seed,
            train=config.scene_train,
            test=config.scene_test,
            progress=progress,
        )
        reading = config.model_copy(update={"name": "coco17"})
    else:
        assert root is not None
        place = annotation_folder(root, progress)
        with remote.told(root, place):
            prepared.check(config, place, str(root))
    reader = _READERS[reading.name]
    fields = reading.model_dump_json(exclude=_NOT_IN_KEY | _APPLIED_LATER)
    with _named_errors(config.name, place, root):

        def key() -> str:
            return manifest.key_of(place, reader.sources(place, reading), reading.name, fields)

        splits = manifest.cached(key(), lambda: reader.read(place, reading), key)
    return Listed(config, place, reader, reading, splits)


def annotation_folder(root: str | Path, progress: Progress | None = None) -> Path:
    """The folder that annotations are read from: the root, or the mirror of one that is elsewhere."""
    if remote.elsewhere(root):
        return remote.mirrored(str(root).rstrip("/"), manifest.cache(), progress)
    return storage.local(root)


def label_sources(config: Data, root: str | Path) -> list[Path]:
    """The files and folders that labels and paths follow from, below :func:`place_of` the root; the name is concrete."""
    found: list[Path] = _READERS[config.name].sources(annotation_folder(root), config)
    return found


def witness_files(found: MultiLabelData, config: Data, root: str | Path | None) -> list[str]:
    """Names below the root of a few files that tell whether another machine has the same copy.

    They are the first that :func:`sources` gives, and of a root that is a folder the first and last image of each split.
    None are needed for embedded scenes, which each machine makes.
    """
    if root is None or config.name == "scenes":
        return []
    place, paths = annotation_folder(root), [str(path) for path in label_sources(config, root)[:16]]
    if not remote.elsewhere(root):
        splits = [images for images in (found.train, found.val, found.test) if len(images)]
        paths += [images.path(i) for images in splits for i in (0, len(images) - 1)]
    return [os.path.relpath(path, place) for path in paths]


@contextlib.contextmanager
def _named_errors(name: str, place: Path, root: str | Path | None) -> Iterator[None]:
    try:
        with remote.told(root or place, place):
            yield
    except UserError as error:
        if name != "scenes":
            raise
        raise UserError(
            f"The embedded scenes are damaged: {error} Delete {str(place)!r}: they are made anew."
        ) from None


def _divide(config: Data, train: ImageSet, test: ImageSet) -> tuple[ImageSet, ImageSet, ImageSet]:
    seed = config.split_seed
    if config.unlabelled == "drop":
        train, test = (
            s.subset(np.flatnonzero((s.targets != 0).any(axis=1)), s.name) for s in (train, test)
        )
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
        raise UserError(
            f"The test split of {config.name} in {test.folder!r} has no image with a label."
        )
    return kept, held, test.subset(range(len(test)), f"{config.name}-test")
