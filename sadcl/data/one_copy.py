"""Many small tensors on their way to a GPU in one copy, which the host does not wait for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

_ALIGNMENT = 16
"""Each tensor starts at a multiple of so many bytes."""


def send_together(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Copy tensors of the host to a device.

    One after the other they would need a copy each, and from memory that is not pinned the host
    would wait for each. On a CPU they are returned as they are.

    Args:
        tensors: of any shapes and types, on the CPU.
        device: where they are needed.

    Returns:
        The same on the device, as parts of one buffer.
    """
    if device.type == "cpu":
        return list(tensors)
    packed = _pack(tensors, pin=device.type == "cuda")
    return list(_unpack(packed.to(device, non_blocking=True), tensors))


def _pack(tensors: Sequence[Tensor], *, pin: bool) -> Tensor:
    size = sum(map(_padded_bytes, tensors))
    buffer = torch.empty(size, dtype=torch.uint8, pin_memory=pin)
    for place, tensor in zip(_unpack(buffer, tensors), tensors, strict=True):
        place.copy_(tensor)
    return buffer


def _unpack(buffer: Tensor, tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield the part of a buffer that each tensor has, in its type and shape."""
    start = 0
    for tensor in tensors:
        yield buffer[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        start += _padded_bytes(tensor)


def _padded_bytes(tensor: Tensor) -> int:
    return -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
