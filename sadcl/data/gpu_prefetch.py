"""Work that a GPU does for the next step beside this one."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

AHEAD = 2
"""Steps that may wait for a GPU at most: each holds its images there."""


class GpuPrefetch:
    """A stream on which batches are copied to a GPU and augmented while the step before them runs; on a CPU nothing.

    Args:
        device: of the step.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._module: Any = torch.get_device_module(device) if device.type == "cuda" else None
        self._stream: Any = self._module.Stream(device) if self._module is not None else None
        self._passed: deque[Any] = deque()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """What is put on the device in here waits for no step, unless more than :data:`AHEAD` of them are under way."""
        if self._module is None:
            yield
            return
        self._passed.append(self._module.current_stream(self.device).record_event())
        if len(self._passed) > AHEAD:
            self._passed.popleft().synchronize()
        with self._module.stream(self._stream):
            yield

    def send(self, tensor: Tensor) -> Tensor:
        """A copy on the device that the host does not wait for."""
        if self._module is not None and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def hand_over(self, *tensors: Tensor) -> None:
        """From here on the step may use them, and their memory is not given away before it has."""
        if self._module is None:
            return
        step = self._module.current_stream(self.device)
        step.wait_stream(self._stream)
        for tensor in tensors:
            tensor.record_stream(step)
