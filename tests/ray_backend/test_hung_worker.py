"""Real processes of a group, one of which stops: its beats tell which one."""

import threading
import time

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing as mp

from sadcl import distributed
from sadcl.ray_backend.hangs import HangDetector
from sadcl.study.trial_event import HangStarted, WorkerBeat
from sadcl.training import heartbeat

LIMIT = 4.0


def worker(rank, folder, hung, beats, found):
    torch.set_num_threads(1)
    heartbeat.BEAT_SECONDS = 0.1
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=3)
    beating = heartbeat.Heartbeat(lambda beat: beats.put(WorkerBeat("k", **vars(beat))))
    beating.start()
    values = torch.ones(3)
    for step in range(1, 5):
        distributed.global_sum(values)
        beating.step(1, 1, step, 9, 0.0)
    if rank == hung:
        found.wait(120)  # its part of the next step takes for ever
    # As with NCCL: the call returns at once, and the host waits somewhere else.
    work = dist.all_reduce(values, async_op=True)
    while not work.is_completed():
        time.sleep(0.01)
    assert not distributed.is_broken()
    beating.stop()
    dist.destroy_process_group()


@pytest.mark.parametrize("hung", [0, pytest.param(2, marks=pytest.mark.soak)])
def test_the_one_that_stopped_is_named_and_not_those_that_wait(tmp_path, hung):
    context = mp.get_context("spawn")
    beats, found = context.Queue(), context.Event()
    processes = mp.spawn(worker, args=(str(tmp_path), hung, beats, found), nprocs=3, join=False)
    hangs, reported = HangDetector(LIMIT), []

    def watch():
        deadline = time.monotonic() + 120
        while not reported and time.monotonic() < deadline:
            while not beats.empty():
                hangs.add(beats.get())
            reported.extend(hangs.changes())
            time.sleep(0.05)
        reported.append(hangs.behind("k", LIMIT / 2))
        found.set()

    watching = threading.Thread(target=watch)
    watching.start()
    watching.join()
    while not processes.join():
        continue
    hang, behind = reported
    assert isinstance(hang, HangStarted)
    assert [late.rank for late in hang.late] == [hung] == behind
    assert sorted(beat.rank for beat in hang.waiting) == sorted({0, 1, 2} - {hung})
    assert not any(beat.waits for beat in hang.waiting)  # nothing but the calls tells them apart
    assert {beat.collectives for beat in hang.waiting} == {hang.late[0].beat.collectives + 1}
    assert hang.front.step == hang.late[0].beat.step == 4
