"""Checkpoints: plain tensors and values, loaded without executing anything that a file may hold."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import nn

from sadcl import storage
from sadcl.errors import UserError

FORMAT = 1


def save(uri: str, content: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    storage.write(uri, buffer.getbuffer())


def load(uri: str) -> dict[str, Any]:
    """A checkpoint with its tensors on the CPU.

    Raises:
        UserError: where there is no file, or it is not a checkpoint of this project.
    """
    try:
        data = storage.read(uri)
    except (FileNotFoundError, IsADirectoryError, OSError) as error:
        raise UserError(f"There is no checkpoint at {uri!r} ({type(error).__name__}); give the path of a best.pt.") from None
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if "weights_only" in reason or "Weights only" in reason:  # torch's advice is to trust the file: never
            reason = "it holds something else than tensors and plain values."
        raise UserError(f"{uri!r} is not a checkpoint, or it is damaged: {reason}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{uri!r} is not a checkpoint of this version: format {FORMAT} is read, found {found!r}.")
    return content


def load_network(network: nn.Module, content: dict[str, Any], uri: str, labels: tuple[str, ...]) -> None:
    """Put a checkpoint's weights into a network; its head and prototypes may be missing or of another kind.

    Raises:
        UserError: where the labels or the shapes differ.
    """
    if tuple(content["labels"]) != tuple(labels):
        raise UserError(
            f"{uri!r} was trained for {len(content['labels'])} labels ({', '.join(content['labels'][:3])}, ...), "
            f"but the data has {len(labels)} ({', '.join(labels[:3])}, ...)."
        )
    own = network.state_dict()
    optional = ("projection.", "prototypes.")
    state = content["model"]
    fitting = {n: t for n, t in state.items() if n in own and own[n].shape == t.shape}
    wrong = [n for n in own.keys() | state.keys() if n not in fitting and not n.startswith(optional)]
    if wrong:
        raise UserError(f"{uri!r} holds another network: {len(wrong)} tensors do not fit, among them {sorted(wrong)[0]!r}.")
    network.load_state_dict({n: t for n, t in fitting.items() if not n.startswith("prototypes.")}, strict=False)
