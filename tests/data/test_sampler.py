"""Samplers of the user's: pure functions of (seed, epoch), checked, the same on every worker."""

import numpy as np
import pytest
import torch

from sadcl.data.loader import Loader
from sadcl.data.sampler import check_sampler, count_repeats, draw_order, permute
from sadcl.errors import UserError
from tests.own_parts import write_module

TARGETS = np.array([[1, 0], [1, 0], [1, 0], [1, 0], [0, 1], [0, 0], [1, -1]], dtype=np.int8)


@pytest.fixture
def parts(tmp_path, monkeypatch):
    import importlib

    monkeypatch.syspath_prepend(str(tmp_path))
    write_module(tmp_path, "sampler_parts")
    return importlib.import_module("sampler_parts")


def test_the_example_draws_rare_labels_more_often(parts):
    check_sampler(parts.rare, TARGETS, 3)
    seen = np.concatenate([draw_order(parts.rare, TARGETS, 3, epoch) for epoch in range(400)])
    assert len(seen) == 400 * len(TARGETS)
    share = (seen == 4).mean()  # the only image of the second label
    assert 0.28 < share < 0.36, "1/14 of the first half, and a half of the second"


def test_the_one_that_is_built_in_is_the_permutation_of_before():
    expected = np.random.default_rng([1, 9, 4]).permutation(7)
    assert draw_order(permute, TARGETS, 9, 4).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("short", r"as many indices as there are training images, 7, but an .* shape \(3,\)"),
        ("far", r"indices from 0 to 6, but 7 is among them \(epoch 1\)"),
        ("halves", "whole numbers, but float64"),
        ("moody", "returns another order when epoch 1 is asked for again"),
        ("writes", "fails with ValueError|read-only"),
        ("picky", "TypeError: picky.. takes 2 positional arguments but 3 were given"),
    ],
)
def test_what_it_returns_is_checked(parts, name, message):
    with pytest.raises(UserError, match=message) as caught:
        check_sampler(getattr(parts, name), TARGETS, 0, f"sampler_parts:{name}")
    assert f"data.sampler = 'sampler_parts:{name}'" in str(caught.value)


def batches(parts, images, **options):
    defaults = {"image_size": 32, "batch_size": 9, "shuffle": True, "seed": 5}
    loader = Loader(images, sampler=parts.rare, **{**defaults, **options})
    return list(loader.batches(2, options.pop("start", 0)))


def test_workers_have_their_shares_of_one_order(parts, small_scenes):
    images = small_scenes.train
    index = torch.cat([batch.index_B for batch in batches(parts, images)])
    assert len(index) == len(images)
    assert len(set(index.tolist())) < len(images), "some are repeated"
    ranks = [batches(parts, images, rank=rank, world_size=2) for rank in range(2)]
    together = [
        batch.index_B[batch.weight_B > 0] for pair in zip(*ranks, strict=True) for batch in pair
    ]
    assert torch.equal(torch.cat(together), index)
    resumed = Loader(
        images, image_size=32, batch_size=9, shuffle=True, seed=5, sampler=parts.rare
    ).batches(2, 3)
    assert torch.equal(torch.cat([batch.index_B for batch in resumed]), index[27:])
    still = Loader(images, image_size=32, batch_size=9, sampler=parts.rare)
    assert torch.cat([b.index_B for b in still.batches(0)]).tolist() == list(range(len(images)))


def test_repeats_are_counted_in_the_order():
    assert count_repeats(np.array([2, 0, 2, 2, 1, 0])).tolist() == [0, 0, 1, 2, 0, 1]
    assert count_repeats(np.array([], dtype=np.int64)).tolist() == []
