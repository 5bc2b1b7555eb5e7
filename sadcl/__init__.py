"""SADCL on Ray: hyper-parameter search and ablation of semantic-aware dual contrastive learning."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sadcl import losses, metrics, recipes
    from sadcl.cli.experiment import main
    from sadcl.config import Config
    from sadcl.errors import UserError
    from sadcl.inference import load
    from sadcl.launch.run import run
    from sadcl.launch.train import train
    from sadcl.results import read, sql
    from sadcl.search import Ablation, Search

os.environ.setdefault(
    "THP_MEM_ALLOC_ENABLE", "1"
)  # torch then takes large pages: a batch of floats costs a third

__version__ = "0.1.0"
__all__ = [
    "Ablation",
    "Config",
    "Search",
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

_HOMES = {
    "Ablation": "sadcl.search",
    "Config": "sadcl.config",
    "Search": "sadcl.search",
    "UserError": "sadcl.errors",
    "load": "sadcl.inference",
    "main": "sadcl.cli.experiment",
    "read": "sadcl.results",
    "run": "sadcl.launch.run",
    "sql": "sadcl.results",
    "train": "sadcl.launch.train",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import sadcl` loads neither torch nor Ray."""
    if name in ("losses", "metrics", "recipes"):
        return importlib.import_module(f"sadcl.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sadcl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
