"""Runs that leave when asked, resume on other numbers of workers, or are killed at random."""

import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing as mp

from sadcl.data.load import load
from sadcl.training import Callbacks, Rescheduled, checkpoint, fit, loop, sync_points
from tests.training.test_loop import same
from tests.training.test_loop_workers import BASE, Record, assert_equal

RUN = """
import sys, torch
from sadcl import recipes
from sadcl.data import load
from sadcl.training import Callbacks, fit, loop
from tests.conftest import TINY
torch.set_num_threads(1)
loop.MAX_STEPS_BETWEEN_SYNCS, loop.SAVE_SECONDS = 1, 0.0
config = recipes.demo().override({**TINY, "bank.policy": "fifo", "optim.batch_size": 4})
callbacks = Callbacks(step_done=lambda *step: print(*step[:4], flush=True))
fit(config, load(config.data, sys.argv[1]), sys.argv[2], device="cpu", callbacks=callbacks)
"""


PARTS = [(2, (1, 11)), (3, (2, 9)), (2, None)]
"""Number of workers, and the (stage, step) before which they are asked to leave.

One is in mid-epoch, one in the other stage.
"""


def worker(rank, folder, root):
    torch.set_num_threads(1)
    data = load(BASE.data, root)
    loop.MAX_STEPS_BETWEEN_SYNCS = 1
    for number, (world, stop) in enumerate([(2, None), *PARTS]):
        if rank >= world:
            continue
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/meet{number}", rank=rank, world_size=world
        )
        record = Record.__new__(Record)

        def ask(record=record, stop=stop):
            return "more room" if stop == (record.training.stage, record.training.step) else None

        try:
            callbacks = Callbacks(leave_reason=ask)
            part = "parts" if number else "whole"
            record.__init__(BASE, data, f"{folder}/{part}", callbacks=callbacks)
            reason = None
        except Rescheduled as left:
            reason = str(left)
        assert reason == (
            None if stop is None else sync_points.DECIDED_ELSEWHERE if rank else "more room"
        )
        torch.save(record.content(), f"{folder}/{number}-{rank}.pt")
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder, root = tmp_path_factory.mktemp("elastic"), tmp_path_factory.mktemp("scenes")
    load(BASE.data, root)
    mp.spawn(worker, args=(str(folder), str(root)), nprocs=3)
    return [
        torch.load(f"{folder}/{number}-0.pt", weights_only=False)
        for number in range(1 + len(PARTS))
    ]


@pytest.mark.soak
def test_two_then_three_then_two_workers_train_what_two_train(found):
    whole, *parts = found
    trace = [step for part in parts for step in part["trace"]]
    assert [part["trace"][-1][:2] for part in parts[:2]] == [(1, 11), (2, 9)]
    assert_equal({**parts[-1], "trace": trace}, {**whole, "gradient": {2: whole["gradient"][2]}})
    assert bool(whole["state"]["bank.valid_KL"].any())


@pytest.mark.soak
def test_who_is_asked_to_leave_has_saved_and_goes_on_to_the_same_end(tmp_path):
    data = load(BASE.data, str(tmp_path / "data"))
    asked = iter([None, "a node is to be taken away"])
    seen = []
    with pytest.raises(Rescheduled, match="taken away"):
        fit(
            BASE,
            data,
            str(tmp_path / "run"),
            device="cpu",
            callbacks=Callbacks(
                step_done=lambda *at: seen.append(at), leave_reason=lambda: next(asked)
            ),
        )
    assert len(seen) <= 7  # at its last step an epoch asks in any case
    fit(
        BASE,
        data,
        str(tmp_path / "run"),
        device="cpu",
        callbacks=Callbacks(step_done=lambda *at: seen.append(at), leave_reason=lambda: None),
    )
    assert seen == sorted(set(seen))  # no step was done again
    assert len(seen) == 42


@pytest.mark.soak
def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path):
    def start(folder):
        command = [sys.executable, "-c", RUN, str(tmp_path / "data"), str(tmp_path / folder)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    whole = start("whole")
    trace = whole.communicate(timeout=120)[0].splitlines()
    assert whole.returncode == 0
    chance, seen, kills = random.Random(0), [], 0
    while True:
        run = start("parts")
        seen.append(run.stdout.readline().strip())
        time.sleep(chance.uniform(0, 0.6))
        run.send_signal(signal.SIGKILL)
        seen += run.communicate(timeout=60)[0].splitlines()
        if run.returncode == 0:
            break
        kills += 1
    assert kills >= 5
    assert set(filter(None, seen)) == set(trace)  # each start goes on where the last had come
    assert len(seen) < len(trace) + 2 * kills
    for stage in ("stage1/", ""):
        one, other = (
            checkpoint.load_checkpoint(str(tmp_path / folder / f"{stage}state.pt"))
            for folder in ("whole", "parts")
        )
        for content in (one, other):
            content["progress"] |= {"seconds": 0, "before": 0}
        assert same(one, other)
