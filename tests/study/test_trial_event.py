"""Events are values that travel between processes."""

import dataclasses
import pickle

from sadcl.study.trial_event import HangStarted, LateWorker, WorkerBeat
from sadcl.training.heartbeat import Beat


def test_a_worker_s_beat_is_a_beat_with_the_trial_s_key():
    def fields(kind):
        return [(field.name, field.type, field.default) for field in dataclasses.fields(kind)]

    assert fields(WorkerBeat)[1:] == fields(Beat)
    beat = Beat(1, 2, "host", 3, "sadcl.x:1 in f", True, 5, 1, 2, 3, 4, 0.75, 0.1, 0.2)
    assert dataclasses.asdict(WorkerBeat("k", **vars(beat))) == {"key": "k"} | vars(beat)


def test_events_survive_pickling():
    beat = WorkerBeat("k", 0, 2, "host", 3)
    hang = HangStarted("k", beat, (LateWorker(1),), (beat,))
    assert pickle.loads(pickle.dumps(hang)) == hang
