"""What a trial reports, writes and leaves behind in its process."""

import errno
import gc
import traceback
import weakref
from dataclasses import replace

import pytest
import torch

from sadcl import recipes
from sadcl.errors import FailureKind, TrialFailed
from sadcl.search.trial import Trial
from sadcl.study import execute
from sadcl.study.gpu_driver import GPUDriver
from sadcl.study.placement import Placement
from sadcl.study.trial_event import EpochEnded, TrialEnded, TrialRestarts, TrialStarted, WorkerBeat
from sadcl.training import Diverged, engine, loop, selection
from tests.conftest import TINY


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
            if not isinstance(event, WorkerBeat):
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


@pytest.fixture
def fails(cache, monkeypatch, tmp_path, trial):
    """Run the trial so that it fails of an error; give what was raised, its row and its events."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    placement = Placement(str(tmp_path), None, "demo", cpus=1)

    def run(error):
        def fit(*arguments, **options):
            raise error

        events = []
        with monkeypatch.context() as patch:
            patch.setattr(execute, "fit", fit)
            with pytest.raises(TrialFailed) as caught:
                execute.execute(trial, placement, events.append)
        assert caught.value.__cause__ is error
        return caught.value, execute.store.row_of(placement.storage, trial.key), events

    run.placement = placement
    return run


def test_what_would_fail_again_is_a_row_an_event_and_an_error(fails, trial):
    failure, row, events = fails(Diverged("The loss is not finite."))
    assert (failure.kind, failure.final) == (FailureKind.DIVERGENCE, True)
    assert (row["status"], row["cause"]) == ("failed", "Diverged: The loss is not finite.")
    assert [event for event in events if isinstance(event, TrialEnded)] == [
        TrialEnded(trial.key, "failed", row["cause"])
    ]


@pytest.mark.parametrize("where", ["step", "backward", "evaluation"])
def test_nothing_of_a_trial_without_memory_is_alive_afterwards(
    cache, monkeypatch, tmp_path, trial, where
):
    """Although its error still is, and Python's collector does not run by itself."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    alive = []

    def prepare(*arguments, **options):
        training = real_prepare(*arguments, **options)
        parameters = list(training.network.parameters())
        alive.extend(map(weakref.ref, (training.network, training.optimizer, *parameters)))
        return training

    def no_memory(*arguments, **options):
        activations = [arguments, torch.zeros(9)]
        alive.append(weakref.ref(activations[1]))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    real_prepare = loop.prepare
    monkeypatch.setattr(loop, "prepare", prepare)
    place = {
        "step": (engine, "update_memory"),
        "backward": (torch.Tensor, "backward"),
        "evaluation": (selection, "evaluate"),
    }[where]
    monkeypatch.setattr(*place, no_memory)
    gc.disable()
    try:
        with pytest.raises(TrialFailed, match="out of memory: CUDA out of memory") as caught:
            execute.execute(trial, Placement(str(tmp_path), None, "demo", cpus=1))
        assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
        assert len(alive) > 10
        assert not [reference for reference in alive if reference() is not None]
    finally:
        gc.enable()
    assert "no_memory" in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EIO, "broken"), FailureKind.STORAGE),
        (torch.AcceleratorError("CUDA error: Xid\nmore"), FailureKind.DEVICE),
        (RuntimeError("NCCL communicator was aborted"), FailureKind.CONNECTION),
    ],
)
def test_what_may_pass_leaves_a_row_to_resume_that_says_why(fails, trial, error, kind):
    failure, row, events = fails(error)
    assert (failure.kind, failure.final) == (kind, False)
    assert (row["status"], row["cause"]) == ("running", str(failure))
    assert str(error).partition("\n")[0] in row["cause"]
    assert not [event for event in events if isinstance(event, TrialEnded)]
    again = []
    row = execute.execute(trial, fails.placement, again.append)
    assert again[0] == TrialRestarts(trial.key, str(failure), planned=False)
    assert (row["status"], row["cause"]) == ("complete", None)


def test_a_node_whose_driver_is_too_old_says_so(fails, trial, monkeypatch):
    """As one that has joined after the nodes were checked."""
    monkeypatch.setattr(execute, "read_gpu_driver", lambda: GPUDriver("570.124.06", 12, "13.0"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrialFailed) as caught:
        execute.execute(trial, replace(fails.placement, gpus=1))
    assert (caught.value.kind, caught.value.final) == (FailureKind.DEVICE, False)
    assert "cannot train on a GPU: the NVIDIA driver is 570.124.06, but" in str(caught.value)
