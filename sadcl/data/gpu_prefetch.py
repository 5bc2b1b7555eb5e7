"""Copy and augment the next batch on a GPU while the current step runs."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

AHEAD = 2
"""Largest number of batches that may wait for the GPU: each holds its images there."""

_STREAMS: dict[int, Any] = {}
"""The stream of each device, by its number. A process has one for all its loaders, because PyTorch
keeps the memory that a stream has freed for the same stream."""


class GpuPrefetch:
    """A CUDA stream on which batches are made while the step before them runs.

    On a CPU every method does nothing but move the tensor.

    Args:
        device: the device of the step.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._module: Any = torch.get_device_module(device) if device.type == "cuda" else None
        self._stream: Any = _stream_of(device, self._module) if self._module is not None else None
        self._steps: deque[Any] = deque()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Run the GPU work of the block on the stream, without waiting for the current step.

        If more than :data:`AHEAD` steps are under way, wait for the oldest one first.
        """
        if self._module is None:
            yield
            return
        self._steps.append(self._module.current_stream(self.device).record_event())
        if len(self._steps) > AHEAD:
            self._steps.popleft().synchronize()
        with self._module.stream(self._stream):
            yield

    def send(self, tensor: Tensor) -> Tensor:
        """Copy a tensor to the device; the host does not wait for the copy."""
        if self._module is not None and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def hand_over(self, *tensors: Tensor) -> None:
        """Let the step use these tensors, and keep their memory until the step has used it."""
        if self._module is None:
            return
        step = self._module.current_stream(self.device)
        step.wait_stream(self._stream)
        for tensor in tensors:
            tensor.record_stream(step)


def _stream_of(device: torch.device, module: Any) -> Any:
    number = module.current_device() if device.index is None else device.index
    if number not in _STREAMS:
        _STREAMS[number] = module.Stream(device)
    return _STREAMS[number]
