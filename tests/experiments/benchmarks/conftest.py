"""Benchmarks are scripts that import each other by name; this lets tests import them so too."""

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "experiments" / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """Import a benchmark by its name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module
