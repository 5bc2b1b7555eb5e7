"""Small data sets on disk, in the layouts that publishers use."""

from pathlib import Path

import pytest

from sadcl.config import Data
from sadcl.data.load import load

PHOTOGRAPHS = Path(__file__).parents[2].parent / "shared" / "data" / "coco"


@pytest.fixture(scope="session")
def small_scenes(tmp_path_factory):
    """60 training and 20 test scenes, 12 of the former held out."""
    config = Data(name="scenes", scene_train=60, scene_test=20, holdout=0.2)
    return load(config, tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="session")
def photographs():
    """Real photographs of COCO, where they lie beside the checkout."""
    if not PHOTOGRAPHS.is_dir():
        pytest.skip("no photographs beside the checkout")
    return PHOTOGRAPHS
