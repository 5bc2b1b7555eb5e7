"""Pointing and energy against answers worked out by hand, and against pixels counted one by one."""

from __future__ import annotations

import numpy as np
import pytest

from sadcl.metrics import box_coverage, localisation


def test_pointing_and_energy_of_a_map_of_four_cells():
    map_HW = [[1.0, 2.0], [3.0, 4.0]]
    lower_right = localisation(map_HW, [[0.5, 0.5, 1, 1]])
    assert lower_right == (1.0, 0.4, 0.25)
    upper_half = localisation(map_HW, [[0, 0, 1, 0.5]])
    assert upper_half == (0.0, pytest.approx(0.3), 0.5)
    beside_the_middle = localisation(
        map_HW, [[0.8, 0.8, 1, 1]]
    )  # in the highest cell, but not its middle
    assert beside_the_middle == (0.0, pytest.approx(0.4 * 0.16), pytest.approx(0.04))
    two_boxes = localisation(map_HW, [[0, 0, 0.5, 0.5], [0.25, 0, 1, 0.5], [0.7, 0.7, 0.8, 0.8]])
    assert two_boxes == (1.0, pytest.approx(0.3 + 0.4 * 0.04), pytest.approx(0.5 + 0.01))


def test_negative_values_are_no_energy_and_a_map_without_any_is_uniform():
    box = [[0, 0, 0.5, 1]]
    assert localisation([[2.0, -6.0]], box) == (1.0, 1.0, 0.5)
    assert localisation([[-2.0, -1.0]], box) == (0.0, 0.5, 0.5)
    assert localisation([[0.0, 0.0]], box) == (1.0, 0.5, 0.5)  # of equal places the first


@pytest.mark.parametrize("seed", range(20))
def test_coverage_is_what_counting_pixels_gives(seed):
    rng = np.random.default_rng(seed)
    height, width, count = rng.integers(1, 8, 3)
    fine = 16
    corners = rng.integers(-4, np.array([width, height]) * fine + 4, (count, 2, 2))
    left_top, right_bottom = corners.min(1), corners.max(1)
    pixels = np.zeros((height * fine, width * fine))
    for (left, top), (right, bottom) in zip(left_top.clip(0), right_bottom.clip(0), strict=True):
        pixels[top:bottom, left:right] = 1
    boxes = np.concatenate([left_top, right_bottom], 1) / (
        np.array([width, height, width, height]) * fine
    )
    expected = pixels.reshape(height, fine, width, fine).mean((1, 3))
    np.testing.assert_allclose(box_coverage(boxes, height, width), expected, atol=1e-12)
