"""What this project computes where a golden file has what the published code computed.

:func:`outputs` reads the JSON of a golden file, builds what it describes, and returns ours under
the names of the file.

Axes: B images of the batch, L labels, D hidden size, P projection size, K slots of the bank, H, W
the feature map's height and width.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from sadcl import distributed, inference
from sadcl.data.readers.label_lists import LABELS
from sadcl.losses.criterion import Criterion
from sadcl.memory import Memory, MemoryBank
from sadcl.model import with_maps
from sadcl.model.position import sine_position
from sadcl.training.published_checkpoint import import_checkpoint
from tests import published_heads

ASYMMETRIC_FLOOR = 1e-5
"""Lowest probability whose logarithm the published class loss takes."""
CLASS_SCALE = 1000
"""The published class loss is its sum over labels and images times this / (B L)."""


def outputs(stem: str | Path) -> dict[str, Tensor]:
    """Compute in float64 what a golden file holds.

    Args:
        stem: path of the golden file without its ending.

    Returns:
        By the names of the file: its inputs as they are, and ours of all its outputs but the values
        of the sample contrast, which the published code's stabilisers shift.
    """
    spec = json.loads(Path(f"{stem}.json").read_text())
    if "head" in spec:
        return published_heads.outputs(stem)
    tensors = load_file(f"{stem}.safetensors")
    if isinstance(spec, list):
        return losses(spec, tensors)
    if spec["what"] not in ("sadcl", "q2l"):
        raise ValueError(f"what must be 'sadcl' or 'q2l', but got {spec['what']!r}")
    return network_outputs(spec, tensors)


# Networks


def filled_state(
    spec: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Build the state that a golden file describes: a function of keys, shapes and the seed.

    A tensor that is not filled so is taken from the file, or made from what is said of it.
    """
    shapes, kept = spec.get("state") or spec["parameters"], tensors or {}
    state = {}
    for key, (shape, dtype) in shapes.items():
        if key.endswith(".pe"):
            state[key] = published_positions(*shape[1:])
        elif key in spec.get("not_filled", {}) and key in kept:
            state[key] = kept[key]
        elif key in spec.get("not_filled", {}):
            state[key] = _not_filled(spec["not_filled"][key], shape)
        else:
            state[key] = _fill(key, shape, getattr(torch, dtype), spec["seed"])
    for key, scale in (spec.get("scale_after_fill") or {}).items():
        state[key] = state[key] * scale
    return state


def _fill(key: str, shape: Sequence[int], dtype: torch.dtype, seed: int) -> Tensor:
    if not dtype.is_floating_point:
        return torch.zeros(shape, dtype=dtype)
    generator = torch.Generator().manual_seed((zlib.crc32(key.encode()) + seed) % 2**31)
    r = torch.randn(shape, generator=generator, dtype=torch.float32)
    is_norm = any(part in key for part in ("norm", "bn", "downsample.1"))
    if "running_var" in key:
        r = 1 + 0.3 * r.tanh()
    elif len(shape) == 1 and is_norm and key.endswith("weight"):
        r = 0.7 + 0.2 * r.tanh()
    elif len(shape) <= 1:
        r = 0.1 * r
    elif len(shape) == 4:
        r = r * (2 / math.prod(shape[1:])) ** 0.5
    else:
        r = r * shape[-1] ** -0.5
    return r.to(dtype)


def _not_filled(value: Any, shape: Sequence[int]) -> Tensor:
    """Return a tensor that is described by a number, its elements, or a word for them.

    Raises:
        ValueError: for a text that does not begin with identity, zero(s) or one(s), alone or with a
            comma or the like behind it.
    """
    if not isinstance(value, str):
        return torch.tensor(value, dtype=torch.float32).broadcast_to(shape).clone()
    match = re.match(r"(identity|zero|one)s?( matrix)?\s*([,;:.(]|$)", value)
    if match is None:
        raise ValueError(f"how a tensor is made is not known: {value!r}")
    if match[1] == "identity":
        return torch.eye(*shape[-2:]).broadcast_to(shape).clone()
    return torch.zeros(shape) if match[1] == "zero" else torch.ones(shape)


def published_positions(dim: int, height: int, width: int) -> Tensor:
    """The position encoding as the published code stores it, (1, D, H, W)."""
    encoding_SD = sine_position(
        height, width, dim, order="interleaved", device=torch.device("cpu"), dtype=torch.float32
    )
    return encoding_SD.t().reshape(1, dim, height, width)


def write_published(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a published checkpoint of raw weights, which have DDP's prefix."""
    content = {"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}}
    torch.save({**content, "best_mAP": np.float64(86.8), "epoch": 11}, path)


def imported(spec: Mapping[str, Any], state: Mapping[str, Tensor]) -> inference.Predictor:
    """Take a published state through the product's own importer."""
    with tempfile.TemporaryDirectory() as name:
        folder, count = Path(name), spec["labels"]
        write_published(folder / "checkpoint.pth.tar", state)
        labels = folder / "labels.txt"
        names = LABELS["coco14"]
        if count != len(names):
            names = tuple(f"label {i}" for i in range(count))
        labels.write_text("".join(f"{name}\n" for name in names))
        import_checkpoint(
            str(folder / "checkpoint.pth.tar"),
            str(folder / "best.pt"),
            labels=labels,
            heads=spec.get("heads", 4),
            image_size=None if "backbone.1.pe" in state else spec["image_size"],
        )
        return inference.load(str(folder / "best.pt"), device="cpu")


@torch.no_grad()
def network_outputs(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Compute the outputs of a network for the images of a golden file."""
    state = filled_state(spec, tensors)
    network = imported(spec, state).network.double().eval()
    images = tensors["images"].double()
    output, maps_BLHW = with_maps(network, images)
    results = {"logits": output.logits_BL, "attention": maps_BLHW.flatten(2)}
    results["label_features"] = output.features_BLD
    if "memorybank" in state:
        bank_KLD = state["memorybank"].double()
        slots, num_labels, _ = bank_KLD.shape
        positions, labels = torch.cartesian_prod(torch.arange(slots), torch.arange(num_labels)).T
        output = network(images, Memory(bank_KLD.flatten(0, 1), labels, positions))
        results["embeddings"] = output.embeddings_BLP
        results["bank_embeddings"] = output.bank_MP.unflatten(0, (slots, num_labels))
        results["prototype_embeddings"] = output.prototypes_LP
    named = {name: tensor for name, tensor in results.items() if name in tensors}
    return {"images": tensors["images"], **named}


# Losses


def losses(spec: Sequence[Mapping[str, Any]], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Compute gradients and values of all losses for each case of a golden file."""
    results = {}
    for number, case in enumerate(spec):
        prefix = f"case{number}."
        inputs = {
            name: tensors[prefix + name].double().requires_grad_(name != "targets")
            for name in ("targets", "batch", "bank", "prototypes", "logits")
        }
        computed = {
            **_sample(case, inputs, "mask_in_row_order", anchor_mask="activated"),
            **_sample(case, inputs, "as_released", anchor_mask="released"),
            **_prototype(case, inputs),
        }
        for name, options in case["asl"].items():
            computed |= _class(name, options, inputs)
        given = {name: tensors[prefix + name] for name in inputs}
        results |= {prefix + name: tensor for name, tensor in (given | computed).items()}
    return results


def _terms(inputs: Mapping[str, Tensor], **options: Any) -> Any:
    """Compute the criterion on a full bank, of which the rows of the batch's labels take part."""
    targets_BL, bank_KLP = inputs["targets"].to(torch.int8), inputs["bank"]
    num_images, num_labels, dim = bank_KLP.shape
    bank = MemoryBank(num_labels, dim, size=num_images).double()
    bank.rows_KLD.copy_(bank_KLP.detach())
    bank.valid_KL.fill_(True)
    index_A = (targets_BL == 1).flatten().nonzero()[:, 0]
    memory = bank.read_matched(index_A // num_labels, index_A % num_labels)
    output = SimpleNamespace(
        logits_BL=inputs["logits"],
        embeddings_BLP=inputs["batch"],
        bank_MP=bank_KLP[memory.positions_M, memory.labels_M],
        prototypes_LP=inputs["prototypes"],
        prototype_valid_L=torch.ones(num_labels, dtype=torch.bool),
    )
    batch = SimpleNamespace(
        targets_BL=targets_BL,
        weight_B=torch.ones(num_images),
        positive_index_A=index_A,
        global_positive_index_G=index_A,
        shares=distributed.Shares([num_images], [len(index_A)]),
    )
    return Criterion(**options)(output, batch, memory)


def _sample(
    case: Mapping[str, Any], inputs: Mapping[str, Tensor], name: str, *, anchor_mask: str
) -> dict[str, Tensor]:
    terms = _terms(
        inputs,
        sample_weight=1.0,
        prototype_weight=0.0,
        tau=case["tau_sample"],
        sample_reduction="mean",
        anchor_mask=anchor_mask,
    )
    gradients = torch.autograd.grad(terms.weighted["sample"], (inputs["batch"], inputs["bank"]))
    return {
        f"sample.{name}.grad_{what}": gradient
        for what, gradient in zip(("batch", "bank"), gradients, strict=True)
    }


def _prototype(case: Mapping[str, Any], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    terms = _terms(
        inputs,
        sample_weight=0.0,
        prototype_weight=1.0,
        prototype_tau=case["tau_prototype"],
        prototype_reduction="positives",
        absent_labels="push",
    )
    over = (inputs["batch"], inputs["prototypes"])
    batch, prototypes = torch.autograd.grad(terms.weighted["prototype"], over)
    return {
        "prototype.value": terms.values["loss_prototype"].reshape(1),
        "prototype.grad_batch": batch,
        "prototype.grad_prototypes": prototypes,
    }


def _class(name: str, options: Sequence[Any], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    gamma_negative, gamma_positive, clip, focus = options
    terms = _terms(
        inputs,
        sample_weight=0.0,
        prototype_weight=0.0,
        class_reduction="sum",
        class_loss={
            "kind": "asymmetric" if gamma_negative or gamma_positive or clip else "bce",
            "gamma_negative": gamma_negative,
            "gamma_positive": gamma_positive,
            "clip": clip,
            "focus_gradient": not focus.startswith("no "),
            "floor": ASYMMETRIC_FLOOR,
        },
    )
    scale = CLASS_SCALE / inputs["logits"].numel()
    (gradient,) = torch.autograd.grad(terms.weighted["class"], inputs["logits"])
    return {
        f"class.{name}.value": (terms.values["loss_class"] * scale).reshape(1),
        f"class.{name}.grad_logits": gradient * scale,
    }
