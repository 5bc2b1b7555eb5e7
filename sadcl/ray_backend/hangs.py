"""Which workers of which trials have not come where the others wait: known by their beats, or by there being none."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class _Worker:
    beat: Mapping[str, Any]
    heard: float
    moved: float
    """When it was seen to move last."""

    @property
    def place(self) -> tuple[int, int, int]:
        return self.beat.get("stage", 0), self.beat.get("epoch", 0), self.beat.get("step", 0)


class HangDetector:
    """Finds trials that hang: a worker is not heard of, or none of a trial's workers has moved, for too long.

    Times are those at which beats arrive here, so that clocks of other hosts do not matter.

    Args:
        limit: seconds; 0 finds nothing.
        clock: in seconds.
    """

    def __init__(self, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._clock = limit, clock
        self._workers: dict[str, dict[int, _Worker]] = {}
        self._since: dict[str, float] = {}
        """Of trials that hang, and were reported."""

    def note(self, event: Mapping[str, Any]) -> None:
        """Take note of a beat, or that a trial has begun, lost its workers or ended: those to come are others."""
        key, now = event["key"], self._clock()
        if "status" in event or "gone" in event:
            self._workers.pop(key, None)
            self._since.pop(key, None)
        elif event.get("left"):
            self._workers.get(key, {}).pop(event["rank"], None)
        elif "moved" in event:
            workers = self._workers.setdefault(key, {})
            known = workers.get(event["rank"])
            still = known is not None and _mark(known.beat) == _mark(event)
            workers[event["rank"]] = _Worker(
                event, now, known.moved if known is not None and still else now
            )

    def changes(self) -> list[dict[str, Any]]:
        """An event with the words ``late`` for each trial that has begun to hang, or goes on, since the last call."""
        found, now = [], self._clock()
        for key, workers in self._workers.items():
            silent = {rank for rank, worker in workers.items() if now - worker.heard > self._limit}
            hangs = (
                bool(silent)
                or min((now - worker.moved for worker in workers.values()), default=0) > self._limit
            )
            if hangs and self._limit and key not in self._since:
                self._since[key] = min(worker.moved for worker in workers.values())
                found.append({"key": key, "late": "HANGS: " + _words(workers, silent, now)})
            elif not hangs and key in self._since:
                found.append(
                    {"key": key, "late": f"goes on after {now - self._since.pop(key):.0f} s"}
                )
        return found


def _mark(beat: Mapping[str, Any]) -> tuple[Any, ...]:
    return beat["pid"], beat["moved"], beat.get("stage"), beat.get("epoch"), beat.get("step")


def _words(workers: Mapping[int, _Worker], silent: set[int], now: float) -> str:
    """Who has not arrived, as far as that can be told, and where the others wait."""
    ranks = next(iter(workers.values())).beat["ranks"]
    missing = set(range(ranks)) - set(workers)
    front = max(worker.place for worker in workers.values())
    late = silent | missing
    if not late:
        late = {rank for rank, worker in workers.items() if worker.place < front}
    if not late:
        late = {rank for rank, worker in workers.items() if not worker.beat["meets"]}
    position = _place(max(workers.values(), key=lambda worker: worker.place).beat)
    if late == set(range(ranks)) or not late:
        told = [
            f"{_name(rank, worker)} {_state(worker, rank in silent, now)}"
            for rank, worker in sorted(workers.items())
        ]
        return f"no worker has arrived at {position}: " + "; ".join(told)
    told = [
        f"{_name(rank, workers[rank])} has not arrived at {position}: it {_state(workers[rank], rank in silent, now)}"
        if rank in workers
        else f"rank {rank} has not arrived at {position}: it has left, or has not begun"
        for rank in sorted(late)
    ]
    told += [
        f"{_name(rank, worker)} waits at {worker.beat['at']}"
        for rank, worker in sorted(workers.items())
        if rank not in late
    ]
    return "; ".join(told)


def _name(rank: int, worker: _Worker) -> str:
    return f"rank {rank} on {worker.beat['host']} (process {worker.beat['pid']})"


def _state(worker: _Worker, silent: bool, now: float) -> str:
    if silent:
        return f"was not heard of for {now - worker.heard:.0f} s"
    return f"has stood for {now - worker.moved:.0f} s at {worker.beat['at']}"


def _place(beat: Mapping[str, Any]) -> str:
    if "step" not in beat:
        return "its first step"
    if beat["step"] == beat["steps"]:
        return f"the end of stage {beat['stage']} epoch {beat['epoch']}"
    return f"step {beat['step'] + 1}/{beat['steps']} of stage {beat['stage']} epoch {beat['epoch']}"
