"""How long a part of a step takes, without waiting for the device."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType

import torch


class Timer:
    """Adds up the seconds of the blocks that it is held around.

    On a GPU two events are put into the stream and read once both have passed, so that the host never waits for them; what
    is under way is counted in a later lap.
    """

    def __init__(self, device: torch.device) -> None:
        self._streams = device.type == "cuda"
        self._seconds = self._began = 0.0
        self._passing: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    def __enter__(self) -> None:
        self._began = time.perf_counter()
        if self._streams:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            self._passing.append((begin, end))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._streams:
            self._passing[-1][1].record()
        else:
            self._seconds += time.perf_counter() - self._began

    def lap(self) -> float:
        """Seconds since the last lap."""
        while self._passing and self._passing[0][1].query():
            begin, end = self._passing.popleft()
            self._seconds += begin.elapsed_time(end) / 1000
        seconds, self._seconds = self._seconds, 0.0
        return seconds
