"""What passes through the channel: events to the driver, answers to trials that may be stopped."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError

from sadcl import recipes
from sadcl.ray_backend import event_channel
from sadcl.ray_backend.event_channel import EventChannel
from sadcl.search import ASHA
from sadcl.search.trial import Trial
from sadcl.study.trial_event import EpochEnded, HangStarted, TrialEnded, TrialStarted, WorkerBeat


def beat(rank=0, **more):
    return WorkerBeat("k", rank, 2, "host", 1, **more)


def test_of_beats_the_driver_gets_those_with_the_first_worker_s_progress():
    channel = event_channel._Channel(None, [], 300.0)
    progress = beat(progress=0.5)
    for event in (beat(), progress, beat(1, progress=0.5), beat(last=True)):
        channel.add(event)
    assert channel.drain() == [progress]
    assert channel.drain() == []


def test_hangs_come_with_the_other_events():
    channel = event_channel._Channel(None, [], 1e-9)
    channel.add(beat())
    assert [type(event) for event in channel.drain()] == [HangStarted]


def test_who_kept_the_others_waiting_is_asked_for(monkeypatch):
    actor = event_channel._Channel(None, [], 300.0)
    clock = iter([0.0, 0.0, 90.0, 90.0])
    monkeypatch.setattr(actor.hangs, "_clock", lambda: next(clock))
    for event in [beat(collectives=7), beat(1, collectives=6)] * 2:
        actor.add(event)
    remote = SimpleNamespace(remote=actor.behind)
    channel = EventChannel(SimpleNamespace(behind=remote), False)
    monkeypatch.setattr(event_channel.ray, "get", lambda value: value)
    assert event_channel.ranks_behind(channel, "k", 60.0) == [1]
    assert event_channel.ranks_behind(channel, "k", 100.0) == []
    assert event_channel.ranks_behind(None, "k", 60.0) == []

    def lost(value):
        raise RayActorError

    monkeypatch.setattr(event_channel.ray, "get", lost)
    assert event_channel.ranks_behind(channel, "k", 60.0) == []


def test_an_epoch_is_judged_by_the_trials_before():
    history = [("a", "complete", {1: 50.0}), ("b", "running", {1: 40.0})]
    channel = event_channel._Channel(ASHA(1, 2), history, 300.0)
    epoch = EpochEnded("c", 2, 1, 3, {"val_mAP": 30.0})
    assert channel.add_epoch(epoch).startswith("stopped after epoch 1 at 30.00 held-out mAP: ")
    assert channel.add_epoch(EpochEnded("d", 2, 1, 3, {"val_mAP": 60.0})) is None
    assert channel.drain()[0] == epoch
    channel.add(TrialEnded("c", "pruned"))
    states = {trial.number: trial.state.name for trial in channel.pruner.study.trials}
    assert states[channel.pruner.trials["c"].number] == "PRUNED"


class Method:
    def __init__(self, calls, name):
        self.calls, self.name = calls, name

    def remote(self, event):
        self.calls.append((self.name, event))
        return "an answer"


@pytest.mark.parametrize("phase", ["search", "baseline"])
@pytest.mark.parametrize("prunes", [True, False])
def test_only_a_trial_that_may_be_stopped_waits_for_an_answer(monkeypatch, phase, prunes):
    calls = []
    actor = type("Actor", (), {n: Method(calls, n) for n in ("add", "add_epoch")})
    monkeypatch.setattr(event_channel.prometheus, "record", lambda trial, event: None)
    monkeypatch.setattr(event_channel.ray, "get", lambda reference: reference)
    trial = Trial("s", phase, "one", recipes.demo())
    emit = event_channel.emitter(EventChannel(actor, prunes), trial)
    start, epoch = TrialStarted("k", phase, "k"), EpochEnded("k", 2, 1, 3, {"val_mAP": 1.0})
    assert emit(start) is None
    asks = prunes and phase == "search"
    assert emit(epoch) == ("an answer" if asks else None)
    assert calls == [("add", start), ("add_epoch" if asks else "add", epoch)]

    def lost(reference):
        raise RayActorError

    monkeypatch.setattr(event_channel.ray, "get", lost)
    assert emit(epoch) is None
    assert event_channel.emitter(None, trial) is None


def test_the_channel_s_process_needs_no_torch():
    code = (
        "import sys, sadcl.ray_backend.event_channel, sadcl.ray_backend.pruner; "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
