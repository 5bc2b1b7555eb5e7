"""A copy of a small data set, and a guard that nothing here starts a cluster."""

from __future__ import annotations

import shutil
import sys

import pytest

from sadcl.data.readers import scenes


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A whole copy of 'COCO 2017'."""
    return scenes.ensure(tmp_path_factory.mktemp("data"), seed=0, train=60, test=24)


@pytest.fixture
def copy(good, tmp_path):
    return shutil.copytree(good, tmp_path / "coco")


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch, tmp_path):
    """Whatever is asked here must be answered before Ray is started."""
    monkeypatch.setitem(sys.modules, "sadcl.ray_backend.driver", None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
