"""Load a data set: find its reader, read and check its lists, and hold out the part that selects.

A data set of your own needs nothing here (:mod:`sadcl.data.dataset`). To build one in, write a
reader and enter it:

1. Write a module in ``sadcl/data/readers/`` with the functions of :class:`Reader`. ``coco.py`` is a
   good one to start from, and ``files.py`` has what readers share: lists, tables, letter case.
2. Add its name to ``READERS`` below and to ``DATASETS`` in ``sadcl/config/sections.py``, with a
   field for each policy of its own.
3. Add a small copy to ``tests/data/readers/layouts.py``, on which all tests of the contract run.
4. Where there are published counts, add them to ``sadcl/data/audit/published_counts.py``.

Axes: N images, L labels.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from sadcl import storage
from sadcl.config import Data, component
from sadcl.data import manifest, prepared, remote, split
from sadcl.data.base import ImageSet, MultiLabelData, Progress, digest_of
from sadcl.data.dataset import OwnReader
from sadcl.data.readers import coco, files, folder, nuswide, scenes, vg500, voc
from sadcl.data.readers.sources import is_utf8
from sadcl.errors import UserError


class Reader(Protocol):
    """What a module in ``sadcl/data/readers/`` defines.

    A reader whose publisher has boxes may define two more functions:

    - ``boxes(root, config, images) -> Boxes`` returns the boxes of a set of these images, so that
      attention maps can be scored against them.
    - ``flat_boxes(root, config, splits)`` yields split, image, label and values of each box without
      area, for ``sadcl data check``.

    The root is a local folder; of a remote root it is the mirror, where image files are empty.
    """

    def check_root(self, root: Path, config: Data) -> None:
        """Look whether the root is a copy of the data set, without reading annotations.

        Raises:
            UserError: if it is none.
        """

    def read(self, root: Path, config: Data) -> tuple[ImageSet, ImageSet]:
        """Return the training and the test split as listed, whether their images exist or not.

        Whatever it opens, lists or asks for, it does through :mod:`sadcl.data.readers.sources`: it
        is not called again while nothing of that changes.

        Raises:
            UserError: with the file and line of what is missing, damaged or contradictory.
        """


READERS: dict[str, Reader] = {
    "coco14": coco,
    "coco17": coco,
    "voc2007": voc,
    "voc2012": voc,
    "nuswide": nuswide,
    "vg500": vg500,
    "folder": folder,
}
"""The reader of each concrete data set; drawn scenes are read as ``coco17``."""
_NOT_IN_KEY = {
    *("name", "image_size", "prepared"),
    *("scene_train", "scene_test", "scene_seed", "scene_kind"),
    *("arguments", "sampler", "sampler_arguments", "max_pixels"),
    *("feature_views", "feature_dtype"),
}
"""Fields that change no split of given sources. The name is part of every key on its own."""
_APPLIED_LATER = {"missing", "unlabelled", "limit_train", "limit_test", "holdout", "split_seed"}
"""Fields that no reader looks at, so that one manifest serves all values of them."""


def resolve(config: Data, root: str | Path | None) -> Data:
    """Return the configuration with the concrete name of the data set that the root holds.

    No annotations are read.

    Raises:
        UserError: if the root is missing or holds something else.
    """
    if config.name == "scenes":
        return config
    if root is None:
        raise UserError(
            f"data.name = {config.name!r} needs images: give their folder with --data-root "
            "(data_root=)."
        )
    place = annotation_folder(root)
    if not is_utf8(str(place)):
        raise UserError(f"The data root {str(root)!r} is no UTF-8 text; rename the folder.")
    if not place.is_dir():
        what = "is a file, not a folder" if place.exists() else "does not exist"
        raise UserError(
            f"The data root {str(root)!r} {what}; give the folder that holds annotations and the "
            "images."
        )
    if component.is_path(config.name):
        return config
    with remote.errors_name_root(root, place):
        if config.name.startswith("coco"):
            return config.model_copy(update={"name": coco.concrete(config.name, place)})
        READERS[config.name].check_root(place, config)
    return config


def load(
    config: Data,
    root: str | Path | None = None,
    *,
    progress: Progress | None = None,
    sources: Mapping[str, str] | None = None,
) -> MultiLabelData:
    """Read a data set, check it, and hold out the part of its training images that selects.

    Annotations are read once and kept as a manifest in the user's cache until one of them changes.
    Whether the images are on disk is checked each time.

    Args:
        config: the data set and its policies.
        root: the folder of a real data set, or its s3:// or gs:// URI. For the drawn scenes it
            is the folder to draw them in, and None is the user's cache.
        progress: called with the number of drawn scenes, or of fetched annotation files, and the
            number of all; not called if there is nothing to do.
        sources: hash of the source of a data set of your own, as the configuration records it; None
            does not check it.

    Raises:
        UserError: for a copy that is incomplete or damaged, or a split without images.
    """
    listing = read_listing(config, root, progress=progress, sources=sources)
    config, place, reader, reader_config, listed, _ = listing
    with _errors_for_users(config.name, place, root):
        splits = [files.existing_images(images, config.missing) for images in listed]
        files.check_disjoint(*splits)  # again, because names are now those on disk
    if root is not None:
        splits = [remote.with_root(images, place, root) for images in splits]
    train, test = splits
    fields = config.model_dump_json(exclude=_NOT_IN_KEY)
    content = (train.folder, train.digest, test.folder, test.digest)
    key = digest_of(manifest.VERSION, config.name, *content, fields)
    train, val, test = manifest.open_or_derive(key, lambda: _divide(config, *splits))
    if config.max_pixels is not None:
        train, val, test = (replace(s, max_pixels=config.max_pixels) for s in (train, val, test))
    name, version = config.name, ""
    if name == "scenes":
        name = scenes.name_of(config.scene_kind, config.scene_seed)
        version = scenes.version_of(config.scene_kind, config.scene_seed)
    missing = sum(map(len, listed)) - sum(map(len, splits))
    read_boxes = getattr(reader, "boxes", None)
    boxes = partial(read_boxes, place, reader_config) if read_boxes is not None else None
    return MultiLabelData(name, train.labels, train, val, test, version, missing, boxes)


class Listing(NamedTuple):
    """What a copy lists, whether its images exist or not."""

    config: Data
    """With the concrete name."""
    place: Path
    """The folder that annotations are read from."""
    reader: Reader
    reader_config: Data
    """What the reader is called with; drawn scenes are read as COCO 2017."""
    splits: Sequence[ImageSet]
    """Train and test."""
    paths: Sequence[Path] = ()
    """What the reader looked at; nothing for a data set of your own, where it is not known."""


def read_listing(
    config: Data,
    root: str | Path | None = None,
    *,
    progress: Progress | None = None,
    sources: Mapping[str, str] | None = None,
) -> Listing:
    """Read both splits before anything is dropped or held out.

    They come from the manifest if no source has changed; a data set of your own is always read.
    Arguments and errors are those of :func:`load`.
    """
    config = reader_config = resolve(config, root)
    if config.name == "scenes":
        if config.prepared is not None:
            raise UserError(
                f"data.prepared = {config.prepared} is not possible with the drawn scenes."
            )
        place = scenes.ensure(
            storage.local(root) if root is not None else manifest.cache_folder(),
            seed=config.scene_seed,
            train=config.scene_train,
            test=config.scene_test,
            kind=config.scene_kind,
            progress=progress,
        )
        reader_config = config.model_copy(update={"name": "coco17"})
    else:
        assert root is not None
        place = annotation_folder(root, progress)
        with remote.errors_name_root(root, place):
            prepared.check(config, place, str(root))
    if component.is_path(config.name):
        own_reader = OwnReader(sources)
        with _errors_for_users(config.name, place, root):
            splits = own_reader.read(place, reader_config)
        return Listing(config, place, own_reader, reader_config, splits)
    reader = READERS[reader_config.name]
    fields = reader_config.model_dump_json(exclude=_NOT_IN_KEY | _APPLIED_LATER)
    with _errors_for_users(config.name, place, root):
        listed, paths = manifest.open_or_read(
            place, lambda: reader.read(place, reader_config), reader_config.name, fields
        )
    return Listing(config, place, reader, reader_config, listed, paths)


def annotation_folder(root: str | Path, progress: Progress | None = None) -> Path:
    """Return the folder that annotations are read from: the root, or the mirror of a remote one."""
    if remote.is_remote(root):
        return remote.mirror_of(str(root).rstrip("/"), manifest.cache_folder(), progress)
    return storage.local(root)


def label_sources(config: Data, root: str | Path) -> list[Path]:
    """Return the files that labels and paths were read from, below :func:`annotation_folder`."""
    return [path for path in read_listing(config, root).paths if path.is_file()]


def witness_files(images: MultiLabelData, config: Data, root: str | Path | None) -> list[str]:
    """Return relative paths of a few files that show whether another machine has the same copy.

    They are the first 16 of :func:`label_sources`, and of a local root, or of a data set of your
    own, the first and last image of each split. Embedded scenes need none, because each machine
    draws them.
    """
    if root is None or config.name == "scenes":
        return []
    place = annotation_folder(root)
    own = component.is_path(config.name)  # its function is not called a second time
    paths = [] if own else label_sources(config, root)[:16]
    names = [os.path.relpath(path, place) for path in paths]
    if not remote.is_remote(root) or own:
        base = str(root) if remote.is_remote(root) else str(place)
        splits = [part for part in (images.train, images.val, images.test) if len(part)]
        ends = [part.path(i) for part in splits for i in (0, len(part) - 1)]
        names += [os.path.relpath(path, base) for path in ends]
    return names


@contextlib.contextmanager
def _errors_for_users(name: str, place: Path, root: str | Path | None) -> Iterator[None]:
    """Name the root in errors of readers, and what to do about damaged scenes."""
    try:
        with remote.errors_name_root(root or place, place):
            yield
    except UserError as error:
        if name != "scenes":
            raise
        raise UserError(
            f"The drawn scenes are damaged: {error} Delete {str(place)!r}; the next run draws "
            "them again."
        ) from None


def _divide(config: Data, train: ImageSet, test: ImageSet) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Drop, limit and hold out images: the training, the held-out and the test split."""
    seed = config.split_seed
    if config.unlabelled == "drop":
        train, test = (
            s.subset(np.flatnonzero((s.targets != 0).any(axis=1)), s.name) for s in (train, test)
        )
    if config.limit_train is not None:
        train = train.subset(split.draw(len(train), config.limit_train, seed), train.name)
    if config.limit_test is not None:
        test = test.subset(split.draw(len(test), config.limit_test, seed), test.name)
    held_out_N = split.hold_out(train.targets, config.holdout, seed)
    trained = train.subset(np.flatnonzero(~held_out_N), f"{config.name}-train")
    val = train.subset(np.flatnonzero(held_out_N), f"{config.name}-holdout")
    if not (trained.targets == 1).any():
        hint = "" if config.limit_train is None else " (data.limit_train leaves no more)"
        raise UserError(
            f"The training split of {config.name} in {train.folder!r} has {len(trained)} images"
            f"{hint} and none has a label: there is nothing to learn. Check the annotations."
        )
    if config.holdout > 0 and not len(val):
        raise UserError(
            f"data.holdout = {config.holdout} of {len(train)} training images of {config.name} is "
            "no image at all: nothing could select. Raise data.holdout or data.limit_train, or set "
            "data.holdout = 0."
        )
    if not len(test):
        listed = f", which {test.list_name} lists," if test.list_name else ""
        raise UserError(
            f"The test split of {config.name} in {test.folder!r}{listed} has no image with a label."
        )
    return trained, val, test.subset(range(len(test)), f"{config.name}-test")
