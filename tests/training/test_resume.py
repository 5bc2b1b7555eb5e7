"""Runs that leave when asked, resume on other numbers of workers, or are killed at random."""

import errno
import itertools
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing as mp

from sadcl import recipes, storage
from sadcl.data.load import load
from sadcl.errors import FailureKind
from sadcl.study import failure
from sadcl.training import Callbacks, Rescheduled, checkpoint, fit, loop, sync_points
from tests.conftest import TINY, soaked
from tests.training.test_loop import same
from tests.training.test_loop_workers import BASE, Record, assert_equal

RUN = """
import itertools, os, sys, time, torch
from sadcl import recipes
from sadcl.data import load
from sadcl.training import Callbacks, fit, loop
from tests.conftest import TINY, soaked
torch.set_num_threads(1)
loop.MAX_STEPS_BETWEEN_SYNCS, loop.SAVE_SECONDS = 1, 0.0
fsync, written = os.fsync, itertools.count(1)
def hang(number):
    fsync(number)
    if next(written) == int(sys.argv[3]):
        print("not yet whole", flush=True)
        time.sleep(600)
os.fsync = hang
config = recipes.demo().override({**TINY, "bank.policy": "fifo", "optim.batch_size": 4})
callbacks = Callbacks(step_done=lambda *step: print(*step[:4], flush=True))
fit(config, load(config.data, sys.argv[1]), sys.argv[2], device="cpu", callbacks=callbacks)
"""
"""Arguments: the folder of the data, of the run, and which file never gets whole; 0 for none."""


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


def start(tmp_path, folder, hang=0):
    words = [sys.executable, "-c", RUN, str(tmp_path / "data"), str(tmp_path / folder), str(hang)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def trained_whole(tmp_path):
    """Train in one go, and return what it prints: a line a step."""
    whole = start(tmp_path, "whole")
    trace = whole.communicate(timeout=120)[0].splitlines()
    assert whole.returncode == 0
    return trace


def assert_same_files(whole, parts):
    for stage in ("stage1/", ""):
        one, other = (
            checkpoint.load_checkpoint(str(folder / f"{stage}state.pt"))
            for folder in (whole, parts)
        )
        for content in (one, other):
            content["progress"] |= {"seconds": 0, "before": 0}
        assert same(one, other)
        for name in (f"{stage}best.pt", f"{stage}last.pt"):
            assert (whole / name).read_bytes() == (parts / name).read_bytes()


@pytest.mark.soak
def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path):
    trace = trained_whole(tmp_path)
    chance, seen, kills = random.Random(0), [], 0
    while True:
        run = start(tmp_path, "parts")
        seen.append(run.stdout.readline().strip())
        time.sleep(chance.uniform(0, 0.6))
        run.send_signal(signal.SIGKILL)
        seen += run.communicate(timeout=60)[0].splitlines()
        if run.returncode == 0:
            break
        kills += 1
    assert kills >= 5
    assert set(filter(None, seen)) == set(trace)  # each start goes on where the last had come
    # a kill costs the step whose file is not whole, and the one trained while it is written
    assert len(seen) <= len(trace) + 2 * kills + 1
    assert_same_files(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.soak
def test_killed_while_a_file_is_written_it_ends_with_the_same_bits(tmp_path):
    trace, seen = trained_whole(tmp_path), []
    # a stage has 12 steps an epoch, and best.pt and state.pt at its end
    for hang in (1, 8, 12, 14, 9):
        run = start(tmp_path, "parts", hang)
        lines = []
        while not lines or lines[-1] != "not yet whole":
            lines.append(run.stdout.readline().strip())
            assert lines[-1]
        time.sleep(0.5)  # for the next step, of which the file knows nothing
        run.send_signal(signal.SIGKILL)
        lines += run.communicate(timeout=60)[0].splitlines()
        assert list((tmp_path / "parts").rglob(".*.part"))
        seen += [line for line in lines if line != "not yet whole"]
    last = start(tmp_path, "parts")
    seen += last.communicate(timeout=120)[0].splitlines()
    assert last.returncode == 0
    assert set(seen) == set(trace)
    assert len(seen) <= len(trace) + 5 * 2
    assert_same_files(tmp_path / "whole", tmp_path / "parts")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A configuration of 3 steps an epoch, its data, and the folder of an uninterrupted run."""
    config, folder = recipes.demo().override(TINY), tmp_path_factory.mktemp("tiny")
    data = load(config.data, str(folder / "data"))
    fit(config, data, str(folder / "run"), device="cpu")
    return config, data, folder / "run"


class Killed(BaseException):
    """Stands for a kill: nothing handles it."""


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


LOST = [*((Killed(), number) for number in (1, 4, 5, 12)), (FULL, 15)]


@pytest.mark.parametrize(("error", "lost"), soaked(LOST, (LOST[1], LOST[4])))
def test_a_file_that_is_not_whole_is_lost_and_nothing_else(
    tiny, tmp_path, monkeypatch, error, lost
):
    """Each step saves the state, and trains on until it saves it again."""
    config, data, whole = tiny
    monkeypatch.setattr(loop, "MAX_STEPS_BETWEEN_SYNCS", 1)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    files = itertools.count(1)

    def fsync(_):
        if next(files) == lost:
            raise error

    with monkeypatch.context() as disk:
        disk.setattr(storage.os, "fsync", fsync)
        with pytest.raises(type(error)) as caught:
            fit(config, data, str(tmp_path), device="cpu")
    if error is FULL:
        assert str(tmp_path) in str(caught.value)
        assert failure.diagnose(caught.value).kind is FailureKind.DISK_FULL
    assert next(files) == lost + 1
    fit(config, data, str(tmp_path), device="cpu")
    assert_same_files(whole, tmp_path)


def test_who_leaves_has_waited_for_its_state(tiny, tmp_path, monkeypatch):
    config, data, _ = tiny
    monkeypatch.setattr(storage.os, "fsync", lambda _: time.sleep(0.2))
    done = []
    callbacks = Callbacks(
        step_done=lambda *at: done.append(at), leave_reason=lambda: "a node is to be taken away"
    )
    with pytest.raises(Rescheduled):
        fit(config, data, str(tmp_path), device="cpu", callbacks=callbacks)
    assert len(done) == 1
    state = checkpoint.load_checkpoint(str(tmp_path / "stage1" / "state.pt"))
    assert (state["step"], state["progress"]["step"]) == (1, 1)


def test_a_run_that_resumes_in_another_precision_says_and_records_it(tmp_path, cache, monkeypatch):
    """As one does that began on a GPU and resumes on CPUs, where optim.precision is auto."""
    config = recipes.demo().override({**TINY, "stage1.epochs": 2, "stage2.epochs": 0})
    data, run, changes = load(config.data, str(cache)), str(tmp_path / "run"), []
    with pytest.raises(Rescheduled):
        fit(config, data, run, device="cpu", callbacks=Callbacks(leave_reason=lambda: "leave"))
    monkeypatch.setattr(loop.build, "precision", lambda config, device: "bf16")
    callbacks = Callbacks(precision_changed=lambda *both: changes.append(both))
    outcome = fit(config, data, run, device="cpu", callbacks=callbacks)
    assert changes == [("fp32", "bf16")]
    assert outcome.precision == "fp32 then bf16"
    assert fit(config, data, run, device="cpu", callbacks=callbacks).precision == outcome.precision
    assert len(changes) == 1
