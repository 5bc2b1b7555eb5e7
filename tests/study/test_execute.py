"""How failures are classified, and what a trial leaves behind in its process."""

import errno
import pickle
from dataclasses import replace

import pytest
import torch
from ray.exceptions import RayTaskError

from sadcl import recipes
from sadcl.errors import FailureKind, TrialFailed, UserError
from sadcl.search.trial import Trial
from sadcl.study import execute
from sadcl.study.placement import Placement
from sadcl.study.trial_event import EpochEnded, TrialEnded, TrialStarted
from tests.conftest import TINY

ALLOCATOR = "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"
GLOO = "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.1]"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TrialFailed("x", kind=FailureKind.STORAGE), FailureKind.STORAGE),
        (TrialFailed("Connection"), FailureKind.TRAINING),
        (UserError("no connection"), FailureKind.TRAINING),
        (OSError(errno.ENOSPC, "full"), FailureKind.DISK_FULL),
        (OSError(errno.EIO, "broken"), FailureKind.STORAGE),
        (ConnectionResetError("reset"), FailureKind.CONNECTION),
        (torch.distributed.DistNetworkError("lost"), FailureKind.CONNECTION),
        (torch.distributed.DistBackendError("lost"), FailureKind.CONNECTION),
        (RuntimeError(GLOO), FailureKind.CONNECTION),
        (RuntimeError("NCCL communicator was aborted"), FailureKind.CONNECTION),
        (RuntimeError(ALLOCATOR), FailureKind.MEMORY),
        (MemoryError(), FailureKind.MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory"), FailureKind.MEMORY),
        (RuntimeError("shape mismatch"), FailureKind.TRAINING),
        (ValueError("gloo"), FailureKind.TRAINING),
    ],
)
def test_an_error_s_type_tells_its_kind(error, kind):
    assert execute.failure_kind(error) is kind


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UserError("Wrong field."), "Wrong field."),
        (TrialFailed("It diverged."), "It diverged."),
        (RuntimeError(ALLOCATOR + "\nmore"), f"out of memory: {ALLOCATOR}"),
        (MemoryError(), "out of memory: allocation failed"),
        (KeyError(), "KeyError: no message"),
        (RuntimeError(" shape mismatch\n"), "RuntimeError: shape mismatch"),
    ],
)
def test_the_cause_is_one_line(error, text):
    assert execute.cause_of(error) == text


def test_a_full_disk_is_named_with_what_to_do():
    text = execute.cause_of(OSError(errno.ENOSPC, "No space left on device"))
    assert text.startswith("The storage is full: [Errno 28] No space left on device. Nothing")
    assert "make room and give the same command again" in text


def test_the_fields_of_a_failure_survive_pickling():
    failed = TrialFailed("lost", kind=FailureKind.CONNECTION, final=False)
    again = pickle.loads(pickle.dumps(failed))
    assert (str(again), again.kind, again.final) == ("lost", FailureKind.CONNECTION, False)
    task_error = RayTaskError("run_trial", "traceback", failed)
    again = pickle.loads(pickle.dumps(task_error)).cause
    assert (str(again), again.kind, again.final) == ("lost", FailureKind.CONNECTION, False)
    both = task_error.as_instanceof_cause()  # what ray.get raises
    assert isinstance(both, TrialFailed)
    assert (both.cause.kind, both.cause.final) == (FailureKind.CONNECTION, False)


@pytest.fixture
def trial():
    config = recipes.demo().override({**TINY, "stage1.epochs": 1, "stage2.epochs": 1})
    return Trial("s", "train", "one", config)


def test_a_trial_emits_its_events_and_puts_the_threads_back(cache, monkeypatch, tmp_path, trial):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    placement = Placement(str(tmp_path), None, "demo", cpus=1)
    before, used, events = torch.get_num_threads(), [], []
    torch.set_num_threads(before + 1)
    try:

        def emit(event):
            events.append(event)
            used.append(torch.get_num_threads())

        row = execute.execute(trial, placement, emit)
        assert torch.get_num_threads() == before + 1
        assert used[[type(event) for event in events].index(EpochEnded)] == 1
    finally:
        torch.set_num_threads(before)
    assert row["status"] == "complete"
    assert (row["optim_precision"], row["precision"]) == ("auto", "fp32")
    assert (row["data_mean"], row["input_mean"]) == (None, "[0.485, 0.456, 0.406]")
    assert (row["data_std"], row["input_std"]) == (None, "[0.229, 0.224, 0.225]")
    assert events[0] == TrialStarted(trial.key, "train", trial.title, {})
    epochs = [event for event in events if isinstance(event, EpochEnded)]
    assert [(event.stage, event.epoch, event.epochs) for event in epochs] == [(1, 1, 1), (2, 1, 1)]
    (end,) = [event for event in events if isinstance(event, TrialEnded)]
    assert end == TrialEnded(trial.key, "complete", "", row["val_mAP"], row["test_mAP"])
    assert execute.execute(trial, placement) == execute.ended_row(trial, placement)


def test_a_trial_that_is_stopped_early_is_pruned_with_its_reason(
    cache, monkeypatch, tmp_path, trial
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    placement, events = Placement(str(tmp_path), None, "demo", cpus=1), []

    def emit(event):
        events.append(event)
        return "enough" if isinstance(event, EpochEnded) and event.stage == 2 else None

    longer = replace(trial, config=trial.config.override({"stage2.epochs": 2}))
    row = execute.execute(longer, placement, emit)
    assert (row["status"], row["cause"]) == ("pruned", "enough")
    (end,) = [event for event in events if isinstance(event, TrialEnded)]
    assert (end.status, end.cause) == ("pruned", "enough")


def test_a_failure_is_a_row_an_event_and_an_error(cache, monkeypatch, tmp_path, trial):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    placement, events = Placement(str(tmp_path), None, "demo", cpus=1), []
    broken = OSError(errno.EIO, "broken")

    def fit(*arguments, **options):
        raise broken

    monkeypatch.setattr(execute, "fit", fit)
    with pytest.raises(TrialFailed, match="OSError") as caught:
        execute.execute(trial, placement, events.append)
    assert (caught.value.kind, caught.value.final) == (FailureKind.STORAGE, True)
    assert caught.value.__cause__ is broken
    row = execute.ended_row(trial, placement)
    assert row["status"] == "failed"
    assert [event for event in events if isinstance(event, TrialEnded)] == [
        TrialEnded(trial.key, "failed", row["cause"])
    ]
