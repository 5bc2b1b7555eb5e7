"""Turn a checkpoint of the published code into one of ours.

The network follows from the shapes of its tensors, and the rest of the configuration is the recipe
of its data set. The labels are those of the data set in their published order, or of a file.

Axes: L labels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sadcl import build, recipes, storage
from sadcl.config import Config
from sadcl.data.readers import files
from sadcl.data.readers.label_lists import LABELS
from sadcl.data.transforms import IMAGENET
from sadcl.errors import UserError
from sadcl.training import published_state
from sadcl.training.checkpoint import save_checkpoint
from sadcl.training.published_state import Sizes

PUBLISHED_MAP = "test_mAP_published"
"""The name of the recorded mAP, by which the published code chose the epoch."""


class Imported(NamedTuple):
    """What was found in a published checkpoint and what was made of it."""

    method: str
    """``SADCL`` or ``Query2Label``."""
    config: Config
    labels: tuple[str, ...]
    dataset: str
    label_source: str
    """Where the labels come from, for the user."""
    weights: str
    """``raw`` or ``ema``."""
    weights_assumed: bool
    """Whether only the missing prefix ``module.`` tells that they are averaged."""
    epoch: int
    """0 where it is not recorded."""
    mAP: float | None
    """As recorded, in percent."""
    has_projection: bool
    prototypes: int
    """Valid prototypes."""
    has_image_size: bool
    """Whether the file tells the size of its images."""
    dropped: tuple[str, ...]
    """What the file has and the new one has not."""


def import_checkpoint(
    uri: str,
    output: str,
    *,
    dataset: str | None = None,
    labels: str | Path | None = None,
    heads: int = 4,
    image_size: int | None = None,
    weights: str | None = None,
) -> Imported:
    """Write a published checkpoint of SADCL or Query2Label as a ``best.pt`` of ours.

    Args:
        uri: the file, local or s3:// or gs://; no code in it is executed.
        output: of the new file, which must not exist yet.
        dataset: what it was trained on, one of :data:`LABELS`; None takes the only one with as many
            labels.
        labels: a file with the names of the labels in their order, one a line, for other labels.
            Where they are those of one known data set, ``dataset`` None is that one.
        heads: number of attention heads, which no tensor tells.
        image_size: side of its images in pixels, for a file without position encoding.
        weights: ``raw`` or ``ema``, for a file with both or without the prefix ``module.``.

    Raises:
        UserError: for a file that is no such checkpoint, has parts without a counterpart here, is
            not whole or contradicts itself; for labels, heads or a size that do not fit it; and for
            an output that exists or cannot be written.
    """
    with _writing(output):
        storage.check_new(output)
        if storage.exists(output):
            raise UserError(f"{output!r} exists already: give another name, or delete it.")
    published = published_state.read_published(uri, weights)
    sizes = published_state.infer_sizes(published.state, uri)
    dataset, names, source = _labels(dataset, labels, sizes.num_labels, uri)
    config = _config(dataset, sizes, heads, image_size, uri)
    network = build.model(config, sizes.num_labels, pretrained=False)
    state = published_state.convert(published.state, network.state_dict(), uri)
    content: dict[str, Any] = {
        "config": config.json_text(),
        "stage": 2 if sizes.projection else 1,
        "labels": list(names),
        "dataset": dataset,
        "data_digest": None,
        "threads": torch.get_num_threads(),
        "epoch": published.epoch,
        "weights": published.weights,
        "metrics": {} if published.mAP is None else {PUBLISHED_MAP: published.mAP},
        "rows": [],
        "imported": sizes.method,
        "source_digest": published.digest,
    }
    with _writing(output):
        save_checkpoint(output, {**content, "model": state}, make_folder=True)
    bank = [published_state.BANK] if published_state.BANK in published.state else []
    return Imported(
        sizes.method,
        config,
        names,
        dataset,
        source,
        published.weights,
        published.assumed,
        published.epoch,
        published.mAP,
        sizes.projection is not None,
        int(state["prototypes.valid_L"].sum()),
        sizes.image_size is not None,
        (*bank, *sorted(published.other)),
    )


@contextlib.contextmanager
def _writing(output: str) -> Iterator[None]:
    """Raise UserError where the block cannot write or look up its output."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise UserError(
            f"{output!r} cannot be written ({reason}): give another place with --output."
        ) from None


def _labels(
    dataset: str | None, file: str | Path | None, count: int, uri: str
) -> tuple[str, tuple[str, ...], str]:
    """Find the data set, the names of the labels, and where they come from.

    Raises:
        UserError: where their number is not ``count``, or more than one data set has as many.
    """
    if dataset is not None and dataset not in LABELS:
        raise UserError(f"--dataset {dataset!r} is not possible: {', '.join(LABELS)}.")
    if file is not None:
        hint = "It names the labels, one a line."
        names, source = tuple(files.read_entries(storage.local(file), hint)), f"of {str(file)!r}"
        same = [known for known, labels in LABELS.items() if tuple(labels) == names]
        dataset = dataset or (same[0] if len(same) == 1 else "folder")
    elif dataset is not None:
        names, source = LABELS[dataset], f"of {dataset}"
    else:
        matches = [name for name, labels in LABELS.items() if len(labels) == count]
        if len(matches) != 1:
            advice = "name them in a file, one a line (--labels)."
            if matches:
                which = f"as {' and '.join(matches)} have: say which with --dataset, or {advice}"
            else:
                known = ", ".join(f"{name} {len(labels)}" for name, labels in LABELS.items())
                which = f"and no data set has that many ({known}): {advice}"
            raise UserError(f"{uri!r} has {count} labels, {which}")
        dataset = matches[0]
        names, source = LABELS[dataset], f"of {dataset}, the only data set with so many"
    if len(names) != count:
        raise UserError(
            f"{uri!r} has {count} labels, but {source.removeprefix('of ')} has {len(names)}. Give "
            "the data set that it was trained on (--dataset), or its own labels in a file, one a "
            "line (--labels)."
        )
    return dataset, names, source


def _config(dataset: str, sizes: Sizes, heads: int, image_size: int | None, uri: str) -> Config:
    """Return the recipe of a data set with the network that was found.

    The published code holds nothing out, trains on VOC 2012's trainval, and normalises images with
    ImageNet's mean and standard deviation, whatever the backbone.

    Raises:
        UserError: for heads or a size that do not fit.
    """
    if heads < 1 or sizes.hidden % heads:
        raise UserError(
            f"--heads {heads} does not fit {uri!r}: it must divide the hidden size {sizes.hidden}."
        )
    if image_size not in (None, sizes.image_size) and sizes.image_size is not None:
        raise UserError(
            f"--image-size {image_size} contradicts {uri!r}, whose positions are for "
            f"{sizes.image_size} px. sadcl evaluate and predict take another size."
        )
    recipe: Config = getattr(recipes, "coco14" if dataset == "folder" else dataset)()
    changes: dict[str, Any] = {
        "data.holdout": 0.0,
        "data.mean": IMAGENET.mean,
        "data.std": IMAGENET.std,
        "data.image_size": sizes.image_size or image_size or recipe.data.image_size,
        "model.backbone": sizes.backbone,
        "model.hidden": sizes.hidden,
        "model.feedforward": sizes.feedforward,
        "model.encoder_layers": sizes.encoder_layers,
        "model.decoder_layers": sizes.decoder_layers,
        "model.heads": heads,
        "model.position": "interleaved",
        "model.projection": sizes.projection or recipe.model.projection,
    }
    if dataset == "voc2012":
        changes["data.voc2012_test"] = "server"
    if dataset == "folder":  # the released weights of the contrasts follow from the labels
        changes["data.name"] = "folder"
        changes["loss.sample_weight"] = sizes.num_labels / 10
        changes["loss.prototype_weight"] = sizes.num_labels / 20
    return recipe.override(changes)
