"""The contract suites of data sets, samplers, augmentations and metrics."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from sadcl.data import image_set
from sadcl.data.sampler import permute
from sadcl.testing import check_augmentation, check_dataset, check_metric, check_sampler
from tests.own_parts import make_birds, write_module


@pytest.fixture
def parts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    write_module(tmp_path, "suite_parts")
    return importlib.import_module("suite_parts")


@pytest.fixture
def root(tmp_path):
    return make_birds(tmp_path / "birds")


def test_the_examples_pass(parts, root):
    check_dataset(parts.birds, root, table="birds.csv")
    check_sampler(parts.rare, share=1.0)
    check_sampler(permute)
    check_augmentation(parts.gray, share=0.5)
    check_metric(parts.one_error)


def test_each_fault_of_a_data_set_is_named(parts, root):
    with pytest.raises(AssertionError, match="late fails on .*: FileNotFoundError"):
        check_dataset(parts.late, root)
    with pytest.raises(AssertionError, match="birds has no argument 'tables'; it takes table"):
        check_dataset(parts.birds, root, tables="x")
    counts = iter(range(1, 10))

    def drifts(root):
        files = ["000.png", f"00{next(counts)}.png"]
        return [image_set(root / "photos", files[i:], [[1], [1]][i:], ["owl"]) for i in (0, 1)]

    with pytest.raises(AssertionError, match="returns other files, targets or labels"):
        check_dataset(drifts, root)

    def absent(root):
        return [image_set(root / "photos", [f"00{i}.png"], [[1, 0]], ["owl", "emu"]) for i in "01"]

    with pytest.raises(AssertionError, match="has no training image with the label emu"):
        check_dataset(absent, root)
    (root / "photos" / "004.png").unlink()
    with pytest.raises(AssertionError, match="birds: 1 of 12 images .* are missing"):
        check_dataset(parts.birds, root)


def test_each_fault_of_the_others_is_named(parts):
    def same(targets_NL, epoch, rng):
        return np.arange(len(targets_NL))

    with pytest.raises(AssertionError, match="same returns the same order in two epochs"):
        check_sampler(same)
    with pytest.raises(AssertionError, match="'moody' returns another order when"):
        check_sampler(parts.moody)
    with pytest.raises(AssertionError, match="must return as many indices"):
        check_sampler(parts.short)
    with pytest.raises(AssertionError, match="must return a uint8 tensor"):
        check_augmentation(parts.floats)
    with pytest.raises(AssertionError, match="returns another image when the same"):
        check_augmentation(parts.noise)
    with pytest.raises(AssertionError, match="is NaN where each label"):
        check_metric(parts.unknown)
    with pytest.raises(AssertionError, match="text.* must return one finite number"):
        check_metric(parts.text)
