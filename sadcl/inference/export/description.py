"""What somebody needs to know to use an exported file: inside it, and as JSON next to it."""

from __future__ import annotations

import json
import math
from typing import Any

import torch

from sadcl import __version__
from sadcl.config import Config
from sadcl.inference.export.network import INPUT, OUTPUTS
from sadcl.inference.predictor import Predictor
from sadcl.training import checkpoint

_MEANING = {
    "scores": "the score of each label, 0 to 1; the sigmoid is applied inside the file",
    "logits": "the same before the sigmoid",
}
_REBUILD = [
    "import json, safetensors.torch",
    "from safetensors import safe_open",
    "from sadcl import Config, build",
    "with safe_open(FILE, 'pt') as file:",
    "    facts = {name: json.loads(text) for name, text in file.metadata().items()}",
    "network = build.model(Config.parse(facts['config']), len(facts['labels']), pretrained=False)",
    "network.load_state_dict(safetensors.torch.load_file(FILE))",
    "logits_BL = network.eval()(images).logits_BL",
]
"""Python that rebuilds a network from a .safetensors file."""


def describe(
    predictor: Predictor, content: dict[str, Any], uri: str, kind: str, threshold: float
) -> dict[str, Any]:
    """Say how an exported network is used and where it comes from, in plain values for JSON.

    Args:
        predictor: the network that is exported, for the size of images that it is exported for.
        content: of its checkpoint.
        uri: of the checkpoint, whose digest is part of the description.
        kind: one of :data:`sadcl.inference.export.KINDS`.
        threshold: a label is predicted where its score is higher, 0 to 1.
    """
    return {
        "format": kind,
        **_interface(predictor, kind),
        "preprocessing": _preprocessing(predictor),
        "postprocessing": _postprocessing(kind, threshold),
        "pixels": _pixels(predictor),
        "labels": list(predictor.labels),
        "threshold": threshold,
        "checkpoint": _origin(content, uri),
        "config": Config.stored(content["config"]).model_dump(mode="json"),
        "versions": {"sadcl": __version__, "torch": str(torch.__version__)},
    }


def metadata(description: dict[str, Any]) -> dict[str, str]:
    """Return what is written inside the file: JSON by name, with the whole description as one."""
    pixels = description["pixels"]
    facts = {
        "labels": description["labels"],
        "image_size": pixels["size"],
        "channels": pixels["channels"],
        "pixel_range": pixels["range"],
        "mean": pixels["mean"],
        "std": pixels["std"],
        "resize": pixels["resize"],
        "threshold": description["threshold"],
        "config": description["config"],
        "description": description,
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()}


def _interface(predictor: Predictor, kind: str) -> dict[str, Any]:
    side, num_labels = predictor.config.data.image_size, len(predictor.labels)
    meaning = "normalised photographs: image, channel (red, green, blue), row from the top, column"
    image = {"name": INPUT, "type": "float32", "shape": ["batch", 3, side, side]}
    names = ("logits_BL",) if kind == "safetensors" else OUTPUTS
    outputs = [
        {
            "name": name,
            "type": "float32",
            "shape": ["batch", num_labels],
            "meaning": _MEANING.get(name, "the logit of each label, before the sigmoid"),
        }
        for name in names
    ]
    interface = {"inputs": [{**image, "meaning": meaning}], "outputs": outputs}
    return {**interface, "rebuild": _REBUILD} if kind == "safetensors" else interface


def _pixels(predictor: Predictor) -> dict[str, Any]:
    return {
        "size": predictor.config.data.image_size,
        "channels": "RGB",
        "range": [0, 1],
        "mean": list(predictor.normalisation.mean),
        "std": list(predictor.normalisation.std),
        "resize": {"interpolation": "bilinear", "antialias": True, "keep_proportions": False},
    }


def _preprocessing(predictor: Predictor) -> list[str]:
    side, (mean, std) = predictor.config.data.image_size, predictor.normalisation
    return [
        "Decode the photograph, turn it upright by its EXIF orientation, and convert it to RGB.",
        f"Resize it to {side} x {side} pixels whatever its proportions, bilinear with "
        "antialiasing, to whole values from 0 to 255 (BILINEAR of Pillow does this).",
        "Divide by 255, which gives values from 0 to 1.",
        f"Subtract {list(mean)} from red, green and blue, and divide by {list(std)}.",
        "Order the axes as image, channel, row and column, in float32.",
    ]


def _postprocessing(kind: str, threshold: float) -> list[str]:
    sigmoid = (
        "The score of a label is the sigmoid of its logit."
        if kind == "safetensors"
        else "Scores need nothing more; the sigmoid of the logits gives the same."
    )
    return [
        sigmoid,
        "Column i belongs to labels[i].",
        f"A label is predicted where its score > {threshold}; an image may have several or none.",
    ]


def _origin(content: dict[str, Any], uri: str) -> dict[str, Any]:
    """What is known about a checkpoint; one that was made elsewhere may have less."""
    config = Config.stored(content["config"])
    metrics = {
        name: value if math.isfinite(value) else None
        for name, value in content.get("metrics", {}).items()
    }
    known = ("stage", "epoch", "weights", "dataset", "data_digest")
    return {
        "file": "/".join(uri.split("/")[-2:]),
        "digest": checkpoint.digest(uri),
        **{name: content.get(name) for name in known},
        "precision": config.optim.precision,
        "image_size": config.data.image_size,
        "metrics": metrics,
    }
