"""Hyper-parameter search and ablation for semantic-aware dual contrastive learning, on Ray."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sadcl import losses, metrics, recipes
    from sadcl.cli.experiment import main
    from sadcl.config import Config
    from sadcl.errors import UserError
    from sadcl.inference import load
    from sadcl.launch.outcome import Run, StudyResult
    from sadcl.launch.run import run
    from sadcl.launch.train import train
    from sadcl.results import read, sql
    from sadcl.search import Ablation, Comparison, Search

__version__ = "0.1.0"
__all__ = [
    "Ablation",
    "Comparison",
    "Config",
    "Run",
    "Search",
    "StudyResult",
    "UserError",
    "load",
    "losses",
    "main",
    "metrics",
    "read",
    "recipes",
    "run",
    "sql",
    "train",
]

_MODULES = {
    "Ablation": "sadcl.search",
    "Comparison": "sadcl.search",
    "Config": "sadcl.config",
    "Run": "sadcl.launch.outcome",
    "Search": "sadcl.search",
    "StudyResult": "sadcl.launch.outcome",
    "UserError": "sadcl.errors",
    "load": "sadcl.inference",
    "main": "sadcl.cli.experiment",
    "read": "sadcl.results",
    "run": "sadcl.launch.run",
    "sql": "sadcl.results",
    "train": "sadcl.launch.train",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: ``import sadcl`` loads neither PyTorch nor Ray."""
    try:
        if name in ("losses", "metrics", "recipes"):
            return importlib.import_module(f"sadcl.{name}")
        if name in _MODULES:
            return getattr(importlib.import_module(_MODULES[name]), name)
    except KeyboardInterrupt:  # in the first second of an experiment's file
        importlib.import_module("sadcl.errors").install_hook(silent_interruption=True)
        raise
    raise AttributeError(f"module 'sadcl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
