"""Beats of a worker, and where its training thread is."""

import os
import threading
import time
from pathlib import Path

import pytest
import torch

from sadcl.data import loader
from sadcl.training import heartbeat
from sadcl.training.heartbeat import Heartbeat, thread_location


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_it_beats_while_its_thread_stands_still(monkeypatch):
    """It counts the seconds of steps, but not of what lies between epochs."""
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.05)
    clock, beats, enough = Clock(), [], threading.Event()
    monkeypatch.setattr(heartbeat.time, "perf_counter", clock)

    def report(beat):
        beats.append(beat)
        if any(b.progress is not None for b in beats) and len(beats) > 3:
            enough.set()

    beating = Heartbeat(report)
    for clock.now, epoch, step in ((1, 1, 1), (2, 1, 2), (4, 1, 3), (100, 2, 1), (106, 2, 2)):
        beating.step(2, epoch, step, 3, 0.5)
    beating.start()
    assert enough.wait(30)
    beating.stop()
    first, second, *_, last = beats
    assert (first.stage, first.epoch, first.step, first.progress) == (2, 2, 2, 2 / 3)
    assert first.step_seconds == pytest.approx((1 + 2 + 6) / 3)
    assert first.synchronisation_seconds == 0.5
    assert (second.progress, second.step_seconds) == (None, None)
    assert (first.rank, first.ranks, first.pid) == (0, 1, os.getpid())
    assert [beat.last for beat in beats] == [False] * (len(beats) - 1) + [True]
    assert last == heartbeat.Beat(0, 1, first.host, first.pid, last=True)


def test_before_the_first_step_it_has_no_position():
    beat = Heartbeat(print)._beat()
    assert (beat.stage, beat.epoch, beat.step, beat.steps, beat.progress) == (0, 0, 0, 0, None)


def test_it_tells_when_torch_compiles(monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.02)
    beats, seen = [], threading.Event()

    def report(beat):
        beats.append(beat.compiling)
        if beat.compiling:
            seen.set()

    def slow_backend(graph, inputs):
        assert seen.wait(60)
        return graph.forward

    beating = Heartbeat(report, compiles=True)
    beating.start()
    while not beats:
        time.sleep(0.01)
    double = torch.compile(lambda x: x * 2, backend=slow_backend)
    assert double(torch.ones(2)).tolist() == [2, 2]
    compiled = len(beats)
    while len(beats) < compiled + 3:
        double(torch.ones(2))
    beating.stop()
    assert not beats[0]
    assert not any(beats[compiled + 1 :])
    handler = torch._dynamo.callback_handler
    assert beating._compile_begins not in handler.start_callbacks
    assert beating._compile_ends not in handler.end_callbacks


class FolderOfOne:
    folder, max_pixels = "/nowhere", None

    def path(self, index):
        return Path("/nowhere/x.jpg")


def test_where_a_thread_is_and_whether_it_waits_for_others_there():
    reads, done = threading.Event(), threading.Event()

    def read(path, side, _):
        reads.set()
        done.wait(30)
        return torch.zeros(3, side, side)

    images = FolderOfOne()
    reader = loader._Reader(images, 8, None, None, keep=False, augments=False)
    thread = threading.Thread(target=lambda: reader[((0, 0, 0, 0),)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "read_image", read)
        thread.start()
        assert reads.wait(30)
        location, waits = thread_location(thread.ident)
        done.set()
        thread.join()
    assert location.startswith("sadcl.data.loader:")
    assert location.endswith("in _read_image")
    assert not waits
