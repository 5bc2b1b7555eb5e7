"""The words for the events that need attention; test_hangs.py has those of a hang."""

import pytest

from sadcl.study.event_text import notice_text
from sadcl.study.trial_event import (
    HangEnded,
    PrecisionChanged,
    TrialRestarts,
    WaitingForRoom,
    WorkerFailed,
)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (WorkerFailed("k", 1, "OSError: gone"), "OSError: gone"),
        (
            TrialRestarts("k", "node a was lost", planned=False),
            "node a was lost; restarts from its last checkpoint",
        ),
        (
            TrialRestarts("k", "node a is to be taken away", planned=True),
            "node a is to be taken away; resumes from its last checkpoint",
        ),
        (
            PrecisionChanged("k", "bf16", "fp32"),
            "resumes in fp32 on this device, after bf16 before; its figures are of both. "
            "Set optim.precision to keep one",
        ),
        (WaitingForRoom("k", 3), "waits for the room that 3 worker(s) need"),
        (WaitingForRoom("k", 3, occupied=True), "waits for room that others use"),
        (HangEnded("k", 12.4), "continues after 12 s"),
    ],
)
def test_each_event_is_one_line(event, text):
    assert notice_text(event) == text
