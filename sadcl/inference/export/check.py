"""Compare an exported file with the network that it was made from, on images.

Axes: N images, S side of the input in pixels, B images of a batch, L labels.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sadcl.data.augment import resize
from sadcl.data.readers import scenes
from sadcl.data.transforms import read_image, to_input
from sadcl.errors import UserError
from sadcl.inference.export.formats import KINDS, Format, Run
from sadcl.inference.predictor import Predictor

TOLERANCE = {"scores": 1e-4, "logits": 1e-3}
"""Largest difference of an output; of a logit above 1, relative to it."""
BATCH = 3
"""Images of a batch, after one image alone; the file was made with another number."""
_DRAWN = 4
"""Number of scenes that are drawn to compare with."""


class Check(NamedTuple):
    """How an exported file was compared, and what came out."""

    runtime: str
    """Package and version that ran the file."""
    images: int
    """Number of images."""
    differences: dict[str, float]
    """The largest difference of each output, measured as :data:`TOLERANCE` says."""

    def describe(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "runtime": self.runtime,
            "images": self.images,
            "batches": [1, BATCH],
            "largest_difference": self.differences,
            "allowed": TOLERANCE,
        }


def images_to_check(side: int, photos: Sequence[str | Path]) -> Tensor:
    """Return uint8 images (N, 3, S, S): drawn scenes, then photographs.

    Raises:
        UserError: for a photograph that is missing or is no image.
    """
    drawn = [np.array(scenes.draw(0, 1, index)[0]) for index in range(_DRAWN)]
    images = [resize(torch.from_numpy(image).permute(2, 0, 1), side) for image in drawn]
    return torch.stack([*images, *(read_image(photo, side) for photo in photos)])


def runtime(kind: str) -> str:
    """Return the package that runs a kind of file, with its version."""
    package = KINDS[kind].runtime
    return f"{package} {importlib.import_module(package).__version__}"


@torch.inference_mode()
def check(data: bytes, kind: str, predictor: Predictor, images_N3SS: Tensor) -> Check:
    """Run an exported file and the network on images, one alone and the others in batches.

    Args:
        data: the file.
        kind: what it is.
        predictor: the network that it was made from, in its own precision.
        images_N3SS: uint8, N > :data:`BATCH`.

    Raises:
        UserError: if an output differs by more than :data:`TOLERANCE`, or is not a number.
    """
    assert len(images_N3SS) > BATCH
    form = KINDS[kind]
    run = form.open(data)
    differences = dict.fromkeys(TOLERANCE, 0.0)
    for images in (images_N3SS[:1], *images_N3SS[1:].split(BATCH)):
        inputs = to_input(images, predictor.normalisation)
        for name, difference in _differences(run, predictor, inputs).items():
            # a nan stays
            differences[name] = float(np.maximum(differences[name], difference))
    _refuse(form, differences)
    return Check(runtime(kind), len(images_N3SS), differences)


def _differences(run: Run, predictor: Predictor, inputs: Tensor) -> dict[str, float]:
    logits_BL = predictor.network(inputs).logits_BL.double()
    expected = {"scores": logits_BL.sigmoid(), "logits": logits_BL}
    outputs = run(inputs)
    return {
        name: float(((outputs[name].double() - value) / value.abs().clamp(min=1)).abs().max())
        for name, value in expected.items()
    }


def _refuse(form: Format, differences: dict[str, float]) -> None:
    for name, difference in differences.items():
        if not difference <= TOLERANCE[name]:
            raise UserError(
                f"The {form.name} file does not compute what the checkpoint does: its {name} "
                f"differ by up to {difference:.1e}, and {TOLERANCE[name]:.0e} is allowed. Nothing "
                "was written."
            )
