"""Small data sets on disk: drawn scenes, copies of every layout, and real photographs."""

from pathlib import Path

import pytest

from sadcl.config import Data
from sadcl.data.load import load
from sadcl.data.readers import vg500
from tests.data.readers.layouts import BY_NAME, TEST, TRAIN

PHOTOGRAPHS = Path(__file__).parents[2].parent / "shared" / "data" / "coco"
"""A part of COCO 2017 outside the repository; what needs it is skipped where there is none."""


@pytest.fixture(scope="session")
def small_scenes(tmp_path_factory):
    """60 training and 20 test scenes, 12 of the former held out."""
    config = Data(name="scenes", scene_train=60, scene_test=20, holdout=0.2)
    return load(config, tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="session")
def photographs():
    """Real photographs of COCO."""
    if not PHOTOGRAPHS.is_dir():
        pytest.skip("there are no photographs of COCO beside the repository")
    return PHOTOGRAPHS


@pytest.fixture
def layout_copy(tmp_path, monkeypatch):
    """Writes a layout's copy, and returns its root and a function that loads it."""
    monkeypatch.setattr(vg500, "CATEGORIES", 3)

    def write(name):
        layout = BY_NAME[name]
        layout.write(tmp_path, TRAIN, TEST)
        return tmp_path, lambda **fields: load(
            layout.config.model_copy(update={"holdout": 0, **fields}), tmp_path
        )

    return write
