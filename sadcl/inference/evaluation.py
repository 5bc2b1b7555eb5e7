"""Load a checkpoint, compute its metrics again, and measure how well its maps point at objects.

Axes: B images of a batch, N images, L labels, H and W height and width of a map.
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sadcl import build, storage
from sadcl.config import Config, component
from sadcl.data.base import ImageSet, MultiLabelData, Progress
from sadcl.data.load import load as load_data
from sadcl.data.readers import voc
from sadcl.errors import UserError
from sadcl.inference.predictor import Predictor
from sadcl.metrics import multilabel_metrics, own_figures
from sadcl.model.check import check_size
from sadcl.training import checkpoint
from sadcl.training.evaluation import evaluate as scores_of
from sadcl.training.localiser import Localiser
from sadcl.training.setup import pick_device

_PROGRESS_IMAGES = 4 * build.EVALUATION_BATCH
"""Images between two reports of progress: whole batches, which are the same as without reports."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a checkpoint on a split, beside those recorded when it was made, in percent."""

    split: str
    metrics: dict[str, float]
    recorded: dict[str, float]
    """Of these metrics, those that the checkpoint has; all of its own split. An imported one may
    have ``mAP_published``, which the published code recorded."""
    images: int
    """Number of images."""
    weights: str
    """``raw`` or ``ema``."""
    image_size: int
    """Side of the input in pixels."""
    training_size: int
    """The same in training."""
    labels_only: bool
    """True for an imported checkpoint: of the data, only the labels' names could be checked."""


def load(
    checkpoint_uri: str, *, device: str | None = None, image_size: int | None = None
) -> Predictor:
    """Load a predictor from a ``best.pt``, local or s3:// or gs://; no code in it is executed.

    Args:
        checkpoint_uri: the file.
        device: such as cpu, cuda, cuda:1 or mps; None takes a GPU if there is one.
        image_size: side of the input in pixels; None is that of training.

    Raises:
        UserError: if there is no checkpoint, it holds no network of this project, or the network
            cannot take images of that size.
    """
    return open_checkpoint(checkpoint_uri, device, image_size)[0]


def evaluate(
    checkpoint_uri: str,
    *,
    data_root: str | None = None,
    split: str | None = None,
    device: str | None = None,
    image_size: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Compute a checkpoint's metrics again from the images.

    Args:
        checkpoint_uri: a ``best.pt``.
        data_root: the data it was trained on; None draws the scenes again.
        split: ``val`` (the held-out part of the training images) or ``test``; None takes the one
            that was recorded, test before val, and test for an imported checkpoint.
        device: as for :func:`load`.
        image_size: side of the input in pixels; None is that of training. Position encodings
            follow.
        progress: called with the number of evaluated images and of all images.

    Raises:
        UserError: for another split, a split without images or known labels, or other data than the
            checkpoint was made with.
    """
    predictor, content = open_checkpoint(checkpoint_uri, device, image_size)
    metrics: dict[str, float] = content["metrics"]
    imported = content["data_digest"] is None
    if split is None:
        split = "test" if imported or "test_mAP" in metrics else "val"
    if split not in ("val", "test"):
        raise UserError(
            f"split = {split!r} is not possible: val (held-out training images) or test."
        )
    data = _data_of(content, checkpoint_uri, data_root)
    images = _split_of(data, split)
    scores_NL, targets_NL = _scores(predictor, images, content["threads"], progress)
    result = multilabel_metrics(scores_NL, targets_NL)
    result |= own_figures(build.metrics(predictor.config), scores_NL, targets_NL)
    single = {n: float(v) for n, v in result.items() if getattr(v, "ndim", 0) == 0}
    names = (n for n in (*single, "mAP_published") if f"{split}_{n}" in metrics)
    return Evaluation(
        split,
        single,
        {n: metrics[f"{split}_{n}"] for n in names},
        len(images),
        content["weights"],
        predictor.config.data.image_size,
        json.loads(content["config"])["data"]["image_size"],
        imported,
    )


def _split_of(data: MultiLabelData, split: str) -> ImageSet:
    """Return the images of ``val`` or ``test``; UserError if none of their labels is known."""
    images = data.val if split == "val" else data.test
    if not len(images):
        raise UserError(f"The {split} split of {data.name} has no images for this checkpoint.")
    if split == "test" and not data.evaluable:
        raise UserError(
            f"No label of the {len(images):,} test images of {data.name} is known: there is "
            "nothing to compare with. Its server takes what sadcl predict --voc2012-submission "
            "writes."
        )
    return images


def localise(
    predictor: Predictor, data: MultiLabelData, progress: Progress | None = None
) -> dict[str, NDArray[np.float64]]:
    """Measure how well a network's maps point at the objects of the test images.

    Returns:
        ``pointing``, ``box_energy`` and ``box_area`` by label (L,) in percent, as in the labels
        table; nan if no image has a box of the label.

    Raises:
        UserError: for data whose boxes are not known.
    """
    if data.boxes is None:
        raise UserError(
            f"The boxes of {data.name} are not known: how well maps point at its objects cannot be "
            "measured."
        )
    localiser, images = Localiser(data.boxes(data.test)), data.test

    def add_maps(index_B: torch.Tensor, maps_BLHW: torch.Tensor) -> None:
        localiser(index_B, maps_BLHW)
        if progress is not None:
            progress(int(index_B.max()) + 1, len(images))

    loader = build.loader(predictor.config, images, build.Worker(device=predictor.device))
    scores_of(predictor.network, loader, predictor.device, add_maps, config=predictor.config)
    return localiser.means(len(predictor.labels), predictor.device)


def voc2012_submission(
    predictor: Predictor, data_root: str, progress: Progress | None = None
) -> bytes:
    """Return the archive (.tar.gz) that VOC 2012's evaluation server takes.

    It has the scores of all test images for each class.

    Args:
        predictor: of a network that knows VOC's classes, and perhaps others.
        data_root: of VOC 2012 with the test archive unpacked; nothing else of it is needed.
        progress: called with the number of labelled images and of all images.

    Raises:
        UserError: if a class is not known, or a list or an image is missing.
    """
    if unknown := [label for label in voc.LABELS if label not in predictor.labels]:
        raise UserError(
            f"The checkpoint knows no {unknown[0]!r}: VOC's {len(voc.LABELS)} classes are needed, "
            f"and {len(unknown)} of them are not among its {len(predictor.labels)} labels."
        )
    images = voc.server_images(storage.local(data_root))
    scores_NL, _ = _scores(predictor, images, torch.get_num_threads(), progress)
    with io.BytesIO() as sink:
        with tarfile.open(fileobj=sink, mode="w:gz") as archive:
            for label in voc.LABELS:
                column = scores_NL[:, predictor.labels.index(label)].tolist()
                rows = zip(images.files.to_pylist(), column, strict=True)
                content = "".join(
                    f"{file.rsplit('.', 1)[0]} {score:.12f}\n" for file, score in rows
                ).encode()
                entry = tarfile.TarInfo(f"results/VOC2012/Main/comp1_cls_test_{label}.txt")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return sink.getvalue()


def _scores(
    predictor: Predictor, images: ImageSet, threads: int, progress: Progress | None
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Return scores and targets (N, L), computed with the number of threads of the run.

    With another number, sums are in another order and differ in the last digits. The process has
    its own number again afterwards.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    scores = [np.zeros((0, len(predictor.labels)))]
    try:
        for start in range(0, len(images), _PROGRESS_IMAGES):
            stop = min(start + _PROGRESS_IMAGES, len(images))
            part = images.subset(range(start, stop), images.name)
            loader = build.loader(predictor.config, part, build.Worker(device=predictor.device))
            scores_NL, _ = scores_of(
                predictor.network, loader, predictor.device, config=predictor.config
            )
            scores.append(scores_NL)
            if progress is not None:
                progress(start + len(part), len(images))
    finally:
        torch.set_num_threads(before)
    return np.concatenate(scores), images.targets


class CheckpointWithData(NamedTuple):
    """A checkpoint and the data that it was trained on."""

    predictor: Predictor
    data: MultiLabelData
    stage: int
    """1 or 2."""
    weights: str
    """``raw`` or ``ema``."""


def open_with_data(
    checkpoint_uri: str, *, data_root: str | None = None, device: str | None = None
) -> CheckpointWithData:
    """Open a checkpoint with its data; arguments and errors are those of :func:`evaluate`."""
    predictor, content = open_checkpoint(checkpoint_uri, device, None)
    data = _data_of(content, checkpoint_uri, data_root)
    return CheckpointWithData(predictor, data, content["stage"], content["weights"])


def _data_of(content: dict[str, Any], uri: str, data_root: str | None) -> MultiLabelData:
    """Read the data that a checkpoint was trained on, and check its digest."""
    config = Config.stored(content["config"])
    spec = config.data
    if spec.name != "scenes" and data_root is None:
        raise UserError(
            f"{uri!r} was trained on {content['dataset']}: give its folder with --data-root."
        )
    with _same_sources(uri):
        data = load_data(spec, data_root, sources=config.sources)
    checkpoint.check_data(content, uri, data)
    return data


@contextlib.contextmanager
def _same_sources(uri: str) -> Iterator[None]:
    """Name the checkpoint where a part of the user's is another version than its own."""
    try:
        yield
    except component.OtherSource as error:
        raise UserError(
            f"{uri!r} was trained with another version of {error.file}. Put that version back to "
            "use this checkpoint."
        ) from None


def open_checkpoint(
    uri: str, device: str | None, image_size: int | None
) -> tuple[Predictor, dict[str, Any]]:
    """Return the predictor of a checkpoint, and the checkpoint's content."""
    content = checkpoint.load_checkpoint(uri)
    if "labels" not in content:
        raise UserError(f"{uri!r} is a run's training state; its best.pt is the one to load.")
    config = Config.stored(content["config"])
    target = pick_device(device, training=False)
    with _same_sources(uri):
        network = build.model(config, len(content["labels"]), pretrained=False)
    network.load_state_dict(content["model"])
    if target.type == "mps":
        network.float()  # it has no float64, in which buffers for training are kept
    network.to(target)
    if target.type == "cuda":
        network.to(memory_format=torch.channels_last)
    network.eval()
    if image_size is not None and image_size != config.data.image_size:
        # the network was built for the size of training, which the weights fit
        other = config.override({"data.image_size": image_size}).data
        config = config.model_copy(update={"data": other})
        check_size(network, config.model.backbone, image_size)
    return Predictor(config, content["labels"], network, target), content
