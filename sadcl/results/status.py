"""How a run stands. Nothing is imported for it, so that reading a plan needs no Arrow."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """How a run stands; the column ``status`` of the trials table."""

    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"


ENDED = tuple(status.value for status in Status if status is not Status.RUNNING)
"""The statuses of a run that has ended."""
