"""What the stored feature maps of a frozen backbone take: images to compute, bytes, and time."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from sadcl import build, storage
from sadcl.config import Augmentation, Config
from sadcl.console import banner, bytes_text
from sadcl.data import MultiLabelData
from sadcl.data.feature_file import KEEP_FREE
from sadcl.errors import UserError
from sadcl.launch.estimate import TimedTraining, hours_text, training_hours
from sadcl.study.placement import Placement
from sadcl.training import checkpoint
from sadcl.training.features import FeatureStore, cache_folder


class FeatureMaps(NamedTuple):
    """The files of maps that runs read.

    Attributes:
        images: Maps of images that are still to be computed, each view counted.
        missing: Bytes that they will take.
        whole: Bytes of all files.
    """

    images: int
    missing: int
    whole: int


NO_MAPS = FeatureMaps(0, 0, 0)


class FeatureTimes(NamedTuple):
    """What stored maps save.

    Attributes:
        compute: Hours in which one process computes the maps that are missing.
        without: Hours of the same training without stored maps.
    """

    compute: float
    without: float


def feature_maps(configs: Iterable[Config], images: MultiLabelData) -> FeatureMaps:
    """Find the files that runs on a data set will read, and what is missing of them.

    Of maps that a GPU computes, which lie on its node, none is taken to exist.

    Args:
        configs: Of the runs.
        images: Of the data set.
    """
    files = {}
    stores: dict[str, FeatureStore] = {}
    for config in configs:
        if not config.stores_features:
            continue
        spec = config.model
        is_random = not spec.pretrained and spec.weights is None and spec.start is None
        key = f"{spec.model_dump_json()} {config.data.model_dump_json()} {config.seed * is_random}"
        if key not in stores:
            network = build.model(config, len(images.labels), labels=images.labels)
            if spec.start is not None:
                content = checkpoint.load_cached(spec.start)
                checkpoint.load_network(network, content, spec.start, images.labels, whole=False)
            stores[key] = FeatureStore(config, network, images, build.Worker())
        store = stores[key]
        specs = [s.augmentation for s in (config.stage1, config.stage2) if s.epochs]
        wanted: list[tuple[str, Augmentation | None]] = [("train", None), ("test", None)]
        for name, augmentation in [*wanted, *(("train", spec) for spec in specs)]:
            for file in store.files(name, augmentation).values():
                files[file.folder] = file
    images_left = sum(file.layout.rows - file.rows_recorded() for file in files.values())
    whole = sum(file.layout.total_bytes for file in files.values())
    missing = whole - sum(file.allocated_bytes() for file in files.values())
    return FeatureMaps(images_left, missing, whole)


def feature_times(
    config: Config,
    num_labels: int,
    training: tuple[int, TimedTraining],
    maps: FeatureMaps,
    placement: Placement,
) -> FeatureTimes:
    """Estimate what maps cost and save, from a step with the backbone and one without.

    Args:
        config: What is trained, with stored maps.
        num_labels: Of the data set.
        training: Training images, counted once an epoch, and how long they take from stored maps.
        maps: What is to be computed.
        placement: What a worker gets.
    """
    images, stored = training
    computed = config.override({"data.feature_views": 0})
    without = training_hours(computed, num_labels, images, placement)
    steps = without.step.seconds / without.step.images, stored.step.seconds / stored.step.images
    seconds = max(steps[0] - steps[1], 0.0)  # of the backbone, forward, of one image
    return FeatureTimes(seconds * maps.images / 3600, without.hours)


def feature_text(
    maps: FeatureMaps,
    placement: Placement,
    times: FeatureTimes | None,
    hours: float,
    share: float,
) -> str:
    """Return one line for people.

    Args:
        maps: What is to be computed.
        placement: What a worker gets.
        times: What it costs and saves; None where it was not timed.
        hours: Of the training from stored maps, as the study's estimate has them.
        share: How many hours of one worker the study takes by its clock.
    """
    text = (
        f"  feature maps: {bytes_text(maps.whole)} in {cache_folder()}, of which "
        f"{bytes_text(maps.missing)} ({maps.images:,} images) are missing"
    )
    if placement.gpus:
        text = (
            f"  feature maps: {bytes_text(maps.whole)} ({maps.images:,} images) in "
            f"{cache_folder()} of each node, which checks its own room and computes those that "
            "it lacks"
        )
    if times is None:
        return text
    return (
        f"{text}; computing them once takes about {hours_text(times.compute)}, training from them "
        f"about {hours_text(hours)}. Without them (data.feature_views = 0) it would take about "
        f"{hours_text(times.without * share)}"
    )


def shared_bytes(maps: FeatureMaps, placement: Placement, root: str, max_disk: float | None) -> int:
    """Return the bytes of missing maps that count towards the room for checkpoints.

    They do on the same disk, and where --max-disk limits a study. Those of GPUs do not: what their
    nodes have already is not known here.
    """
    if placement.gpus:
        return 0
    return maps.missing if max_disk is not None or _same_disk(root) else 0


def check_feature_disk(maps: FeatureMaps, placement: Placement) -> None:
    """Check that the maps that are missing fit on this machine's disk, if it is the one to hold
    them.

    Raises:
        UserError: Where they do not.
    """
    free = storage.free_bytes(cache_folder())
    if placement.gpus or free is None or maps.missing <= (1 - KEEP_FREE) * free:
        return
    raise UserError(
        f"The feature maps of the frozen backbone take {bytes_text(maps.missing)} more in "
        f"{str(cache_folder())!r}, where {bytes_text(free)} are free. Make room, set "
        "XDG_CACHE_HOME to a larger disk, take fewer data.feature_views, or 0, which stores none."
    )


def warn_of_plain_view(configs: Iterable[Config]) -> None:
    """Say loudly where stored maps take the place of an augmentation."""
    texts = [config.features_text or "" for config in configs]
    if text := max((text for text in texts if ", without" in text), key=len, default=""):
        banner(
            f"The backbone is frozen whole, and the study trains on stored feature maps of {text}. "
            "data.feature_views = K above 1 stores K augmented views instead, and 0 none; "
            "then the augmentation counts.",
            "NO AUGMENTATION",
        )


def _same_disk(root: str) -> bool:
    if "://" in root:
        return False
    places = (storage.local(root), cache_folder())
    devices = [
        os.stat(next(folder for folder in (place, *place.parents) if folder.exists())).st_dev
        for place in places
    ]
    return devices[0] == devices[1]
