"""On a Mac: what only Linux has is not there, and nothing needs it."""

from __future__ import annotations

import builtins
import ctypes
import os
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import sadcl
from sadcl import recipes
from sadcl.cli.app import app
from sadcl.errors import UserError
from sadcl.results import provenance
from sadcl.study import gpu_driver
from sadcl.training import setup
from tests.conftest import TINY


@pytest.fixture
def mac(monkeypatch):
    """This machine without /proc and /sys, glibc, and Linux's functions of ``os``."""
    opening, reading = builtins.open, Path.read_text

    def is_hidden(file):
        return isinstance(file, str | os.PathLike) and str(file).startswith(("/proc", "/sys"))

    def hide(real):
        def opened(file, *args, **kwargs):
            if is_hidden(file):
                raise FileNotFoundError(file)
            return real(file, *args, **kwargs)

        return opened

    def no_library(*args, **kwargs):
        raise OSError("there is no such library")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(builtins, "open", hide(opening))
    monkeypatch.setattr(Path, "read_text", hide(reading))
    monkeypatch.setattr(ctypes, "CDLL", no_library)
    for name in ("sched_getaffinity", "sched_setaffinity", "posix_fadvise", "memfd_create"):
        monkeypatch.delattr(os, name, raising=False)
    provenance.provenance.cache_clear()
    yield monkeypatch
    provenance.provenance.cache_clear()


def test_training_and_its_tables_need_nothing_of_linux(mac, work_folder):
    config = recipes.demo().override({**TINY, "stage1.epochs": 1, "stage2.epochs": 1})
    run = sadcl.train(config, storage="runs", name="mac")
    assert (run.status, run["device"]) == ("complete", "cpu")
    assert run["cpu"]
    done = CliRunner().invoke(app, ["results", "top", "--storage", "runs"])
    assert (done.exit_code, run.key in done.stdout) == (0, True)
    assert CliRunner().invoke(app, ["--help"]).exit_code == 0
    assert gpu_driver.read_gpu_driver().driver is None


def test_memory_is_counted_in_the_systems_unit(monkeypatch):
    linux = setup.peak_memory_mb(torch.device("cpu"))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert setup.peak_memory_mb(torch.device("cpu")) == pytest.approx(linux / 1024, rel=0.2)


def test_apples_gpu_is_picked_for_prediction_only(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert setup.pick_device(None, training=False).type == "mps"
    assert setup.pick_device("auto", training=False).type == "mps"
    assert setup.pick_device("mps", training=False).type == "mps"
    assert setup.pick_device(None).type == "cpu"
    with pytest.raises(UserError, match="no float64"):
        setup.pick_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert setup.pick_device(None, training=False).type == "cpu"
    with pytest.raises(UserError, match="'mps' is not available"):
        setup.pick_device("mps", training=False)
