"""Manifests in the cache: the used stay, the old go, and whoever works with one that is gone goes on."""

import os
import pickle
import time

import numpy as np
import pytest
from layouts import LAYOUTS, TEST, TRAIN

from sadcl.data import load, manifest
from sadcl.data.loader import Loader


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """Writes COCO copies, and loads them with a cache of their own; gives the set and the manifests there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    layout = LAYOUTS[0]

    def read(name):
        if not (tmp_path / name).exists():
            layout.write(tmp_path / name, TRAIN, TEST)
        data = load(layout.config.model_copy(update={"holdout": 0.0}), tmp_path / name)
        return data.train, set((manifest.cache() / "manifests").iterdir())

    return read


def age(paths, days):
    for path in paths:
        os.utime(path, (time.time() - days * 86_400,) * 2)


def test_manifests_that_nobody_opens_are_removed(copies):
    _, first = copies("a")
    _, both = copies("b")
    part = manifest.cache() / "manifests" / "0123-cut short"
    part.touch()
    age([*both, part], manifest.DAYS + 1)
    images, now = copies("a")  # opened: they are used again
    assert now == both | {part}
    _, now = copies("c")  # something new is kept
    assert first < now
    assert not now & ((both - first) | {part})
    age(now, manifest.DAYS - 1)
    _, later = copies("d")
    assert now < later
    assert images.targets.sum() == sum(map(len, TRAIN))


def test_a_set_whose_manifest_is_gone_sends_its_content(copies):
    images, paths = copies("a")
    chosen = images.subset([3, 1], "two")
    assert len(pickle.dumps(chosen)) < 1000
    for path in paths:
        path.unlink()
    for one in (images, chosen):
        other = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(one))))
        assert other.files.equals(one.files)
        assert (other.targets == one.targets).all()
        assert (other.name, other.folder, other.labels, other.digest) == (one.name, one.folder, one.labels, one.digest)


def test_loader_processes_start_after_the_manifest_was_removed(copies):
    images, paths = copies("a")
    loader = Loader(images, image_size=32, batch_size=8, workers=1)
    for path in paths:
        path.unlink()
    (batch,) = loader.batches(0)
    assert (batch.targets.numpy() == images.targets).all()
    assert np.isfinite(batch.images.numpy()).all()
