"""Maps of labels, over photographs of any proportions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sadcl
from sadcl import inference


@pytest.mark.parametrize("which", [1, 2])
def test_explain_in_python(two_runs, photo_files, which):
    model = sadcl.load(two_runs[which]["checkpoint"], device="cpu")
    for name, shape in zip(photo_files, ((60, 100), (60, 20), (100, 60)), strict=True):
        found = model.explain(name, threshold=0.02)
        assert found
        scores = dict(model.predict(name)[0])
        assert [f.score for f in found] == sorted(
            (s for s in scores.values() if s > 0.02), reverse=True
        )
        for label, score, map_HW in found:
            assert score == pytest.approx(scores[label], abs=1e-6)
            assert map_HW.shape == shape
            assert map_HW.dtype == np.float32
            assert map_HW.min() >= 0
            assert map_HW.max() in (0, pytest.approx(1))
    assert len(model.explain("wide.jpg", threshold=1)) == 1  # nothing scores so high: the best one
    assert [f.label for f in model.explain("wide.jpg", labels=["star", "die"])] == ["star", "die"]


def test_a_map_lies_over_the_photograph_whatever_its_proportions():
    maps = torch.zeros(1, 2, 4)
    maps[0, 0, 3] = 5  # top right
    photo = np.zeros((40, 200, 3), np.uint8)
    label_maps = inference.LabelMaps(photo, np.array([0.5]), maps)
    over = label_maps.map_of(0, 40, 200)
    np.testing.assert_allclose(over[:11, 175:], 1, atol=0.1)
    assert over[:, :125].max() == 0
    assert over[30:].max() == 0
