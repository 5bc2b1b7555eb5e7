"""The order of a GPU's work on a batch and on the step before it, on a device that records it."""

from __future__ import annotations

import contextlib
import types

import pytest
import torch

from sadcl.data import gpu_prefetch


@pytest.fixture
def notes(monkeypatch):
    said = []

    class Event:
        def __init__(self, number):
            self.number = number

        def synchronize(self):
            said.append(f"wait for {self.number}")

    class Stream:
        events = 0

        def __init__(self, name):
            self.name = name

        def record_event(self):
            self.events += 1
            return Event(self.events)

        def wait_stream(self, other):
            said.append(f"{self.name} waits for {other.name}")

    @contextlib.contextmanager
    def stream(of):
        said.append(f"on {of.name}")
        yield
        said.append("off")

    step = Stream("step")
    module = types.SimpleNamespace(
        Stream=lambda device: Stream("beside"),
        current_stream=lambda device: step,
        current_device=lambda: 1,
        stream=stream,
    )
    monkeypatch.setattr(gpu_prefetch, "_STREAMS", {})
    monkeypatch.setattr(gpu_prefetch.torch, "get_device_module", lambda device: module)
    return said


def test_a_batch_is_made_beside_the_step_and_handed_over_before_the_next(notes):
    ready, kept = gpu_prefetch.GpuPrefetch(torch.device("cuda")), []
    tensor = types.SimpleNamespace(record_stream=lambda stream: kept.append(stream.name))
    for _ in range(4):
        with ready():
            notes.append("copy")
        ready.hand_over(tensor, tensor)
    each = ["on beside", "copy", "off", "step waits for beside"]
    assert notes == [*each, *each, "wait for 1", *each, "wait for 2", *each]
    assert kept == ["step"] * 8


def test_all_loaders_of_a_device_share_one_stream(notes):
    """PyTorch would keep a batch's memory for each of them; ``cuda`` is the current device."""
    one, same, other = (
        gpu_prefetch.GpuPrefetch(torch.device(name)) for name in ("cuda", "cuda:1", "cuda:0")
    )
    assert one._stream is same._stream
    assert one._stream is not other._stream
    assert gpu_prefetch.GpuPrefetch(torch.device("cuda:0"))._stream is other._stream


def test_what_is_sent_is_pinned_first(notes):
    ready, given = gpu_prefetch.GpuPrefetch(torch.device("cuda")), []
    pinned = types.SimpleNamespace(is_pinned=lambda: True)
    pinned.to = lambda device, non_blocking: given.append((device.type, non_blocking))
    ready.send(pinned)
    ready.send(types.SimpleNamespace(is_pinned=lambda: False, pin_memory=lambda: pinned))
    assert given == [("cuda", True)] * 2


def test_on_a_cpu_nothing_is_copied(notes):
    ready, tensor = gpu_prefetch.GpuPrefetch(torch.device("cpu")), torch.ones(2)
    with ready():
        assert ready.send(tensor) is tensor
    ready.hand_over(tensor)
    assert notes == []
