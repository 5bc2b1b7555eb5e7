"""How long a part of a step takes, measured without waiting for the device."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType

import torch


class Timer:
    """Adds up the seconds of the ``with`` blocks that it guards.

    On a GPU it records two events in the stream and reads them once both have passed, so that the
    host never waits for them; a block that is still running counts in a later lap.

    Args:
        device: where the work of the blocks runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._uses_events = device.type == "cuda"
        self._seconds = self._start = 0.0
        self._pending: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    def __enter__(self) -> None:
        self._start = time.perf_counter()
        if self._uses_events:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            self._pending.append((begin, end))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._uses_events:
            self._pending[-1][1].record()
        else:
            self._seconds += time.perf_counter() - self._start

    def lap(self) -> float:
        """Return the seconds since the last lap, and start the next."""
        while self._pending and self._pending[0][1].query():
            begin, end = self._pending.popleft()
            self._seconds += begin.elapsed_time(end) / 1000
        seconds, self._seconds = self._seconds, 0.0
        return seconds
