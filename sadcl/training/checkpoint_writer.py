"""Checkpoints are copied to the host's memory at once, and written while training continues."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from sadcl.training.checkpoint import save_checkpoint


def host_copy(value: Any) -> Any:
    """Copy tensors in nested dicts, lists and tuples to the host's memory, and all else as it is.

    A GPU's tensors are copied to pinned memory without waiting: synchronise before reading them.
    """
    if isinstance(value, Tensor):
        value = value.detach()
        if value.device.type == "cpu":
            return value.clone()
        pinned = torch.empty_like(value, device="cpu", pin_memory=True)
        return pinned.copy_(value, non_blocking=True)
    if isinstance(value, dict):
        copied = copy.copy(value)  # the state of a module has attributes too
        copied.update((name, host_copy(item)) for name, item in value.items())
        return copied
    if isinstance(value, list | tuple):
        return type(value)(host_copy(item) for item in value)
    return value


class CheckpointWriter:
    """Writes checkpoints in a thread, one after the other; as a context it waits at its end.

    Until it is written, a copy takes as much of the host's memory as its tensors. A GPU's copy is
    pinned: PyTorch rounds each tensor up to a power of two, and keeps the memory for the next copy.

    Args:
        device: that computes the tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._written: Future[None] | None = None

    def save(self, contents: Mapping[str, dict[str, Any]]) -> None:
        """Copy checkpoints, and have them written in their order; what follows a failure is not.

        The tensors may change as soon as this returns. It waits for an earlier call's files.

        Args:
            contents: of each checkpoint, by the URI of its file. Each file is replaced when the new
                one is whole, and its folder must exist.

        Raises:
            OSError: where a file of an earlier call could not be written.
        """
        self.wait()
        copies = {uri: host_copy(content) for uri, content in contents.items()}
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._written = self._thread.submit(_write, copies)

    def wait(self) -> None:
        """Wait until everything is written.

        Raises:
            OSError: where a file could not be written.
        """
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown()
        if error is None:  # otherwise that is the cause, whatever became of the files
            self.wait()


def _write(contents: dict[str, dict[str, Any]]) -> None:
    for uri, content in contents.items():
        save_checkpoint(uri, content)
