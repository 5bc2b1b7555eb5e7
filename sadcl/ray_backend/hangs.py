"""Which trials hang, and which of their workers have not arrived where the others wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sadcl.study.trial_event import (
    HangEnded,
    HangStarted,
    LateWorker,
    TrialEnded,
    TrialEvent,
    TrialRestarts,
    TrialStarted,
    WorkerBeat,
)

COMPILE_SECONDS = 3600.0
"""A worker that compiles for longer counts as one that stands still."""


@dataclass(frozen=True)
class _Worker:
    beat: WorkerBeat
    heard: float
    """When its last beat came."""
    moved: float
    """When a beat last showed that it had advanced, or that it compiled."""
    compiles_since: float | None = None

    @property
    def position(self) -> tuple[int, ...]:
        """How far it is; greater is further."""
        beat = self.beat
        return beat.collectives, beat.stage, beat.epoch, beat.step


class HangDetector:
    """Finds trials of which a worker sends no beats, or no worker advances, for too long.

    Times are those at which beats arrive here, so that the clocks of other hosts do not matter.

    Args:
        limit: In seconds; with 0 no trial counts as hanging.
        clock: Gives the time in seconds.
    """

    def __init__(self, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._clock = limit, clock
        self._workers: dict[str, dict[int, _Worker]] = {}
        self._since: dict[str, float] = {}
        """When the trials that hang, and were reported, last advanced."""

    def add(self, event: TrialEvent) -> None:
        """Take note of a beat; a start, restart or end means that former workers are gone."""
        if isinstance(event, TrialStarted | TrialRestarts | TrialEnded):
            self._workers.pop(event.key, None)
            self._since.pop(event.key, None)
        elif isinstance(event, WorkerBeat) and event.last:
            self._workers.get(event.key, {}).pop(event.rank, None)
        elif isinstance(event, WorkerBeat):
            workers = self._workers.setdefault(event.key, {})
            workers[event.rank] = _heard(event, workers.get(event.rank), self._clock())

    def changes(self) -> list[HangStarted | HangEnded]:
        """Return the trials that have begun to hang, or that continue, since the last call."""
        changes: list[HangStarted | HangEnded] = []
        now = self._clock()
        for key, workers in self._workers.items():
            silent = {rank for rank, worker in workers.items() if now - worker.heard > self._limit}
            still = min((now - worker.moved for worker in workers.values()), default=0)
            hangs = bool(silent) or still > self._limit
            if hangs and self._limit and key not in self._since:
                self._since[key] = min(worker.moved for worker in workers.values())
                changes.append(_hang(key, workers, silent, now))
            elif not hangs and key in self._since:
                changes.append(HangEnded(key, now - self._since.pop(key)))
        return changes

    def behind(self, key: str, seconds: float) -> list[int]:
        """Return the ranks that kept the others waiting when a trial's workers were lost.

        Args:
            seconds: All workers must have stood still for so long when they were last heard, and
                one that froze must have been silent for so long.

        Returns:
            Empty where the trial advanced, or where nothing tells its workers apart.
        """
        workers = self._workers.get(key, {})
        latest = max((worker.heard for worker in workers.values()), default=0.0)
        silent = {rank for rank, worker in workers.items() if latest - worker.heard > seconds}
        still = [w.heard - w.moved > seconds for rank, w in workers.items() if rank not in silent]
        if not workers or not all(still):
            return []
        late = silent or _late_ranks(workers)
        return sorted(late) if late != set(workers) else []


def _heard(beat: WorkerBeat, before: _Worker | None, now: float) -> _Worker:
    """What is known of a worker after a beat; a compilation counts as an advance for a while."""
    if before is None or _progress(before.beat) != _progress(beat):
        before = _Worker(beat, now, now)
    since = None
    if beat.compiling:
        since = now if before.compiles_since is None else before.compiles_since
    compiles = since is not None and now - since <= COMPILE_SECONDS
    return _Worker(beat, now, now if compiles else before.moved, since)


def _progress(beat: WorkerBeat) -> tuple[int, ...]:
    """What differs between two beats of a worker that has advanced."""
    return beat.pid, beat.images, beat.collectives, beat.stage, beat.epoch, beat.step


def _hang(key: str, workers: dict[int, _Worker], silent: set[int], now: float) -> HangStarted:
    """Find who has not arrived: by silence, else by its beat."""
    ranks = next(iter(workers.values())).beat.ranks
    front = max(workers.values(), key=lambda worker: worker.position)
    late = silent | (set(range(ranks)) - set(workers)) or _late_ranks(workers)
    if late == set(range(ranks)):
        late = set(workers)
    return HangStarted(
        key,
        front.beat,
        tuple(_late_worker(rank, workers.get(rank), rank in silent, now) for rank in sorted(late)),
        tuple(worker.beat for rank, worker in sorted(workers.items()) if rank not in late),
    )


def _late_ranks(workers: dict[int, _Worker]) -> set[int]:
    """Find who is behind: by its collective calls, else by the step, else by where the code is.

    Returns:
        All ranks where nothing tells them apart.
    """
    front = max(worker.position for worker in workers.values())
    late = {rank for rank, worker in workers.items() if worker.position < front}
    if not late:
        late = {rank for rank, worker in workers.items() if not worker.beat.waits}
    return late or set(workers)


def _late_worker(rank: int, worker: _Worker | None, silent: bool, now: float) -> LateWorker:
    if worker is None:
        return LateWorker(rank)
    return LateWorker(rank, worker.beat, now - worker.heard if silent else None, now - worker.moved)
