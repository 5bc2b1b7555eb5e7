"""Nothing happens at import: what a module needs of the process, its functions set and put back."""

from __future__ import annotations

import subprocess
import sys

LIBRARIES = """
import matplotlib.pyplot, numpy, optuna, pandas, pyarrow.dataset, ray, ray.train.torch, ray.tune
import rich, scipy.stats, sklearn.linear_model, tensorboardX, timm, torch, torchvision, typer
"""
"""Imported first, because some of them do change the process."""
CHECK = """
import importlib, os, pkgutil, signal, sys

def state():
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return sys.excepthook, dict(os.environ), handlers, list(sys.meta_path), os.getcwd()

before = state()
import sadcl
assert state() == before, "import sadcl"
modules = [name for _, name, _ in pkgutil.walk_packages(sadcl.__path__, "sadcl.")]
assert len(modules) > 100
for name in modules:
    importlib.import_module(name)
    assert state() == before, name
for name in sadcl.__all__:
    getattr(sadcl, name)
    assert state() == before, name
"""


def test_no_module_changes_the_process():
    done = subprocess.run(
        [sys.executable, "-c", LIBRARIES + CHECK], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
