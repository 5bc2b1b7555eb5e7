"""Between steps the workers meet: do they agree, is the state to be saved, are they to leave?"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import distributed as dist

from sadcl import distributed

SYNC_SECONDS = 5.0
"""Between two meetings, as far as the first worker can tell beforehand: a node that is taken away says so 30 s before."""

LeaveReason = Callable[[], str | None]
"""Asked on the first worker at each meeting: why the run is to save its state and leave, or None."""


class Rescheduled(RuntimeError):
    """The run was asked to leave: its state is saved, and it goes on from there when it is started again."""


class SyncPoints:
    """At which steps the workers meet, the same on all of them.

    Args:
        step: done so far.
        most: steps from one meeting to the next.
    """

    def __init__(self, step: int, most: int) -> None:
        self.most, self.next = most, step + 1
        self._last, self._at = step, time.monotonic()

    def agree(self, step: int, device: torch.device, *answers: bool) -> list[bool]:
        """The first worker's answers, on all; a collective call, which also settles when the next meeting is."""
        now = time.monotonic()
        each = (now - self._at) / max(step - self._last, 1)
        wait = min(max(int(SYNC_SECONDS / max(each, 1e-9)), 1), self.most)
        said = torch.tensor([wait, *answers], dtype=torch.int64, device=device)
        wait, *heard = distributed.global_sum(said * (distributed.rank() == 0)).tolist()
        self.next, self._last, self._at = step + wait, step, now
        return [bool(answer) for answer in heard]


def first_worker_decides(yes: bool, device: torch.device) -> bool:
    """The first worker's answer, on all; a collective call."""
    if distributed.world_size() == 1:
        return yes
    return bool(
        distributed.global_sum(
            torch.tensor(yes and distributed.rank() == 0, dtype=torch.int64, device=device)
        )
    )


def barrier() -> None:
    if distributed.world_size() > 1:
        dist.barrier()
