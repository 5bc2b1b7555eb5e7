"""The checkpoints of the published code of SADCL and of Query2Label, read without executing them.

Their training scripts save ``{"epoch", "arch", "state_dict", "best_mAP", "optimizer"}``, where
``best_mAP`` is a numpy scalar. Raw weights have the prefix ``module.`` of DDP, averaged ones have
not. Scripts that others have derived from them keep both, the averaged ones as ``state_dict_ema``.

Both networks are a torchvision ResNet, DETR's sine positions, a transformer whose decoder has no
self-attention, and a group-wise linear classifier. SADCL adds a projection head, a memory bank and
prototypes.

Axes: L labels, D hidden size, P projection size, H, W the feature map's height and width.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sadcl.errors import UserError
from sadcl.model.position import sine_position
from sadcl.training.checkpoint import load_values, read_bytes

_SCALAR: Any = np.float64(0).__reduce__()[0]
_NUMPY = (
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(np.dtype, *(type(np.dtype(f"{kind}{size}")) for kind in "fi" for size in (4, 8))),
)
"""What numpy scalars are pickled as; versions before 2.0 had another name for it."""
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
STRIDE = 32
"""Pixels of the image for each place of a ResNet's last feature map."""
_DEPTHS: dict[tuple[str | int, ...], str] = {
    ("basic", 2, 2, 2, 2): "resnet18",
    ("basic", 3, 4, 6, 3): "resnet34",
    ("bottleneck", 3, 4, 6, 3): "resnet50",
    ("bottleneck", 3, 4, 23, 3): "resnet101",
    ("bottleneck", 3, 8, 36, 3): "resnet152",
}
_LAYER = re.compile(r"transformer\.(encoder|decoder)\.layers\.(\d+)\.(\w+)\.")
_FEED_FORWARD = {"linear1": "feedforward.expand", "linear2": "feedforward.contract"}
_PARTS = {
    "encoder": {
        "self_attn": "attention",
        "norm1": "norm",
        "norm2": "feedforward.norm",
        **_FEED_FORWARD,
    },
    "decoder": {
        "multihead_attn": "attention",
        "norm2": "norm",
        "norm3": "feedforward.norm",
        **_FEED_FORWARD,
    },
}
"""Parts of a layer: the published name and ours."""
_BEGINNINGS = {
    **{
        f"backbone.0.body.{part}.": f"backbone.body.{part}."
        for part in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
    },
    "input_proj.": "head.reduce.",
    "transformer.decoder.norm.": "head.transformer.norm.",
    "query_embed.weight": "head.transformer.query_LD",
    "fc.W": "head.classifier.weight_LD",
    "fc.b": "head.classifier.bias_L",
    "proj_head.layers.0.": "projection.0.",
    "proj_head.layers.1.": "projection.2.",
    "prototype": "prototypes.rows_LD",
}
"""What other published keys begin with, and what ours begin with."""
_ONE_ROW = ("fc.W", "fc.b", "prototype")
"""Tensors with an additional first axis of length 1."""
BANK, POSITIONS = "memorybank", "backbone.1.pe"
_FOREIGN = (
    (r"backbone\.1\.", "learned positions"),
    (r"backbone\.", "another backbone than torchvision's ResNet-18, 34, 50, 101 or 152"),
    (r"transformer\.decoder\.layers\.\d+\.(self_attn|norm1)\.", "self-attention in the decoder"),
    (r"transformer\.encoder\.norm\.", "layers that are normalised before they are computed"),
    (r"fc\.", "another classifier"),
)
"""What keys without a counterpart belong to."""


class Published(NamedTuple):
    """A published checkpoint."""

    state: dict[str, Tensor]
    """By its own keys, without DDP's prefix."""
    weights: str
    """``raw`` or ``ema``."""
    assumed: bool
    """Whether only the missing prefix tells that they are averaged."""
    epoch: int
    """Number of the epoch from 1, or 0 where it is not recorded."""
    mAP: float | None
    """``best_mAP`` in percent, by the published code's convention."""
    other: tuple[str, ...]
    """What else is in the file, with an epoch or a ``best_mAP`` that is no such number."""
    digest: str
    """Twelve hexadecimal digits of the file."""


class Sizes(NamedTuple):
    """The sizes of a network, as the shapes of its state give them."""

    method: str
    """``SADCL`` or ``Query2Label``."""
    backbone: str
    num_labels: int
    hidden: int
    feedforward: int
    encoder_layers: int
    decoder_layers: int
    projection: int | None
    """None without a projection head."""
    image_size: int | None
    """None where the position encoding is not in the file."""


def read_published(uri: str, weights: str | None = None) -> Published:
    """Read a published checkpoint.

    Args:
        uri: the file, local or s3:// or gs://.
        weights: ``raw`` or ``ema``; None takes the averaged ones where there are any. A single
            state without the prefix is either: averaged, unless ``raw`` is asked for.

    Raises:
        UserError: where there is no file, it is damaged, holds code or no state, does not have
            these weights, or has tensors that are not plain finite numbers.
    """
    if weights not in (None, "raw", "ema"):
        raise UserError(f"weights = {weights!r} is not possible: raw or ema.")
    data = read_bytes(uri, "a published checkpoint")
    content = load_values(uri, data, _NUMPY)
    if not isinstance(content, dict) or "labels" in content:
        what = "is already a checkpoint of sadcl" if isinstance(content, dict) else "holds no state"
        raise UserError(f"{uri!r} {what}: give one of the published SADCL or Query2Label.")
    states: dict[str, dict[str, Tensor]] = {}
    found = {name: _state(content.get(name)) for name in ("state_dict_ema", "state_dict", "model")}
    main = found["state_dict"] or found["model"] or _state(content)
    if averaged := found["state_dict_ema"]:
        states["ema"] = averaged
    prefixed = main is None or all(key.startswith("module.") for key in main)
    is_either = not averaged and not prefixed
    if main:
        states[(weights or "ema") if is_either else "raw"] = main
    assumed, weights = is_either and weights is None, weights or next(iter(states), None)
    if weights not in states:
        wanted = "'state_dict' of tensors" if not states else f"{weights} weights"
        has = ", ".join(map(repr, states or content)) or "nothing"
        raise UserError(f"{uri!r} has no {wanted}; it has {has[:200]}.")
    mAP, epoch = _number(content.get("best_mAP"), 100), _number(content.get("epoch"), 2**31)
    epoch = epoch if isinstance(epoch, int) else None
    used = {*found, *(["best_mAP"] if mAP is not None else []), *(["epoch"] if epoch else [])}
    is_bare = main is not None and not found["state_dict"] and not found["model"]
    return Published(
        _without_prefix(states[weights], uri),
        weights,
        assumed,
        epoch or 0,
        None if mAP is None else float(mAP),
        () if is_bare else tuple(map(str, content.keys() - used)),
        hashlib.sha256(data).hexdigest()[:12],
    )


def _state(value: Any) -> dict[str, Tensor] | None:
    """Return a state, or None for anything else."""
    is_state = isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in value.items()
    )
    return value if is_state and value else None


def _number(value: Any, largest: int) -> int | float | None:
    """Return a number from 0 to ``largest``, which may be of numpy or a tensor, or None."""
    if isinstance(value, Tensor):
        value = value.item() if _is_plain(value) and value.numel() == 1 else None
    if isinstance(value, np.number):
        value = value.item()
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and 0 <= value <= largest else None


def _is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor has its elements one after the other, and has them at all."""
    return tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_nested


def _without_prefix(state: dict[str, Tensor], uri: str) -> dict[str, Tensor]:
    """Remove DDP's prefix, and check that values are numbers."""
    plain = {re.sub(r"^(module\.)+", "", key): tensor for key, tensor in state.items()}
    if len(plain) < len(state):
        raise UserError(f"{uri!r} has tensors twice, with and without the prefix 'module.'.")
    for key, tensor in plain.items():
        _check_kind(key, tensor, uri)
        if not bool(tensor.float().isfinite().all()):
            raise UserError(
                f"{uri!r} has values in {key!r} that are not finite: the run that it comes from "
                "has failed. Take the checkpoint of an earlier epoch."
            )
    return plain


def _check_kind(key: str, tensor: Tensor, uri: str) -> None:
    """Raise UserError for a tensor of another layout or type than the published code saves."""
    kinds = _FLOATS + (_INTEGERS if key.endswith(".num_batches_tracked") else ())
    if not _is_plain(tensor):
        layout = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
        what = "without values" if tensor.is_meta else f"of the layout {layout}"
    elif tensor.dtype not in kinds:
        what = f"of the type {str(tensor.dtype).removeprefix('torch.')}"
    elif not tensor.numel() and key != BANK:
        what = f"without elements, of the shape {tuple(tensor.shape)}"
    else:
        return
    raise UserError(
        f"{uri!r} has {key!r} {what}, which cannot be imported: save dense tensors of float32, "
        "float64, float16 or bfloat16."
    )


def infer_sizes(state: dict[str, Tensor], uri: str) -> Sizes:
    """Find the sizes of the network that a published state is of.

    Raises:
        UserError: where it has parts that have no counterpart here, or lacks those that tell.
    """
    if "query_embed.weight" not in state:
        keys = ", ".join(map(repr, list(state)[:3]))
        raise UserError(
            f"{uri!r} is not a checkpoint of SADCL or Query2Label: it has no 'query_embed.weight'. "
            f"Its first keys are {keys}."
        )
    _check_known(state, uri)
    layers = {(m[1], m[2]) for key in state if (m := _LAYER.match(key))}
    num_labels, hidden = _shape(state, "query_embed.weight", 2, uri)
    feedforward, _ = _shape(state, "transformer.decoder.layers.0.linear1.weight", 2, uri)
    is_sadcl = any(key.startswith("proj_head.") for key in state)
    projection = None
    if is_sadcl:
        projection, _ = _shape(state, "proj_head.layers.1.weight", 2, uri)
    image_size = None
    if POSITIONS in state:
        image_size = _image_size(state[POSITIONS], hidden, uri)
    return Sizes(
        "SADCL" if is_sadcl else "Query2Label",
        _backbone(state, uri),
        num_labels,
        hidden,
        feedforward,
        sum(part == "encoder" for part, _ in layers),
        sum(part == "decoder" for part, _ in layers),
        projection,
        image_size,
    )


def _shape(state: dict[str, Tensor], key: str, dims: int, uri: str) -> tuple[int, ...]:
    if key not in state:
        raise UserError(f"{uri!r} is not whole: it has no {key!r}.")
    if state[key].dim() != dims:
        raise UserError(
            f"{uri!r} has {key!r} with {state[key].dim()} axes, {tuple(state[key].shape)}; the "
            f"published networks have {dims}."
        )
    return tuple(state[key].shape)


def _is_dropped(key: str) -> bool:
    return key in (BANK, POSITIONS) or key.endswith(".num_batches_tracked")


def _check_known(state: dict[str, Tensor], uri: str) -> None:
    """Raise UserError for keys without a counterpart, with what they belong to."""
    unknown = [key for key in state if not _is_dropped(key) and our_key(key) is None]
    if not unknown:
        return
    parts = Counter(
        next((what for pattern, what in _FOREIGN if re.match(pattern, key)), "unknown parts")
        for key in unknown
    )
    names = ", ".join(map(repr, unknown[:3])) + (", ..." if len(unknown) > 3 else "")
    raise UserError(
        f"{uri!r} has {' and '.join(parts)}, for which there is no counterpart here: "
        f"{len(unknown)} tensors, {names}."
    )


def our_key(key: str) -> str | None:
    """Return the name that a tensor of a published state has here, or None if it has none."""
    if match := _LAYER.match(key):
        part = _PARTS[match[1]].get(match[3])
        return part and f"head.transformer.{match[1]}.{match[2]}.{part}.{key[match.end() :]}"
    for theirs, ours in _BEGINNINGS.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return None


def _backbone(state: dict[str, Tensor], uri: str) -> str:
    """Return timm's name of the ResNet with torchvision's weights."""
    blocks = [
        {m[1] for key in state if (m := re.match(rf"backbone\.0\.body\.layer{i}\.(\d+)\.", key))}
        for i in (1, 2, 3, 4)
    ]
    kind = "bottleneck" if "backbone.0.body.layer1.0.conv3.weight" in state else "basic"
    name = _DEPTHS.get((kind, *map(len, blocks)))
    if name is None:
        keys = [key for key in state if key.startswith("backbone.0.")][:3]
        raise UserError(
            f"{uri!r} has no whole ResNet-18, 34, 50, 101 or 152: its stages have "
            f"{', '.join(str(len(names)) for names in blocks)} blocks of the {kind} kind. Its "
            f"first keys are {', '.join(map(repr, keys)) or 'missing'}."
        )
    return f"{name}.tv_in1k"


def _image_size(encoding_1DHW: Tensor, hidden: int, uri: str) -> int:
    """Return the side of the images that a position encoding is for, and check its values.

    Averaged weights hold it with the rounding of many averages, and others with that of their type.
    """
    shape = tuple(encoding_1DHW.shape)
    if len(shape) != 4 or shape[:2] != (1, hidden) or shape[2] != shape[3] or hidden % 4:
        raise UserError(
            f"{uri!r} has {POSITIONS!r} of the shape {shape}; (1, {hidden}, H, H) is expected."
        )
    device, dtype = torch.device("cpu"), torch.float32
    expected_SD = sine_position(shape[2], shape[3], hidden, device=device, dtype=dtype)
    found_SD = encoding_1DHW[0].flatten(1).t().to(dtype)
    tolerance = max(1e-3, torch.finfo(encoding_1DHW.dtype).eps)
    if not torch.allclose(found_SD, expected_SD, rtol=0, atol=tolerance):
        raise UserError(
            f"{uri!r} has {POSITIONS!r} with other values than DETR's normalised sine encoding, "
            "for which there is no counterpart here."
        )
    return STRIDE * shape[2]


def convert(state: dict[str, Tensor], current: dict[str, Tensor], uri: str) -> dict[str, Tensor]:
    """Turn a published state into that of a network of ours.

    A prototype that is zero in all its elements is not valid. A projection head and prototypes that
    the published network does not have stay as they are.

    Args:
        state: as :func:`read_published` returns it.
        current: the state of a network with the sizes of :func:`infer_sizes`.
        uri: of the file, for the messages.

    Raises:
        UserError: for a tensor that is missing, or whose shape contradicts the others.
    """
    converted = dict(current)
    names = {ours: key for key in state if (ours := our_key(key)) and not _is_dropped(key)}
    for ours, key in names.items():
        tensor = state[key]
        if key in _ONE_ROW and tensor.shape[:1] == (1,):
            tensor = tensor[0]
        if ours not in current:
            why = ""
            if ours.startswith("head.reduce."):
                why = ": a convolution follows the backbone only where the channels differ"
            raise UserError(
                f"{uri!r} has {key!r}, which a network of its other tensors does not have{why}."
            )
        if tensor.shape != current[ours].shape:
            raise UserError(
                f"{uri!r} contradicts itself: {key!r} has the shape {tuple(tensor.shape)}, and "
                f"{tuple(current[ours].shape)} follows from its other tensors."
            )
        converted[ours] = tensor.to(current[ours].dtype)
    _check_whole(names, current, uri)
    if "prototypes.rows_LD" in names:
        converted["prototypes.valid_L"] = converted["prototypes.rows_LD"].ne(0).any(1)
    return converted


def _check_whole(names: dict[str, str], current: dict[str, Tensor], uri: str) -> None:
    """Raise UserError where a network's tensors have none in the file."""
    optional = [f"prototypes.{name}" for name in ("valid_L", "sum_LD", "count_L")]
    if not any(ours.startswith("projection.") for ours in names):  # Query2Label
        optional += ["projection.", "prototypes."]
    missing = [
        ours for ours in current if ours not in names and not ours.startswith(tuple(optional))
    ]
    if missing:
        raise UserError(
            f"{uri!r} is not whole: it has nothing for {len(missing)} of the network's "
            f"{len(current)} tensors, among them {missing[0]!r}."
        )
