"""The data sets of a study: where they lie, read, and looked at before anything is reserved."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sadcl import build, data
from sadcl import storage as storage_of
from sadcl.config import Config
from sadcl.console import console, progress_bar
from sadcl.data import image_check
from sadcl.errors import UserError, did_you_mean
from sadcl.launch import estimate, resources
from sadcl.launch.options import Options
from sadcl.search.trial import DataContext
from sadcl.study import execute
from sadcl.study.placement import Placement
from sadcl.training import checkpoint


@dataclass(frozen=True)
class PreparedData:
    """A data set that was read and looked at, and what runs on it."""

    context: DataContext
    placement: Placement
    images: data.MultiLabelData
    witnesses: Sequence[str]
    """Files that every node must have below the data root."""

    @functools.cached_property
    def checkpoint_bytes(self) -> tuple[int, int]:
        """Of :func:`sadcl.launch.estimate.checkpoint_bytes`, which builds a network for it."""
        return estimate.checkpoint_bytes(self.context.base, len(self.images.labels))


def prepare_data(
    name: str, base: Config, known: str, root: str | None, scale: str, options: Options
) -> PreparedData:
    """Read a data set, and find out whether its configuration can be trained here."""
    if root is not None:
        concrete = data.resolve(base.data.model_copy(update={"name": known}), root).name
        base = base.override({"data.name": concrete})
    placement = resources.make_placement(
        options.storage, root, scale, options.workers, options.gpus_per_trial, options.address
    )
    images = read_data(base, root)
    whole = execute.cached_data(base.data.model_copy(update={"holdout": 0.0}), root)
    build.check_model(base)
    base, start = started_from(base, images.labels)
    context = DataContext(name, base, images.digest, whole.digest, start)
    return PreparedData(context, placement, images, data.witness_files(images, base.data, root))


def scale_of(scale: str | None, data_root: Any) -> str:
    """The scale that was asked for, or that goes with the data.

    Raises:
        UserError: for another word, or full scale without data.
    """
    scale = scale or ("full" if data_root is not None else "demo")
    if scale not in ("demo", "full"):
        raise UserError(f"--scale {scale!r} is not possible: demo or full.")
    if scale == "full" and data_root is None:
        raise UserError("--scale full needs --data-root: say where the data set lies.")
    return scale


def roots_of(known: Sequence[str], given: str | Mapping[str, str] | None) -> dict[str, str]:
    """Where each data set lies, of those that were given a place.

    Raises:
        UserError: for a data set that the study does not have, or one place for several.
    """
    if given is None:
        return {}
    if isinstance(given, str):
        if len(known) > 1:
            example = f"--data-root {known[0]}={given}"
            raise UserError(
                f"This study has {len(known)} data sets ({', '.join(known)}): say whose {given!r} is, as in {example}."
            )
        return {known[0]: given}
    if unknown := [name for name in given if name not in known]:
        raise UserError(
            f"--data-root names the data set {unknown[0]!r}{did_you_mean(unknown[0], known)}"
        )
    return dict(given)


def read_data(config: Config, root: str | None) -> data.MultiLabelData:
    """Read the data and look at every image file here first, so that what is wrong is said before anything is reserved."""
    with progress_bar("reading the data") as show:
        images = data.load(
            config.data,
            root,
            progress=show("drawing the scenes" if root is None else "fetching annotations"),
        )
        if config.data.prepared is not None or "://" in str(root):
            return images  # decoded when they were made; or so far away that looking takes as long as an epoch
        image_check.check_files(
            [images.train, images.val, images.test], progress=show("looking at the image files")
        )
    return images


def missing_note(images: data.MultiLabelData) -> str:
    return (
        f", {images.missing:,} listed images are not on disk and were left out"
        if images.missing
        else ""
    )


def started_from(config: Config, labels: tuple[str, ...]) -> tuple[Config, str]:
    """Try the checkpoint that training starts from, where there is one; its absolute place, and its digest."""
    uri = config.model.start
    if uri is None:
        return config, ""
    uri = storage_of.absolute(uri)
    network = build.model(config, len(labels), pretrained=False)
    taken = checkpoint.load_network(
        network, checkpoint.load_checkpoint(uri), uri, labels, whole=not config.stage1.epochs
    )
    console.print(f"  starts from {uri}: {taken}", highlight=False)
    return config.override({"model.start": uri}), checkpoint.digest(uri)
