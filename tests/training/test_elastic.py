"""A run that leaves when it is asked to, and goes on with another number of workers: 2, then 3, then 2, in float64."""

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing as mp

from sadcl.data.load import load
from sadcl.training import Rescheduled, fit, loop, sync_points
from sadcl.training.sync_points import SyncPoints
from tests.training.test_workers import BASE, Record, assert_equal

PARTS = [(2, (1, 11)), (3, (2, 9)), (2, None)]
"""Workers, and the stage and step before which they are asked to leave: one in mid-epoch, one in the other stage."""


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
            record.__init__(BASE, data, f"{folder}/{'whole' if not number else 'parts'}", ask=ask)
            reason = None
        except Rescheduled as left:
            reason = str(left)
        assert reason == (
            None if stop is None else "as the first worker was told" if rank else "more room"
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


def test_meetings_come_every_few_seconds_and_at_least_every_so_many_steps(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(sync_points.time, "monotonic", lambda: now[0])
    meetings = SyncPoints(7, 50)
    assert meetings.next == 8
    cpu = torch.device("cpu")
    for seconds, wait in ((30.0, 1), (1.0, 5), (0.5, 50), (25.0, 10), (0.0, 50)):
        now[0] += seconds
        step = meetings.next
        assert meetings.agree(step, cpu, True, False) == [True, False]
        assert meetings.next - step == wait


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
            heartbeat=lambda *at: seen.append(at),
            ask=lambda: next(asked),
        )
    assert len(seen) <= 7  # at its last step an epoch asks in any case
    fit(
        BASE,
        data,
        str(tmp_path / "run"),
        device="cpu",
        heartbeat=lambda *at: seen.append(at),
        ask=lambda: None,
    )
    assert seen == sorted(set(seen))  # no step was done again
    assert len(seen) == 42
