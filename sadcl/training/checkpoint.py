"""Checkpoints: plain tensors and values, loaded without executing anything that a file may hold."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sadcl import storage
from sadcl.config import SARL, Config, Model
from sadcl.data.base import MultiLabelData
from sadcl.errors import UserError
from sadcl.model import Network

FORMAT = 1
OPTIONAL = ("projection.", "prototypes.")
"""Tensors that a checkpoint need not have."""
UNFINISHED = ("prototypes.sum_LD", "prototypes.count_L")
"""Sums of an epoch that was not over."""


def save_checkpoint(uri: str, content: dict[str, Any], *, make_folder: bool = False) -> None:
    """Write a checkpoint whole or not at all; its folder must exist, unless it is to be made.

    A storage that fails is tried again for :data:`sadcl.storage.PATIENCE` seconds.

    Raises:
        OSError: where it still fails then, or is full.
    """

    def write() -> None:
        with storage.new_file(uri, make_folder=make_folder) as file:
            try:
                torch.save({"format": FORMAT, **content}, file)
            except RuntimeError as error:
                # of a file that could not be written, torch only says that it is too short
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

    storage.retry(write)


def load_checkpoint(uri: str) -> dict[str, Any]:
    """Load a checkpoint with its tensors on the CPU.

    Raises:
        UserError: where there is no file, or it is not a checkpoint of this project.
    """
    content = load_values(uri, read_bytes(uri))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        kind = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise UserError(
            f"{uri!r} is not a checkpoint of this version: format {FORMAT} is read, but the file "
            f"has {kind!r}."
        )
    if "model" in content:
        content["model"] = _as_today(content["model"])
    return content


def _as_today(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of an older version, in which those of the head had no prefix."""
    former = ("reduce.", "transformer.", "classifier.")
    return {f"head.{name}" if name.startswith(former) else name: t for name, t in state.items()}


def load_values(uri: str, data: bytes, allowed: Sequence[Any] = ()) -> Any:
    """Read what torch.save wrote, with tensors on the CPU; no code in it is executed.

    Args:
        uri: of the file, for the messages.
        data: its bytes.
        allowed: types that it may hold beside tensors and plain values, as
            :func:`torch.serialization.safe_globals` takes them.

    Raises:
        UserError: where it is no such file, is damaged, or holds something else.
    """
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        message = str(error) or type(error).__name__
        reason = message.splitlines()[0]
        # torch's advice would be to trust the file, which must never be followed.
        if "weights_only" in reason or "Weights only" in reason:
            found = re.search(r"GLOBAL (\S+)", message)
            what = f" ({found[1]})" if found else ""
            reason = f"it holds something other than tensors and plain values{what}."
        raise UserError(f"{uri!r} is not a checkpoint, or it is damaged: {reason}") from None


def load_cached(uri: str) -> dict[str, Any]:
    """Load a checkpoint and keep it until another one is loaded or its file changes.

    Many trials of one process start from the same file. The caller must not change the tensors.

    Raises:
        UserError: as :func:`load_checkpoint`.
    """
    mark = storage.stamp(uri)
    if (uri, mark) not in _CACHE or mark is None:
        _CACHE.clear()
        _CACHE[uri, mark] = load_checkpoint(uri)
    return _CACHE[uri, mark]


_CACHE: dict[tuple[str, tuple[int, int] | None], dict[str, Any]] = {}


class LoadedWeights(NamedTuple):
    """What a network took from a checkpoint."""

    num_labels: int
    """Labels of the network."""
    num_matches: int
    """Labels of the network that the checkpoint has too."""
    same_labels: bool
    """Whether both have the same labels in the same order."""
    backbone_only: bool
    """Whether only the backbone was taken, because the rest is of another head, or cannot be taken
    apart by label."""

    def __str__(self) -> str:
        if self.backbone_only:
            return "the backbone alone (its head is another one, or has other labels as a whole)"
        return f"{'all' if self.same_labels else self.num_matches} of {self.num_labels} labels"


def load_network(
    network: Network,
    content: dict[str, Any],
    uri: str,
    labels: tuple[str, ...],
    *,
    whole: bool = False,
) -> LoadedWeights:
    """Put a checkpoint's weights into a network; a label's part goes to the label of the same name.

    A label that the checkpoint does not have keeps its initial weights. Projection and prototypes
    may be missing or of another kind. From another head only the backbone is taken.

    Args:
        network: it is changed in place.
        content: of a checkpoint with selected weights.
        uri: of the checkpoint, for the messages.
        labels: of the network.
        whole: refuse another head, or a checkpoint without any of the labels: nothing will
            be trained before the weights are needed.

    Raises:
        UserError: where the shapes or the head's arguments differ, or the file is a run's training
            state.
    """
    if "labels" not in content:
        raise UserError(
            f"{uri!r} is a run's training state; give the best.pt of the same folder instead."
        )
    current, state = network.state_dict(), content["model"]
    same_labels, num_matches = tuple(content["labels"]) == tuple(labels), len(labels)
    axes: Mapping[str, tuple[int, ...]] | None = {}
    if not same_labels:
        pairs = _label_pairs(labels, content["labels"])
        axes, num_matches = network.label_axes(labels), len(pairs)
        if axes is not None:
            state = _permute_labels(current, state, pairs, axes, dict(network.named_parameters()))
        if whole and not pairs:
            raise UserError(
                f"{uri!r} knows none of the {len(labels)} labels: stage 2 cannot start from it."
            )
    trained = Config.stored(content["config"]).model
    other_head = network.head_path not in (None, trained.head)
    backbone_only = other_head or (not same_labels and axes is None)
    if backbone_only:
        backbone = {name: t for name, t in state.items() if name.startswith("backbone.")}
        state = {**current, **backbone}
        if whole:
            what = f"another head ({trained.head})" if other_head else "a head for other labels"
            raise UserError(f"{uri!r} holds {what}: stage 2 cannot start from it.")
    elif network.head_path is not None:
        _check_arguments(network, trained, uri)
    network.load_state_dict(_fitting(current, state, uri), strict=False)
    return LoadedWeights(len(labels), num_matches, same_labels, backbone_only)


def _check_arguments(network: Network, trained: Model, uri: str) -> None:
    """Raise UserError where a checkpoint's head had other arguments that no shape shows.

    Dropout only takes part in training, and recomputing changes no value.
    """
    if trained.standardize != bool(network.standardizations):
        raise UserError(
            f"{uri!r} was trained with model.standardize = {trained.standardize}, and a network "
            f"only works with what it was trained with. Set it to {trained.standardize}."
        )
    for name, value in network.head_arguments.items():
        former = trained.arguments.get(name, value)
        if former != value and name not in ("dropout", "checkpointing"):
            field = f"model.{name}" if trained.head == SARL else f"model.head_arguments.{name}"
            raise UserError(
                f"{uri!r} was trained with {field} = {former!r}, and a network only works with "
                f"what it was trained with. Set {field} to {former!r}; it is {value!r}."
            )


def _permute_labels(
    current: dict[str, Tensor],
    state: dict[str, Tensor],
    pairs: list[tuple[int, int]],
    axes: Mapping[str, tuple[int, ...]],
    parameters: Mapping[str, Any],
) -> dict[str, Tensor]:
    """Move the labels' parts of a state to their places in a network's state.

    A buffer over pairs of labels, such as a matrix of co-occurrence, stays the network's own: it
    comes from its data.
    """
    target, source = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
    state = dict(state)
    for name in axes.keys() & current.keys() & state.keys():
        ours, theirs = current[name], state[name]
        if len(axes[name]) > 1 and name not in parameters:
            state[name] = ours
            continue
        if ours.dim() != theirs.dim():
            continue
        for axis in axes[name]:
            theirs = theirs.index_select(axis, source)
        shape = [len(pairs) if i in axes[name] else n for i, n in enumerate(ours.shape)]
        if list(theirs.shape) != shape:
            continue
        places = torch.meshgrid(
            *(target if i in axes[name] else torch.arange(n) for i, n in enumerate(ours.shape)),
            indexing="ij",
        )
        state[name] = ours.clone().index_put(places, theirs.to(ours.dtype))
    return state


def _fitting(current: dict[str, Tensor], state: dict[str, Tensor], uri: str) -> dict[str, Tensor]:
    """Select the tensors of a state that a network can load.

    Raises:
        UserError: where a tensor that is not optional is missing, unknown or of another shape.
    """
    fitting = {
        name: tensor
        for name, tensor in state.items()
        if name in current and current[name].shape == tensor.shape
    }
    wrong = [
        name
        for name in current.keys() | state.keys()
        if name not in fitting and not name.startswith(OPTIONAL)
    ]
    if wrong:
        raise UserError(
            f"{uri!r} holds another network: {len(wrong)} tensors do not fit, among them "
            f"{sorted(wrong)[0]!r}."
        )
    # A prototype's flag without its row would make a zero vector a prototype.
    if not {"prototypes.rows_LD", "prototypes.valid_L"} <= fitting.keys():
        fitting = {n: tensor for n, tensor in fitting.items() if not n.startswith("prototypes.")}
    return {name: tensor for name, tensor in fitting.items() if name not in UNFINISHED}


def check_data(content: dict[str, Any], uri: str, data: MultiLabelData) -> None:
    """Check that data are those that a checkpoint was trained on, as far as it knows them.

    An imported checkpoint knows the names of its labels only.

    Raises:
        UserError: where they differ, with what differs.
    """
    recorded = content["data_digest"]
    if recorded is not None and recorded != data.digest:
        raise UserError(
            f"The data differs from what {uri!r} was trained on: digest {data.digest} here, "
            f"{recorded} there. Labels, file names or the split are not the same."
        )
    labels = tuple(content["labels"])
    if labels != data.labels:
        pairs = zip(labels, data.labels, strict=False)
        different = next((f": {a!r} there is {b!r} here" for a, b in pairs if a != b), "")
        raise UserError(
            f"The labels of the data are not those of {uri!r}, which has {len(labels)} of them; "
            f"the data has {len(data.labels)}{different}. Import it with the right names "
            "(sadcl import --dataset or --labels)."
        )


def _label_pairs(labels: Sequence[str], saved_labels: Sequence[str]) -> list[tuple[int, int]]:
    """Pair the places of labels that mean the same.

    A label is paired with its own name, else with another spelling of it that occurs only once.

    Returns:
        Places in ``labels`` and in ``saved_labels``.
    """
    exact = {label: i for i, label in enumerate(saved_labels)}
    spellings = [_canonical(label) for label in saved_labels]
    pairs = []
    for i, label in enumerate(labels):
        if label in exact:
            pairs.append((i, exact[label]))
        elif spellings.count(_canonical(label)) == 1:
            pairs.append((i, spellings.index(_canonical(label))))
    return pairs


def _canonical(label: str) -> str:
    """One spelling of a label, because VOC and COCO name the same things differently."""
    plain = "".join(c for c in label.lower() if c.isalnum())
    return {
        "aeroplane": "airplane",
        "motorbike": "motorcycle",
        "sofa": "couch",
        "tvmonitor": "tv",
    }.get(plain, plain)


def digest(uri: str) -> str:
    """Twelve hexadecimal digits of the SHA-256 of a file's bytes.

    Raises:
        UserError: where there is no file.
    """
    return hashlib.sha256(read_bytes(uri)).hexdigest()[:12]


def read_bytes(uri: str, kind: str = "a best.pt") -> bytes:
    """Read a checkpoint's file.

    Raises:
        UserError: where there is none; it asks for the path of ``kind``.
    """
    try:
        return storage.retry(lambda: storage.read(uri))
    except OSError as error:
        raise UserError(
            f"There is no checkpoint at {uri!r} ({type(error).__name__}); give the path of {kind}."
        ) from None
