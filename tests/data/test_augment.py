"""Augmentation depends on its generator alone and equals torchvision's, alone and in a batch."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from sadcl.config import Augmentation
from sadcl.data import augment as module
from sadcl.data.augment import OPERATIONS, apply, augment, draw


def picture(width, height):
    """Return smooth colours with an orientation, and noise so that no two neighbours are equal."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(width).integers(0, 40, (height, width, 3))
    return Image.fromarray(
        (np.stack([x * 6, y * 8, (x + y) * 3], axis=-1) + noise).astype(np.uint8)
    )


def tensor(width, height):
    return torch.from_numpy(np.array(picture(width, height))).permute(2, 0, 1)


NAMES = list(v2.RandAugment._AUGMENTATION_SPACE)


@pytest.mark.parametrize("number", range(len(OPERATIONS)), ids=NAMES)
@pytest.mark.parametrize("side", [48, 61])
def test_randaugment_is_torchvisions(number, side):
    """Results equal torchvision's to the bit, with two exceptions.

    A weighted sum may be one level off, because torchvision rounds its two products once and not
    each. A rotated pixel whose source lies between two, within the error of float32, may be either.
    """
    reference, name = v2.RandAugment(), NAMES[number]
    operation, magnitude, signed = OPERATIONS[number]
    magnitudes, their_signed = reference._AUGMENTATION_SPACE[name]
    values = magnitudes(31, side, side)
    assert signed == their_signed
    images = torch.stack(
        [tensor(side, side), tensor(side, side).flip(-1), torch.full((3, side, side), 7).byte()]
    )
    for m in (0, 1, 9, 17, 30):
        for sign in (1, -1) if signed else (1,):
            ours, theirs = (
                sign * magnitude(m, side),
                0.0 if values is None else sign * float(values[m]),
            )
            found = operation(images, torch.tensor([float(ours)] * 3, dtype=torch.float64))
            wanted = torch.stack(
                [
                    reference._apply_image_or_video_transform(i, name, theirs, "nearest", {})
                    for i in images
                ]
            )
            apart = (found.int() - wanted.int()).abs()
            if name == "Rotate":
                assert (apart > 0).float().mean() < 0.01
            else:
                assert apart.max() <= (name in ("Color", "Contrast", "Sharpness"))
            assert found.dtype == torch.uint8


def test_each_operation_is_drawn_as_often():
    rng, spec = np.random.default_rng(0), Augmentation(randaugment=2)
    plans = torch.stack([draw(spec, 32, 32, rng) for _ in range(3000)])
    counts = torch.bincount(plans[:, [9, 11]].flatten().int(), minlength=len(OPERATIONS))
    assert (counts - 6000 / 14).abs().max() < 4.5 * (6000 / 14) ** 0.5
    signed = plans[:, 9] == 5
    assert 0.3 < (plans[signed, 10] < 0).float().mean() < 0.7
    assert plans[signed, 10].abs().unique().tolist() == [9.0]


SPECS = [
    Augmentation(flip=True),
    Augmentation(multiscale=(1.0, 0.75, 0.5)),
    Augmentation(cutout=0.5),
    Augmentation(randaugment=2),
    Augmentation(
        multiscale=(0.75,), flip=True, cutout=0.3, randaugment=2, randaugment_magnitude=20
    ),
]


@pytest.mark.parametrize("spec", SPECS)
def test_augmentation_is_a_function_of_its_generator_alone(spec):
    image = tensor(48, 48).contiguous()
    before = image.clone()
    results = []
    for seed, disturbance in ((0, 1), (0, 2), *((s, 3) for s in range(1, 12))):
        torch.manual_seed(disturbance)
        state = torch.get_rng_state()
        results.append(augment(image, spec, 32, np.random.default_rng(seed)))
        assert torch.equal(
            torch.get_rng_state(), state
        )  # dropout after it sees the same numbers as without it
    assert torch.equal(image, before)
    assert all(r.shape == (3, 32, 32) and r.dtype == torch.uint8 for r in results)
    assert torch.equal(results[0], results[1])
    assert any(not torch.equal(results[0], r) for r in results[2:])


def test_flip_mirrors_half_of_the_images():
    image = tensor(32, 32)
    mirrored = 0
    for seed in range(200):
        result = augment(image, Augmentation(flip=True), 32, np.random.default_rng(seed))
        assert torch.equal(result, image) or torch.equal(result, image.flip(-1))
        mirrored += not torch.equal(result, image)
    assert 70 < mirrored < 130


def test_a_crop_is_a_part_of_the_image():
    """Red is the column and green the row, so a crop of half the size spans half the values."""
    y, x = np.mgrid[:64, :64]
    image = torch.from_numpy(np.stack([x * 4, y * 4, 0 * x]).astype(np.uint8))
    starts = set()
    for seed in range(30):
        crop = augment(
            image, Augmentation(multiscale=(0.5,)), 64, np.random.default_rng(seed)
        ).int()
        for channel in crop[:2]:
            assert channel.max() - channel.min() == 31 * 4
        starts.add((int(crop[0].min()), int(crop[1].min())))
    assert len(starts) > 20


def test_cutout_is_one_square_cut_off_at_the_border():
    image = torch.full((3, 20, 20), 77, dtype=torch.uint8)
    sizes = set()
    for seed in range(100):
        result = augment(image, Augmentation(cutout=0.4), 20, np.random.default_rng(seed))
        hole = (result != 77).any(dim=0)
        rows, columns = hole.any(dim=1).sum().item(), hole.any(dim=0).sum().item()
        assert hole.sum() == rows * columns
        assert 1 <= rows <= 8
        assert 1 <= columns <= 8
        sizes.add((rows, columns))
    assert (8, 8) in sizes
    assert len(sizes) > 5


@pytest.mark.parametrize("spec", SPECS)
def test_a_batch_is_its_images(spec, monkeypatch):
    """To the bit on one device; a device that resizes in float may be one level off."""
    images = torch.stack([tensor(48, 48).roll(i, -1) for i in range(12)])
    plans = torch.stack([draw(spec, 48, 32, np.random.default_rng(i)) for i in range(12)])
    alone = torch.stack(
        [apply(i[None], p[None], spec, 32)[0] for i, p in zip(images, plans, strict=True)]
    )
    assert torch.equal(apply(images, plans, spec, 32), alone)
    assert torch.equal(
        apply(images.contiguous(memory_format=torch.channels_last), plans, spec, 32), alone
    )
    if spec.multiscale and not spec.randaugment:
        resize = module.resize
        monkeypatch.setattr(
            module, "resize", lambda i, side: resize(i.float(), side).round().to(torch.uint8)
        )
        assert (apply(images, plans, spec, 32).int() - alone.int()).abs().max() <= 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("spec", SPECS)
def test_a_gpu_gives_the_same(spec):
    images = torch.stack([tensor(48, 48).roll(i, -1) for i in range(64)])
    whole = 48 if spec.multiscale else 32
    images = images[..., :whole, :whole]
    plans = torch.stack([draw(spec, whole, 32, np.random.default_rng(i)) for i in range(64)])
    found, wanted = apply(images.cuda(), plans, spec, 32).cpu(), apply(images, plans, spec, 32)
    if not spec.multiscale:
        assert torch.equal(found, wanted)
    elif not spec.randaugment:
        assert (found.int() - wanted.int()).abs().max() <= 1
