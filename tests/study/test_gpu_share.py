"""Trials that share a GPU each have their share of its memory."""

from __future__ import annotations

import contextlib
import types

import pytest
import torch

from sadcl.study import gpu_share
from sadcl.study.placement import Placement


@pytest.mark.parametrize("total", [4 * 2**30, 24 * 2**30, 80 * 2**30])
@pytest.mark.parametrize("gpus", [0, 0.25, 0.5, 1, 2])
def test_a_fraction_of_a_gpu_is_a_fraction_of_its_memory(gpus, total, monkeypatch):
    """Whatever all trials of a GPU take and PyTorch does not count, they fit; all else is free."""
    fractions = []
    properties = types.SimpleNamespace(total_memory=total)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", fractions.append)
    before = []
    with contextlib.suppress(RuntimeError), gpu_share.gpu_memory(Placement("", None, gpus=gpus)):
        before = list(fractions)
        raise RuntimeError("the trial fails")
    if gpus not in (0.25, 0.5):
        assert fractions == []
        return
    (share,) = before
    assert fractions == [share, 1.0]
    assert gpus / 2 <= share < gpus
    if total > 4 * 2**30:
        assert (share * total + gpu_share.UNCOUNTED_BYTES) / gpus == pytest.approx(total)


def test_without_a_gpu_no_share_is_set(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with gpu_share.gpu_memory(Placement("", None, gpus=0.5)):
        pass
