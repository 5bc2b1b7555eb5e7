"""Steps after which all workers decide together whether to save the state and whether to leave."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import distributed as dist

from sadcl import distributed

SYNC_SECONDS = 5.0
"""Intended time between two sync points: a node that is taken away is announced 30 s before."""

LeaveReason = Callable[[], str | None]
"""Called on the first worker at each sync point; a text saves the state and ends the run there."""

DECIDED_ELSEWHERE = "the first worker decided it"
"""The reason on the other workers, which do not know the first worker's."""


class Rescheduled(RuntimeError):
    """The run was asked to leave: its state is saved, and it resumes when it is started again."""


class SyncPoints:
    """Chooses the steps of the sync points, the same on all workers.

    Args:
        step: steps done so far.
        max_steps: steps at most from one sync point to the next.
    """

    def __init__(self, step: int, max_steps: int) -> None:
        self.max_steps, self.next = max_steps, step + 1
        self._last_step, self._last_time = step, time.monotonic()

    def agree(self, step: int, device: torch.device, *answers: bool) -> list[bool]:
        """Broadcast the first worker's answers and choose the next sync point.

        This is a collective call.

        Args:
            step: steps done so far.
            device: of the collective.
            answers: each worker's; only the first worker's count.

        Returns:
            The first worker's answers, on all workers.
        """
        now = time.monotonic()
        step_seconds = (now - self._last_time) / max(step - self._last_step, 1)
        wait = min(max(int(SYNC_SECONDS / max(step_seconds, 1e-9)), 1), self.max_steps)
        message = torch.tensor([wait, *answers], dtype=torch.int64, device=device)
        wait, *decisions = distributed.global_sum(message * (distributed.rank() == 0)).tolist()
        self.next, self._last_step, self._last_time = step + wait, step, now
        return [bool(decision) for decision in decisions]


def first_worker_decides(answer: bool, device: torch.device) -> bool:
    """Broadcast the first worker's answer. This is a collective call."""
    if distributed.world_size() == 1:
        return answer
    return bool(
        distributed.global_sum(
            torch.tensor(answer and distributed.rank() == 0, dtype=torch.int64, device=device)
        )
    )


def barrier() -> None:
    """Wait until all workers are here."""
    if distributed.world_size() > 1:
        dist.barrier()
