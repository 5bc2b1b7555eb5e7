"""A thread that reports every few seconds how a worker is doing, also while its training hangs."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sadcl import distributed
from sadcl.data.loader import Loader

BEAT_SECONDS = 2.0
"""Time between two beats."""
_WAITING_MODULES = ("torch.distributed", "torch.autograd", "sadcl.distributed")
"""Modules in which a worker waits for the others; DDP does so within the backward pass."""


@dataclass(frozen=True)
class Beat:
    """What a worker reports.

    Attributes:
        rank, ranks: The worker's rank, and the number of workers.
        host, pid: Where it runs.
        location: The file, line and function of this package where its training thread is.
        waits: Whether it waits for other workers there.
        compiling: Whether torch.compile is at work, which may take minutes.
        images: A count that grows while images are trained on or evaluated.
        collectives: The collective calls that it has begun.
        stage, epoch, step: Its last step, each from 1; 0 before the first one.
        steps: The number of steps of the epoch.
        progress: The share of the epoch that is done; None without a step since the last beat.
        step_seconds, synchronisation_seconds: Means over the steps since the last beat; None
            without any.
        last: Whether this is the last beat; it has no more than rank, ranks, host and pid.
    """

    rank: int
    ranks: int
    host: str
    pid: int
    location: str = ""
    waits: bool = False
    compiling: bool = False
    images: int = 0
    collectives: int = 0
    stage: int = 0
    epoch: int = 0
    step: int = 0
    steps: int = 0
    progress: float | None = None
    step_seconds: float | None = None
    synchronisation_seconds: float | None = None
    last: bool = False


class Heartbeat:
    """Beats from start to stop, and watches the thread that starts it.

    Args:
        report: Takes each beat.
        compiles: Whether the thread uses torch.compile.
    """

    def __init__(self, report: Callable[[Beat], object], *, compiles: bool = False) -> None:
        self._report, self._stop = report, threading.Event()
        self._compiles, self._compiling = compiles, False
        self._thread = threading.Thread(target=self._loop, daemon=True, name="sadcl-heartbeat")
        self._watched_thread = 0
        self._host, self._pid = socket.gethostname(), os.getpid()
        self._position = self._reported_position = (0, 0, 0, 1)
        self._last_step_at = 0.0
        self._sums = (0, 0.0, 0.0)

    def start(self) -> None:
        self._watched_thread = threading.get_ident()
        if self._compiles:
            import torch._dynamo  # takes seconds

            torch._dynamo.on_compile_start(self._compile_begins)
            torch._dynamo.on_compile_end(self._compile_ends)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)
        if self._compiles:
            import torch._dynamo

            handler = torch._dynamo.callback_handler
            with contextlib.suppress(ValueError):  # torch.compiler.reset() has removed them
                handler.remove_start_callback(self._compile_begins)
                handler.remove_end_callback(self._compile_ends)
        with contextlib.suppress(Exception):  # as in the loop
            self._report(Beat(*self._worker(), last=True))

    def step(self, stage: int, epoch: int, step: int, steps: int, synchronised: float) -> None:
        """Take note of a step; the loop calls this after each one.

        An epoch's first step is not timed, because evaluation comes before it.

        Args:
            stage, epoch, step: All from 1.
            steps: The number of steps of the epoch.
            synchronised: Seconds of the step in which it gathered the rows of all workers.
        """
        now = time.perf_counter()
        if step > 1 and self._last_step_at:
            count, seconds, waited = self._sums
            self._sums = count + 1, seconds + now - self._last_step_at, waited + synchronised
        self._last_step_at, self._position = now, (stage, epoch, step, steps)

    def _compile_begins(self, *_: object) -> None:
        self._compiling = True

    def _compile_ends(self, *_: object) -> None:
        self._compiling = False

    def _loop(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            try:
                self._report(self._beat())
            except Exception:  # the listener is gone, which is no reason to stop training
                return

    def _worker(self) -> tuple[int, int, str, int]:
        return distributed.rank(), distributed.world_size(), self._host, self._pid

    def _beat(self) -> Beat:
        location, waits = thread_location(self._watched_thread)
        images, position = Loader.total_batches, self._position
        stage, epoch, step, steps = position if position[0] else (0, 0, 0, 0)
        progress = None
        if position != self._reported_position:
            self._reported_position, progress = position, step / steps
        (count, seconds, waited), self._sums = self._sums, (0, 0.0, 0.0)
        return Beat(
            *self._worker(),
            location,
            waits,
            self._compiling,
            images,
            distributed.collectives_begun(),
            stage,
            epoch,
            step,
            steps,
            progress,
            seconds / count if count else None,
            waited / count if count else None,
        )


def thread_location(thread: int) -> tuple[str, bool]:
    """Return where in this package a thread is, and whether it waits for other workers there.

    Args:
        thread: The identifier of the thread.
    """
    frame, waits = sys._current_frames().get(thread), False
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        waits = waits or module.startswith(_WAITING_MODULES)
        if module.startswith("sadcl."):
            return f"{module}:{frame.f_lineno} in {frame.f_code.co_name}", waits
        frame = frame.f_back
    return "code outside this package", waits
