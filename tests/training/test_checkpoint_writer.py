"""A checkpoint holds what was there when it was saved, however late its file is written."""

import errno
import os
import threading
import time

import pytest
import torch

from sadcl import storage
from sadcl.training import checkpoint_writer
from sadcl.training.checkpoint import load_checkpoint, save_checkpoint
from sadcl.training.checkpoint_writer import CheckpointWriter, host_copy

CPU = torch.device("cpu")


@pytest.fixture
def gate(monkeypatch):
    """Writing stops before a file appears until this is set."""
    gate, fsync = threading.Event(), os.fsync

    def wait(number):
        assert gate.wait(30)
        fsync(number)

    monkeypatch.setattr(storage.os, "fsync", wait)
    yield gate
    gate.set()


def fail(number):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_training_changes_while_a_file_is_written_is_not_in_it(tmp_path, gate):
    uri, weights = str(tmp_path / "state.pt"), torch.zeros(1000)
    content = {"model": {"w": weights}, "list": [weights, (1, weights)], "progress": {"step": 1}}
    with CheckpointWriter(CPU) as writer:
        writer.save({uri: content})
        weights.add_(1)
        content["progress"]["step"] = 2
        content["list"].clear()
        assert not storage.exists(uri)
        gate.set()
    saved = load_checkpoint(uri)
    assert saved["progress"] == {"step": 1}
    for tensor in (saved["model"]["w"], saved["list"][0], saved["list"][1][1]):
        assert torch.equal(tensor, torch.zeros(1000))


def test_the_file_is_to_the_byte_what_is_written_without_a_thread(tmp_path):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5))
    module.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(2, 3, 4, 4)).sum().backward()
    optimizer.step()
    content = {"model": module.state_dict(), "optimizer": optimizer.state_dict(), "own": []}
    with CheckpointWriter(CPU) as writer:
        writer.save({str(tmp_path / "a.pt"): content})
    save_checkpoint(str(tmp_path / "b.pt"), content)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_one_file_is_written_at_a_time_in_the_order_given(tmp_path, monkeypatch):
    events, write = [], checkpoint_writer.save_checkpoint

    def slow(uri, content):
        events.append(("begins", content["number"]))
        time.sleep(0.02)
        write(uri, content)
        events.append(("ends", content["number"]))

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", slow)
    with CheckpointWriter(CPU) as writer:
        for number in (0, 2, 4):
            uris = [str(tmp_path / name) for name in ("best.pt", "state.pt")]
            writer.save({uri: {"number": number + i} for i, uri in enumerate(uris)})
    assert events == [(what, number) for number in range(6) for what in ("begins", "ends")]
    assert load_checkpoint(str(tmp_path / "state.pt"))["number"] == 5


@pytest.mark.parametrize("then", ["save", "wait", "end"])
def test_a_failure_is_raised_by_what_comes_next_and_the_last_whole_files_stay(
    tmp_path, monkeypatch, then
):
    best, state = str(tmp_path / "best.pt"), str(tmp_path / "state.pt")
    with CheckpointWriter(CPU) as writer:
        writer.save({best: {"number": 1}, state: {"number": 1}})
    monkeypatch.setattr(storage.os, "fsync", fail)

    def save_again():
        with CheckpointWriter(CPU) as writer:
            writer.save({best: {"number": 2}, state: {"number": 2}})
            if then == "save":
                writer.save({})
            elif then == "wait":
                writer.wait()

    with pytest.raises(OSError, match="No space left on device: .*best.pt") as caught:
        save_again()
    assert caught.value.errno == errno.ENOSPC
    assert [load_checkpoint(uri)["number"] for uri in (best, state)] == [1, 1]
    assert sorted(os.listdir(tmp_path)) == ["best.pt", "state.pt"]


def test_a_run_that_fails_waits_for_its_file_and_keeps_its_own_error(tmp_path, gate, monkeypatch):
    uri = str(tmp_path / "state.pt")

    def diverge(number):
        with CheckpointWriter(CPU) as writer:
            writer.save({uri: {"number": number}})
            raise ValueError("diverged")

    threading.Timer(0.2, gate.set).start()
    with pytest.raises(ValueError, match="diverged"):
        diverge(1)
    assert load_checkpoint(uri)["number"] == 1
    monkeypatch.setattr(storage.os, "fsync", fail)
    with pytest.raises(ValueError, match="diverged"):
        diverge(2)
    assert load_checkpoint(uri)["number"] == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_copy_of_a_gpus_tensors_is_in_pinned_memory_with_the_same_layout():
    images = torch.rand(2, 3, 8, 8, device="cuda").to(memory_format=torch.channels_last)
    (copied,) = host_copy([images])
    torch.cuda.synchronize()
    assert copied.is_pinned()
    assert copied.stride() == images.stride()
    assert torch.equal(copied, images.cpu())
