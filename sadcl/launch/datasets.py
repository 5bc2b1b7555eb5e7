"""The data sets of a study: found, read and checked before anything is reserved."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from sadcl import build, data, storage
from sadcl.config import Config, Data
from sadcl.console import count_text, print_text, progress_bar, working
from sadcl.data import image_check, label_names
from sadcl.data.sampler import check_sampler
from sadcl.errors import UserError, did_you_mean
from sadcl.launch import estimate, resources
from sadcl.launch.loss_check import check_losses
from sadcl.launch.options import Options, StartOptions
from sadcl.metrics import check_metrics, check_names
from sadcl.search.trial import DataContext, study_name
from sadcl.study import execute
from sadcl.study.placement import Placement
from sadcl.study.record import check_unlocked
from sadcl.training import checkpoint
from sadcl.training.setup import co_occurrence

MIN_POSITIVES = 5
"""Fewer images of a label than these are too few for its AP."""
MOST_AT_ONCE = 4
"""Runs that read stored feature maps find room for so many at once on this machine's CPUs: a head
gains little from several threads, and each run takes a GB of memory or two."""


@dataclass(frozen=True)
class PreparedData:
    """A data set that was read and checked, and what is needed to train on it.

    Attributes:
        context: What all runs of the study have in common on the data set.
        placement: Where and on how much each run runs.
        images: The data set.
        witnesses: Files below the data root that every node must have.
    """

    context: DataContext
    placement: Placement
    images: data.MultiLabelData
    witnesses: Sequence[str]

    @functools.cached_property
    def checkpoint_bytes(self) -> tuple[int, int]:
        """Bytes of a run's checkpoint and state; see :mod:`sadcl.launch.estimate`."""
        return estimate.checkpoint_bytes(self.context.base, len(self.images.labels))

    def of_study(self, name: str) -> PreparedData:
        """The same for a study of this name."""
        context = dataclasses.replace(self.context, study=name)
        return dataclasses.replace(self, context=context)

    @functools.cached_property
    def one_image(self) -> estimate.TimedTraining:
        """How long one worker trains on one image; the step is timed once."""
        base, num_labels = self.context.base, len(self.images.labels)
        return estimate.training_hours(base, num_labels, 1, self.placement)

    def description(self) -> str:
        """The data set with its number of images and labels."""
        return (
            f"{self.images.name} ({image_counts(self.images)}, {len(self.images.labels)} labels"
            f"{missing_note(self.images)})"
        )


def prepare_data(
    name: str,
    base: Config,
    dataset: Data,
    scale: str,
    root: str | None,
    options: StartOptions,
    variants: Callable[[Config], Iterable[Config]],
) -> PreparedData:
    """Read a data set, and check that its configuration can be trained here.

    Args:
        name: The study's name.
        base: The study's configuration at its scale.
        dataset: The data set of the study at full scale, such as ``coco``, which takes the place of
            the drawn scenes of a demo configuration where there is a data root.
        scale: ``demo`` or ``full``.
        root: Where the data set is; None for the drawn scenes.
        options: Those of the start.
        variants: Gives the further configurations that the study runs, of a base.

    Raises:
        UserError: For data, resources or a model that cannot be used.
    """
    if root is not None:
        concrete = data.resolve(base.data.model_copy(update={"name": dataset.name}), root).name
        base = base.override({"data.name": concrete, "data.arguments": dataset.arguments})
    placement = resources.make_placement(
        options,
        scale,
        root,
        workers=int(options.workers),
        at_once=MOST_AT_ONCE if base.stores_features else 1,
    )
    images, whole_digest = _read(base, root)
    with working("checking the networks and losses of the study"):
        check_parts([base, *variants(base)], images)
        build.check_batches(base, images)
    base, start = check_start(base, images.labels)
    num_images = {split: len(getattr(images, split)) for split in ("train", "val", "test")}
    context = DataContext(name, base, images.digest, whole_digest, start, num_images)
    return PreparedData(context, placement, images, data.witness_files(images, base.data, root))


def check_free(
    name: str, scale: str, datasets: Iterable[tuple[Data, str | None]], options: Options
) -> None:
    """Look whether another start runs a study, before its data are read and its plan is made.

    Args:
        name: That its file gives it.
        scale: ``demo`` or ``full``.
        datasets: Each data set, and where it is; None for the drawn scenes.
        options: Those of the start; a dry run only prints that one does.

    Raises:
        UserError: Where one does, or for a folder that is not a copy of the data set.
    """
    names = [data.resolve(one, root).name for one, root in datasets if root is not None]
    study = study_name(name, scale, names)
    check_unlocked(options.storage, study, dry_run=options.dry_run)


_kept: ContextVar[dict[Any, tuple[data.MultiLabelData, str]] | None] = ContextVar(
    "data sets that were read", default=None
)


@contextlib.contextmanager
def reading_once() -> Iterator[None]:
    """Read and check each data set once while the block runs, for a start of several studies."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def _read(config: Config, root: str | None) -> tuple[data.MultiLabelData, str]:
    """The data, read and checked, and their digest with nothing held out."""
    kept, key = _kept.get(), (config.data.model_dump_json(), str(config.sources), root)
    if kept is not None and key in kept:
        return kept[key]
    images = read_data(config, root)
    whole = execute.cached_data(config.override({"data.holdout": 0.0}), root)
    if kept is not None:
        kept[key] = images, whole.digest
    return images, whole.digest


def check_parts(configs: Iterable[Config], images: data.MultiLabelData) -> None:
    """Check the parts of each configuration that has others than those before.

    They are the network, the losses, and sampler, augmentations and metrics of the user's.

    Raises:
        UserError: For a part that is not there, takes no such arguments, or does not fit.
    """
    co_occurrence_LL = co_occurrence(images.train.targets)
    checked: set[str] = set()
    for config in configs:
        has_contrasts = bool(config.stage2.epochs) and config.loss.contrasts
        model = f"{config.model.model_dump_json()} {config.data.image_size} {has_contrasts}"
        losses = [config.loss, config.stage1.class_loss, config.stage2.class_loss]
        loss = " ".join(part.model_dump_json() for part in losses)
        augmentations = config.stage1.augmentation, config.stage2.augmentation
        parts = f"{config.data} {config.metrics} {augmentations}"
        if parts not in checked:
            _check_data_parts(config, images)
        if loss not in checked:
            check_losses(config)
        if model not in checked:
            build.check_model(config, images.labels, co_occurrence_LL)
        checked |= {loss, model, parts}


def _check_data_parts(config: Config, images: data.MultiLabelData) -> None:
    """Try sampler, augmentations and metrics of the user's."""
    if config.data.sampler is not None:
        sampler = build.sampler(config)
        check_sampler(sampler, images.train.targets, config.seed, config.data.sampler)
    for stage in (config.stage1, config.stage2):
        if (own := build.own_augmentation(config, stage.augmentation)) is not None:
            own.check(config.data.image_size, config.seed)
    check_names(config.metrics)
    check_metrics(build.metrics(config), len(images.labels))


def scale_of(scale: str | None, data_root: Any) -> str:
    """The requested scale; by default ``full`` if there is a data root, else ``demo``.

    Raises:
        UserError: For another word, or for full scale without data.
    """
    scale = scale or ("full" if data_root is not None else "demo")
    if scale not in ("demo", "full"):
        raise UserError(f"--scale {scale!r} is not possible: choose demo or full.")
    if scale == "full" and data_root is None:
        raise UserError("--scale full needs --data-root, the folder of the data set.")
    return scale


def roots_of(datasets: Sequence[str], data_root: str | Mapping[str, str] | None) -> dict[str, str]:
    """The folder of each data set that has one.

    Args:
        datasets: Those of the study.
        data_root: One folder for the only data set, or a folder by data set.

    Raises:
        UserError: For a data set that the study does not have, or for one folder where there are
            several data sets.
    """
    if data_root is None:
        return {}
    if isinstance(data_root, str):
        if len(datasets) > 1:
            raise UserError(
                f"This study has {len(datasets)} data sets ({', '.join(datasets)}). Say which of "
                f"them is in {data_root!r}, as in --data-root {datasets[0]}={data_root}."
            )
        return {datasets[0]: data_root}
    if unknown := [name for name in data_root if name not in datasets]:
        raise UserError(
            f"--data-root names the data set {unknown[0]!r}{did_you_mean(unknown[0], datasets)}"
        )
    return dict(data_root)


def read_data(config: Config, root: str | None) -> data.MultiLabelData:
    """Read the data, check every image file before anything is reserved, and warn of odd labels.

    Image files are not checked in a prepared copy, whose images were decoded when it was made, nor
    in an object store, where the check would take as long as an epoch.
    """
    with progress_bar("reading the data") as show:
        images = data.load(
            config.data,
            root,
            progress=show("drawing the scenes" if root is None else "fetching annotations"),
            sources=config.sources,
        )
        if config.data.prepared is None and "://" not in str(root):
            image_check.check_files(
                [images.train, images.val, images.test], progress=show("checking the image files")
            )
    for warning in _warnings(config, images):
        print_text(f"warning: {warning}")
    return images


def _warnings(config: Config, images: data.MultiLabelData) -> Iterator[str]:
    """What can be seen of labels before anything trains, in sentences."""
    is_published = config.data.name in label_names.PUBLISHED
    if not is_published and (warning := label_names.warning_of(images.labels)):
        yield warning
    if images.evaluable and not (images.test.targets == 1).any():
        yield (
            "no test image has a label, so that no figure of the test will be a number. If their "
            "labels are not known, test on a part of the labelled images."
        )
    if len(images.val) and not (images.val.targets == 1).any():
        yield (
            "no held-out image has a label, so that no epoch and no setting can be chosen by their "
            "figures. Hold out more images with data.holdout."
        )
    shown_L = (images.train.targets == 1).any(axis=0) | (images.val.targets == 1).any(axis=0)
    if config.data.limit_train is None and not shown_L.all():
        never = _labels_text(images.labels, ~shown_L)
        yield f"{never} by no training image, and cannot be learned."
    for name, part in (("held-out", images.val), ("test", images.test)):
        limit = config.data.limit_test if name == "test" else config.data.limit_train
        count_L = (part.targets == 1).sum(axis=0)
        if limit is None and count_L.any():
            yield from _few_images(name, images.labels, shown_L, count_L, is_published)


def _few_images(
    part: str, labels: Sequence[str], shown_L: Any, count_L: Any, is_published: bool
) -> Iterator[str]:
    """What the number of images of each label means for a split's figures."""
    if (absent_L := shown_L & (count_L == 0)).any():
        text = _labels_text(labels, absent_L)
        them = "it" if absent_L.sum() == 1 else "them"
        yield f"{text} by no {part} image: without an AP, mAP leaves {them} out."
    few_L = (count_L > 0) & (count_L < MIN_POSITIVES)
    if few_L.any() and not is_published:
        text = _labels_text(labels, few_L)
        each, whose = ("", "its") if few_L.sum() == 1 else (" each", "their")
        yield (
            f"{text} by fewer than {MIN_POSITIVES} {part} images{each}: single images decide "
            f"{whose} AP."
        )


def _labels_text(labels: Sequence[str], is_meant_L: Any) -> str:
    """How many labels are meant, with the first of them, as the subject of what shows them."""
    meant = [label for label, is_meant in zip(labels, is_meant_L, strict=True) if is_meant]
    first = ", ".join(repr(label) for label in meant[:3])
    more = ", ..." if len(meant) > 3 else ""
    verb = "is" if len(meant) == 1 else "are"
    return f"{len(meant):,} of {count_text(len(labels), 'label')} ({first}{more}) {verb} shown"


def image_counts(images: data.MultiLabelData) -> str:
    """The number of images in each part."""
    return (
        f"{len(images.train):,} train, {len(images.val):,} held-out, {len(images.test):,} test "
        "images"
    )


def missing_note(images: data.MultiLabelData) -> str:
    """The number of images that are left out because they are not on disk; empty for 0."""
    if not images.missing:
        return ""
    return f"; {images.missing:,} listed images are not on disk and are left out"


def check_start(config: Config, labels: tuple[str, ...]) -> tuple[Config, str]:
    """Try the checkpoint ``model.start`` that training starts from, where there is one.

    Returns:
        The configuration with the checkpoint's absolute URI, and the checkpoint's digest; empty
        where there is none.

    Raises:
        UserError: For a checkpoint that does not fit the model.
    """
    uri = config.model.start
    if uri is None:
        return config, ""
    uri = storage.absolute(uri)
    network = build.model(config, len(labels), pretrained=False)
    content = checkpoint.load_checkpoint(uri)
    loaded = checkpoint.load_network(network, content, uri, labels, whole=not config.stage1.epochs)
    print_text(f"  starts from {uri}: {loaded}")
    return config.override({"model.start": uri}), checkpoint.digest(uri)
