"""Which trials hang and who keeps the others waiting, by their beats; and the words for it."""

from dataclasses import replace

import pytest

from sadcl.ray_backend.hangs import HangDetector
from sadcl.study.event_text import notice_text
from sadcl.study.trial_event import (
    HangEnded,
    HangStarted,
    LateWorker,
    TrialEnded,
    TrialRestarts,
    TrialStarted,
    WorkerBeat,
)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def beat(rank, images, step=3, **more):
    fields = {
        "ranks": 2,
        "location": "sadcl.training.engine:60 in train_step",
        "waits": True,
        "stage": 1,
        "epoch": 2,
        "steps": 9,
        **more,
    }
    return WorkerBeat(
        "k", rank, host=f"host{rank}", pid=10 + rank, images=images, step=step, **fields
    )


def watch(*beats, seconds=130, silent=()):
    """The first hang among beats that come every ten seconds, but for those of silent ranks."""
    clock = Clock()
    hangs = HangDetector(120, clock)
    for each in beats:
        hangs.add(each)
    for clock.now in range(10, seconds + 1, 10):
        for each in beats:
            if each.rank not in silent:
                hangs.add(each)
        if changes := hangs.changes():
            return changes[0], hangs, clock
    return None, hangs, clock


LOADS = {"location": "sadcl.data.loader:120 in batches", "waits": False}


def test_who_has_not_arrived():
    """By silence, by the step, by where the code is; else all are named."""
    first, second = beat(0, 5), beat(1, 5)
    assert watch(first, second, seconds=120)[0] is None
    hang, *_ = watch(first, second, silent=(1,))
    assert hang == HangStarted("k", first, (LateWorker(1, second, 130.0, 130.0),), (first,))
    behind = beat(1, 4, 2)
    hang, *_ = watch(first, behind)
    assert hang == HangStarted("k", first, (LateWorker(1, behind, None, 130.0),), (first,))
    loads = beat(1, 5, **LOADS)
    hang, *_ = watch(first, loads)
    assert hang == HangStarted("k", first, (LateWorker(1, loads, None, 130.0),), (first,))
    hang, *_ = watch(first)
    assert hang == HangStarted("k", first, (LateWorker(1),), (first,))
    hang, *_ = watch(first, second)
    assert (len(hang.late), hang.waiting) == (2, ())
    alone = beat(0, 0, ranks=1, stage=0, **LOADS)
    hang, *_ = watch(alone)
    assert hang == HangStarted("k", alone, (LateWorker(0, alone, None, 130.0),))


def test_collective_calls_tell_who_is_behind_before_anything_else():
    """With NCCL the others wait at some later line, or even in a later step."""
    waits = {"waits": False, "location": "sadcl.training.engine:250 in check_finite"}
    ahead, behind = beat(0, 5, collectives=13, **waits), beat(1, 5, collectives=12, **waits)
    hang, *_ = watch(ahead, behind)
    assert hang == HangStarted("k", ahead, (LateWorker(1, behind, None, 130.0),), (ahead,))
    later = beat(1, 5, 4, collectives=12, **waits)
    hang, *_ = watch(ahead, later)
    assert [late.rank for late in hang.late] == [1]
    clock = Clock()
    hangs = HangDetector(120, clock)
    for clock.now in range(0, 300, 10):  # an evaluation, whose steps do not count
        hangs.add(beat(0, 5, collectives=clock.now))
        hangs.add(beat(1, 5, collectives=clock.now))
        assert hangs.changes() == []


def test_a_compilation_is_no_hang_until_it_takes_an_hour():
    clock = Clock()
    hangs = HangDetector(120, clock)
    compiles = {
        "compiling": True,
        "waits": False,
        "location": "sadcl.model.heads.sadcl:9 in forward",
    }

    def until(end, **more):
        while clock.now < end:
            clock.now += 10
            hangs.add(beat(0, 5))
            hangs.add(beat(1, 5, **more))
            if changes := hangs.changes():
                return changes[0]
        return None

    assert until(1000, **compiles) is None
    assert until(1100) is None  # the compiled step has as long as any other
    assert until(2000) is not None
    assert until(2010, **compiles) == HangEnded("k", 1130.0)
    hang = until(9000, **compiles)
    assert clock.now == 1140 + 3600 + 130
    assert hang.late[0].rank == 1
    assert notice_text(hang).startswith(
        "HANGS: rank 1 on host1 (process 11) has not arrived at step 4/9 of stage 1 epoch 2: it is "
        "still compiling, at sadcl.model.heads.sadcl:9 in forward; rank 0 on "
    )


@pytest.mark.parametrize(
    ("ahead", "behind", "silent", "seconds", "ranks"),
    [
        (13, 12, (), 130, [1]),
        (13, 12, (), 20, []),  # they have not waited for long
        (13, 13, (), 130, []),  # nothing tells them apart
        (13, 13, (1,), 130, [1]),  # a process that is frozen
    ],
)
def test_who_was_behind_when_workers_were_lost(ahead, behind, silent, seconds, ranks):
    beats = beat(0, 5, collectives=ahead), beat(1, 5, collectives=behind)
    *_, hangs, clock = watch(*beats, seconds=seconds, silent=silent)
    clock.now += 5
    hangs.add(beats[1] if 1 not in silent else beats[0])  # one lives on
    assert hangs.behind("k", 50.0) == ranks
    assert hangs.behind("another", 50.0) == []


def text_of(*beats, silent=()):
    return notice_text(watch(*beats, silent=silent)[0])


def test_a_hang_is_described():
    waits = "rank 0 on host0 (process 10) waits at sadcl.training.engine:60 in train_step"
    late = "HANGS: rank 1 on host1 (process 11) has not arrived at step 4/9 of stage 1 epoch 2: it"
    text = text_of(beat(0, 5), beat(1, 5), silent=(1,))
    assert text == f"{late} has given no sign of life for 130 s; {waits}"
    text = text_of(beat(0, 5), beat(1, 4, 2))
    assert text == f"{late} has been at sadcl.training.engine:60 in train_step for 130 s; {waits}"
    text = text_of(beat(0, 5), beat(1, 5, **LOADS))
    assert text == f"{late} has been at sadcl.data.loader:120 in batches for 130 s; {waits}"
    late = "HANGS: rank 1 has not arrived at step 4/9 of stage 1 epoch 2: it"
    assert text_of(beat(0, 5)) == f"{late} has stopped, or has not started yet; {waits}"
    assert text_of(beat(0, 5, 9), beat(1, 5, 9)).startswith(
        "HANGS: no worker has arrived at the end of stage 1 epoch 2: rank 0 on host0 (process 10) "
        "has been at sadcl.training.engine:60 in train_step for 130 s; rank 1 on "
    )
    assert text_of(beat(0, 0, ranks=1, stage=0, **LOADS)) == (
        "HANGS: no worker has arrived at its first step: rank 0 on host0 (process 10) has been at "
        "sadcl.data.loader:120 in batches for 130 s"
    )


def test_a_trial_hangs_once_until_it_continues_or_ends():
    _, hangs, clock = watch(beat(0, 5), beat(1, 5), silent=(1,))
    clock.now += 10
    assert hangs.changes() == []
    hangs.add(beat(1, 6))
    assert hangs.changes() == [HangEnded("k", 140.0)]
    for gone in (
        TrialStarted("k", "search", "k"),  # a group that has restarted has other workers
        TrialRestarts("k", "a node was lost", planned=False),
        TrialEnded("k", "complete"),
    ):
        hangs.add(beat(0, 6))
        hangs.add(gone)
        clock.now += 500
        assert hangs.changes() == []
    hangs.add(beat(0, 7))
    hangs.add(replace(beat(1, 7), last=True))
    hangs.add(replace(beat(0, 7), last=True))
    clock.now += 500
    assert hangs.changes() == []


def test_a_limit_of_zero_finds_nothing():
    clock = Clock()
    hangs = HangDetector(0, clock)
    hangs.add(beat(0, 5))
    clock.now = 1e6
    assert hangs.changes() == []
