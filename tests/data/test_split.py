"""The held-out part: about its share of every label, the same for a seed."""

import numpy as np
import pytest

from sadcl.data.split import draw, hold_out


@pytest.fixture(scope="module")
def targets():
    """5000 images and 30 labels, which half of the images to five of them show.

    Some targets are ignored, and some images have no label.
    """
    rng = np.random.default_rng(0)
    share = np.geomspace(0.5, 0.001, 30)
    matrix = (rng.random((5000, 30)) < share).astype(np.int8)
    matrix[rng.random(matrix.shape) < 0.02] = -1
    matrix[:200] = 0
    return matrix


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_every_label_keeps_its_frequency(targets, share):
    held = hold_out(targets, share, seed=0)
    count = (targets == 1).sum(axis=0)
    of_label = (targets[held] == 1).sum(axis=0)
    assert abs(held.mean() - share) < 0.01
    assert (abs(of_label - share * count) <= np.maximum(2, 0.02 * count)).all()
    twice = count >= 2
    assert twice.sum() >= 28
    assert (of_label[twice] >= 1).all()
    assert (of_label[twice] < count[twice]).all()
    assert abs(held[:200].mean() - share) < 0.15  # images without a label are on both sides too


def test_random_drawing_would_not_do(targets):
    """The test above can fail: plain random halves miss it."""
    held = np.random.default_rng(0).random(len(targets)) < 0.1
    count, of_label = (targets == 1).sum(axis=0), (targets[held] == 1).sum(axis=0)
    assert not (abs(of_label - 0.1 * count) <= np.maximum(2, 0.02 * count)).all()


def test_the_seed_decides(targets):
    one = hold_out(targets, 0.1, seed=0)
    assert (one == hold_out(targets, 0.1, seed=0)).all()
    assert (one != hold_out(targets, 0.1, seed=1)).any()


def test_labels_with_few_images():
    targets = np.zeros((40, 3), np.int8)
    targets[:1, 0] = 1  # one image: it trains
    targets[1:3, 1] = 1  # two: one on each side
    targets[3:40, 2] = 1
    held = hold_out(targets, 0.1, seed=0)
    assert (targets[held].sum(axis=0)[:2] == [0, 1]).all()
    assert held.sum() in (4, 5)


@pytest.mark.parametrize("rows", [0, 7])
def test_nothing_held_out(rows):
    assert not hold_out(np.ones((rows, 2), np.int8), 0.0, seed=0).any()


def test_smaller_draws_lie_in_larger_ones():
    few, many = draw(100, 10, seed=3), draw(100, 60, seed=3)
    assert (np.diff(few) > 0).all()
    assert set(few) < set(many)
    assert (draw(5, 10, seed=3) == np.arange(5)).all()
