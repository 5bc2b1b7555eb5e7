"""Checkpoints: plain tensors and values, loaded without executing anything that a file may hold."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sadcl import storage
from sadcl.errors import UserError

FORMAT = 1
LABEL_FIRST = ("transformer.query_LD", "classifier.", "prototypes.")
"""Tensors whose first axis is the labels."""


def save_checkpoint(uri: str, content: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all into a folder that is there; a storage that fails is waited for.

    Raises:
        OSError: where it fails for :data:`sadcl.storage.PATIENCE` seconds, or is full.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    storage.retry(lambda: storage.write(uri, buffer.getbuffer(), make_folder=False))


def load_checkpoint(uri: str) -> dict[str, Any]:
    """A checkpoint with its tensors on the CPU.

    Raises:
        UserError: where there is no file, or it is not a checkpoint of this project.
    """
    data = _bytes(uri)
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if (
            "weights_only" in reason or "Weights only" in reason
        ):  # torch's advice is to trust the file: never
            reason = "it holds something else than tensors and plain values."
        raise UserError(f"{uri!r} is not a checkpoint, or it is damaged: {reason}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise UserError(
            f"{uri!r} is not a checkpoint of this version: format {FORMAT} is read, found {found!r}."
        )
    return content


def load_kept(uri: str) -> dict[str, Any]:
    """The same as :func:`load`, kept until another one is asked for: many trials of a process start from one file."""
    mark = storage.stamp(uri)
    if (uri, mark) not in _KEPT or mark is None:
        _KEPT.clear()
        _KEPT[uri, mark] = load_checkpoint(uri)
    return _KEPT[uri, mark]


_KEPT: dict[tuple[str, tuple[int, int] | None], dict[str, Any]] = {}


def load_network(
    network: nn.Module,
    content: dict[str, Any],
    uri: str,
    labels: tuple[str, ...],
    *,
    whole: bool = False,
) -> str:
    """Put a checkpoint's weights into a network; what belongs to a label goes to the label of the same name.

    A label that the checkpoint does not know keeps what it has. Head and prototypes may be missing or of another kind;
    from another architecture the backbone alone is taken.

    Args:
        whole: nothing will be learned anew, so the backbone alone, or no label in common, is an error.

    Returns:
        What was taken, in words.

    Raises:
        UserError: where the shapes differ, or the file is a run's training state.
    """
    if "labels" not in content:
        raise UserError(f"{uri!r} is a run's training state; its best.pt is the one to start from.")
    own, state = network.state_dict(), content["model"]
    taken = f"all of {len(labels)} labels"
    if tuple(content["labels"]) != tuple(labels):
        pairs = _pairs(labels, content["labels"])
        here, there = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
        state = dict(state)
        for name in own.keys() & state.keys():
            if name.startswith(LABEL_FIRST) and own[name].shape[1:] == state[name].shape[1:]:
                rows = own[name].clone()
                rows[here] = state[name][there].to(rows.dtype)
                state[name] = rows
        taken = f"{len(pairs)} of {len(labels)} labels"
        if whole and not pairs:
            raise UserError(
                f"{uri!r} knows none of the {len(labels)} labels: stage 2 cannot start from it."
            )
    if any(name.startswith("transformer.") for name in own) != any(
        name.startswith("transformer.") for name in state
    ):
        state = {**own, **{n: t for n, t in state.items() if n.startswith("backbone.")}}
        taken = "the backbone alone (it is of another architecture)"
        if whole:
            raise UserError(f"{uri!r} holds another architecture: stage 2 cannot start from it.")
    optional = ("projection.", "prototypes.")
    fitting = {n: t for n, t in state.items() if n in own and own[n].shape == t.shape}
    wrong = [
        n for n in own.keys() | state.keys() if n not in fitting and not n.startswith(optional)
    ]
    if wrong:
        raise UserError(
            f"{uri!r} holds another network: {len(wrong)} tensors do not fit, among them {sorted(wrong)[0]!r}."
        )
    if (
        not {"prototypes.rows_LD", "prototypes.valid_L"} <= fitting.keys()
    ):  # a flag without its row would be a zero vector
        fitting = {n: t for n, t in fitting.items() if not n.startswith("prototypes.")}
    for unfinished in ("prototypes.sum_LD", "prototypes.count_L"):
        fitting.pop(unfinished, None)
    network.load_state_dict(fitting, strict=False)
    return taken


def _pairs(labels: Sequence[str], known: Sequence[str]) -> list[tuple[int, int]]:
    """Place of each label here, and there: under its own name, else under one that means the same and no other does."""
    exact = {label: i for i, label in enumerate(known)}
    spelt = [_canonical(label) for label in known]
    pairs = []
    for i, label in enumerate(labels):
        if label in exact:
            pairs.append((i, exact[label]))
        elif spelt.count(_canonical(label)) == 1:
            pairs.append((i, spelt.index(_canonical(label))))
    return pairs


def _canonical(label: str) -> str:
    """VOC and COCO write the same things in different ways."""
    plain = "".join(c for c in label.lower() if c.isalnum())
    return {
        "aeroplane": "airplane",
        "motorbike": "motorcycle",
        "sofa": "couch",
        "tvmonitor": "tv",
    }.get(plain, plain)


def digest(uri: str) -> str:
    """Twelve hexadecimal digits of a file's bytes.

    Raises:
        UserError: where there is no file.
    """
    return hashlib.sha256(_bytes(uri)).hexdigest()[:12]


def _bytes(uri: str) -> bytes:
    try:
        return storage.retry(lambda: storage.read(uri))
    except OSError as error:
        raise UserError(
            f"There is no checkpoint at {uri!r} ({type(error).__name__}); give the path of a best.pt."
        ) from None
