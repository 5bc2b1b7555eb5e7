"""Augmentations of the user's: one image, wherever it is changed."""

import numpy as np
import pytest
import torch

from sadcl.config import Augmentation
from sadcl.data.image_augmentation import OwnAugmentation
from sadcl.data.loader import Loader
from sadcl.errors import UserError
from tests.own_parts import write_module

FIELD = "stage1.augmentation.own"
SPEC = Augmentation(flip=True, cutout=0.25)


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    write_module(tmp_path, "look_parts")
    return lambda name, **arguments: OwnAugmentation(f"look_parts:{name}", arguments, FIELD)


def picture(seed=0, side=8):
    pixels = np.random.default_rng(seed).integers(0, 256, (3, side, side), dtype=np.uint8)
    return torch.from_numpy(pixels)


def test_the_example_is_a_function_of_the_image_and_its_key(own):
    gray = own("gray", share=1.0)
    gray.check(8, 0)
    image = picture()
    before = image.clone()
    result = gray(image, (0, 1, 0, 0))
    assert torch.equal(image, before)
    assert torch.equal(result[0], result[1])
    red, green, blue = image.double()
    assert (result[0] - (0.299 * red + 0.587 * green + 0.114 * blue)).abs().max() <= 0.5
    some = own("gray", share=0.5)
    changed = [not torch.equal(some(image, (0, 1, i, 0)), image) for i in range(100)]
    assert 30 < sum(changed) < 70
    assert changed == [not torch.equal(some(image, (0, 1, i, 0)), image) for i in range(100)]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("floats", {}, r"must return a uint8 tensor of the shape \(3, 8, 8\) on cpu, but returned"),
        ("noise", {}, "returns another image when the same image and generator are given again"),
        ("picky", {}, "side must be even, but got 8"),
        ("picky", {"side": "x"}, f"{FIELD}_arguments.side = 'x' is not possible"),
        ("gray", {"shares": 1}, f"{FIELD}_arguments: look_parts:gray has no argument 'shares'"),
        ("absent", {}, "look_parts has no 'absent'"),
    ],
)
def test_mistakes_name_the_field_and_the_path(own, name, arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        own(name, **arguments).check(8, 0)
    assert f"look_parts:{name}" in str(caught.value)
    assert FIELD in str(caught.value)


def images_of(batches):
    return torch.cat([batch.images_BCHW for batch in batches])


def loaded(images, own, epoch=2, **options):
    loader = Loader(
        images,
        image_size=32,
        augmentation=SPEC,
        own_augmentation=own,
        batch_size=9,
        shuffle=True,
        seed=5,
        **options,
    )
    return list(loader.batches(epoch))


def test_it_is_equal_in_processes_and_in_batches(own, small_scenes):
    images = small_scenes.train
    gray = own("gray", share=0.5)
    alone = loaded(images, gray)
    assert not torch.equal(images_of(alone), images_of(loaded(images, None)))
    assert not torch.equal(images_of(alone), images_of(loaded(images, gray, epoch=3)))
    for options in ({"workers": 1}, {"batched": True}):
        assert torch.equal(images_of(loaded(images, gray, **options)), images_of(alone))
    ranks = [loaded(images, gray, rank=rank, world_size=2) for rank in range(2)]
    together = [
        batch.images_BCHW[batch.weight_B > 0] for pair in zip(*ranks, strict=True) for batch in pair
    ]
    assert torch.equal(torch.cat(together), images_of(alone))


def test_an_error_in_a_loader_process_arrives_as_it_is(own, small_scenes):
    with pytest.raises(UserError, match="look_parts:picky': side must be even"):
        loaded(small_scenes.train, own("picky"), workers=1)


def test_an_image_that_is_repeated_is_changed_in_another_way(own, small_scenes):
    loader = Loader(
        small_scenes.train,
        image_size=32,
        augmentation=SPEC,
        own_augmentation=own("gray", share=0.5),
        sampler=lambda targets_NL, epoch, rng: np.zeros(len(targets_NL), dtype=np.int64),
        batch_size=9,
        shuffle=True,
    )
    images = images_of(loader.batches(1))
    assert len({image.numpy().tobytes() for image in images}) > len(images) // 2
