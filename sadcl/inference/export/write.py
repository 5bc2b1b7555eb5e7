"""Write a network as a file for other programs, and a JSON that says how to read it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from sadcl import storage
from sadcl.errors import UserError
from sadcl.inference.evaluation import open_checkpoint
from sadcl.inference.export.check import BATCH, TOLERANCE, Check, check, images_to_check, runtime
from sadcl.inference.export.description import describe, metadata
from sadcl.inference.export.formats import KINDS, check_installed
from sadcl.inference.predictor import Predictor


class Exported(NamedTuple):
    """What was written."""

    file: str
    json_file: str
    bytes: int
    """Size of ``file``."""
    check: Check


def export_checkpoint(
    checkpoint_uri: str,
    kind: str,
    output: str | None = None,
    *,
    threshold: float = 0.5,
    image_size: int | None = None,
    photos: Sequence[str | Path] = (),
    tell: Callable[[str], None] = lambda line: None,
) -> Exported:
    """Export the network of a checkpoint, compare the file with it on images, and then write it.

    Images of any number make a batch; their size is fixed. Weights and results are float32 whatever
    the checkpoint's precision is.

    Args:
        checkpoint_uri: a ``best.pt``, local or s3:// or gs://.
        kind: one of :data:`KINDS`.
        output: the new file, local or s3:// or gs://; None is :func:`default_output`. The JSON gets
            the same name with the ending .json.
        threshold: a label is predicted where its score is higher, 0 to 1. It is only recorded.
        image_size: side of the input in pixels; None is that of training.
        photos: image files to compare on besides drawn scenes.
        tell: called with a line about each step.

    Raises:
        UserError: for a kind that does not exist or whose packages are missing, a threshold that is
            not from 0 to 1, a file that exists or has another ending, a checkpoint that cannot be
            loaded, a network that cannot be exported, or a file whose results differ. Nothing is
            left behind then.
    """
    if kind not in KINDS:
        raise UserError(f"kind = {kind!r} is not possible: {', '.join(KINDS)}.")
    if not 0 <= threshold <= 1:
        raise UserError(f"threshold = {threshold} is not possible: 0 <= threshold <= 1 must hold.")
    check_installed(kind)
    form = KINDS[kind]
    output = default_output(checkpoint_uri, kind) if output is None else output
    json_file = _check_output(output, form.ending)
    predictor, content = open_checkpoint(checkpoint_uri, "cpu", image_size)
    images = images_to_check(predictor.config.data.image_size, photos)
    tell(f"exporting to {form.name}: {_summary(predictor, content.get('weights'))}")
    if predictor.config.optim.precision == "fp64":
        tell("the weights are rounded from float64 to float32")
    description = describe(predictor, content, checkpoint_uri, kind, threshold)
    data, facts = form.encode(predictor, metadata(description))
    tell(f"checking with {runtime(kind)}: {len(images)} images, batches of 1 and {BATCH}")
    checked = check(data, kind, predictor, images)
    largest, allowed = checked.differences["scores"], TOLERANCE["scores"]
    tell(f"largest difference of a score: {largest:.1e} ({allowed:.0e} is allowed)")
    about_file = {
        "file": output.split("/")[-1],
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        **facts,
        "check": checked.describe(),
    }
    text = json.dumps({**about_file, **description}, ensure_ascii=False, indent=2)
    _write(output, data, json_file, f"{text}\n")
    return Exported(output, json_file, len(data), checked)


def default_output(checkpoint_uri: str, kind: str) -> str:
    """Return a name in the working folder: that of the trial, whose folder a checkpoint is in."""
    *folders, name = storage.absolute(checkpoint_uri).split("/")
    stem = name.removesuffix(".pt")
    return f"{folders[-1] if stem == 'best' and folders[-1] else stem}{KINDS[kind].ending}"


def _check_output(output: str, ending: str) -> str:
    """Return the name of the JSON; UserError if either file exists or cannot be written."""
    if not output.endswith(ending) or output.split("/")[-1] == ending:
        raise UserError(f"The file to be written, {output!r}, must have a name with {ending}.")
    json_file = f"{output.removesuffix(ending)}.json"
    for file in (output, json_file):
        storage.check_new(file)
        if storage.exists(file):
            raise UserError(
                f"The file to be written, {file!r}, exists: give another with --output."
            )
    return json_file


def _summary(predictor: Predictor, weights: str | None) -> str:
    spec = predictor.config.model
    head = spec.head.rpartition(":")[2]
    name = {"SARL": "SADCL", "Pooled": "the pooled baseline"}.get(head, head)
    kind = f"{weights} weights, " if weights else ""
    size = predictor.config.data.image_size
    return f"{name}, {spec.backbone}, {kind}{size} px, {len(predictor.labels)} labels"


def _write(output: str, data: bytes, json_file: str, text: str) -> None:
    """Write both files or none."""
    try:
        storage.write(output, data)
        storage.write(json_file, text.encode())
    except BaseException:
        storage.delete(output)
        raise
