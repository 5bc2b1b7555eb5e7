"""A thread that says every few seconds how a worker is doing, also while nothing moves in it."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from sadcl import distributed
from sadcl.data.loader import Loader

BEAT_SECONDS = 2.0
"""Between two beats."""
_WAITING_MODULES = ("torch.distributed", "torch.autograd", "sadcl.distributed")
"""Modules in which a worker waits for the others; DDP meets them within the backward pass."""


class Heartbeat:
    """Beats from start to stop; the thread that starts it is the one that is looked at.

    A beat has ``rank, ranks, host, pid``, ``at`` (where in our sources the worker stands), ``meets`` (whether that is where
    it waits for others) and ``moved`` (a count that grows while images are trained on or evaluated); after a first step
    ``stage, epoch, step, steps``; and where steps were taken since the last beat ``part``, the share of the epoch that is
    done, ``step_seconds`` and ``synchronisation_seconds``, means of those steps. The last one has ``left``.

    Args:
        say: takes a beat.
    """

    def __init__(self, say: Callable[[dict[str, Any]], object]) -> None:
        self._say, self._stop = say, threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True, name="sadcl-pulse")
        self._watched = 0
        self._who = {"host": socket.gethostname(), "pid": os.getpid()}
        self._place = self._said = (0, 0, 0, 1)
        self._last = 0.0
        self._sums = (0, 0.0, 0.0)

    def start(self) -> None:
        self._watched = threading.get_ident()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)
        with contextlib.suppress(Exception):  # as in the loop
            self._say({**self._worker(), "left": True})

    def step(self, stage: int, epoch: int, step: int, steps: int, synchronised: float) -> None:
        """What the loop calls after each step; an epoch's first is not timed, because evaluation lies before it."""
        now = time.perf_counter()
        if step > 1 and self._last:
            taken, seconds, waited = self._sums
            self._sums = taken + 1, seconds + now - self._last, waited + synchronised
        self._last, self._place = now, (stage, epoch, step, steps)

    def _loop(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            try:
                self._say(self._beat())
            except Exception:  # whoever listened is gone, and no reason to stop training
                return

    def _worker(self) -> dict[str, Any]:
        return {"rank": distributed.rank(), "ranks": distributed.world_size(), **self._who}

    def _beat(self) -> dict[str, Any]:
        at, meets = where_thread_stands(self._watched)
        beat = {**self._worker(), "at": at, "meets": meets, "moved": Loader.total_batches}
        stage, epoch, step, steps = place = self._place
        if stage:
            beat.update(stage=stage, epoch=epoch, step=step, steps=steps)
        if place != self._said:
            self._said = place
            beat["part"] = step / steps
        (taken, seconds, waited), self._sums = self._sums, (0, 0.0, 0.0)
        if taken:
            beat.update(step_seconds=seconds / taken, synchronisation_seconds=waited / taken)
        return beat


def where_thread_stands(thread: int) -> tuple[str, bool]:
    """Where in our sources a thread of this process stands, and whether it waits for other workers there."""
    frame, meets = sys._current_frames().get(thread), False
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        meets = meets or module.startswith(_WAITING_MODULES)
        if module.startswith("sadcl."):
            return f"{module}:{frame.f_lineno} in {frame.f_code.co_name}", meets
        frame = frame.f_back
    return "code that is not ours", meets
