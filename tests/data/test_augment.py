"""Augmentation depends on its generator alone and is the same alone and in a batch; what is cropped
and cut."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sadcl.config import Augmentation, Config
from sadcl.data import augment as module
from sadcl.data import one_copy
from sadcl.data.augment import apply, augment, draw
from sadcl.data.batch_step import run_steps
from sadcl.errors import UserError
from tests.data.pictures import tensor

PLAN = [20, 22, 32, 0, 31, 28, 57, 14, 76, 3, -6, 12, 0]
SPECS = [
    Augmentation(flip=True),
    Augmentation(multiscale=(1.0, 0.75, 0.5)),
    Augmentation(cutout=0.5),
    Augmentation(randaugment=2),
    Augmentation(
        multiscale=(0.75,), flip=True, cutout=0.3, randaugment=2, randaugment_magnitude=20
    ),
    Augmentation(multiscale=(1.0, 0.875, 0.6), multiscale_kind="distorted"),
    Augmentation(randaugment=8, randaugment_kind="published"),
    Augmentation(
        multiscale=(1.0, 0.75),
        multiscale_kind="distorted",
        flip=True,
        cutout=0.3,
        randaugment=2,
        randaugment_kind="published",
    ),
]


def test_plans_of_the_older_kinds_stay_the_same():
    """A run that is resumed draws them again, and the order of drawing decides them."""
    spec = Augmentation(multiscale=(1.0, 0.75, 0.5), flip=True, cutout=0.5, randaugment=2)
    plan = draw(spec, 64, 48, np.random.default_rng(7))
    assert plan.dtype == torch.float64
    assert plan.tolist() == PLAN


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


@pytest.mark.parametrize(("size", "cutout"), [(448, 0.5), (576, 224 / 576)])
def test_the_published_hole_has_224_pixels(size, cutout):
    white = torch.full((3, size, size), 255, dtype=torch.uint8)
    spec, rng, whole = Augmentation(cutout=cutout), np.random.default_rng(0), 0
    for _ in range(30):
        plan = draw(spec, size, size, rng)
        hole = (apply(white[None], plan[None], spec, size)[0] != 255).any(dim=0)
        rows, columns = (hole.any(dim=axis).nonzero()[:, 0] for axis in (1, 0))
        if min(rows[0], columns[0]) > 0 and max(rows[-1], columns[-1]) < size - 1:
            assert (len(rows), len(columns), int(hole.sum())) == (224, 224, 224**2)
            whole += 1
    assert whole >= 3


SHARES = (1.0, 0.875, 0.75, 0.66, 0.5)
DISTORTED = Augmentation(multiscale=SHARES, multiscale_kind="distorted")


def windows(whole, shares):
    """List every crop of the definition: pairs of sides (height, width), and places for each."""
    sides = [int(whole * share) for share in shares]
    found = {}
    for i, height in enumerate(sides):
        for j, width in enumerate(sides):
            if abs(i - j) > 2:
                continue
            down, right = (whole - height) // 4, (whole - width) // 4
            found[height, width] = [
                (0, 0),
                (0, 4 * right),
                (4 * down, 0),
                (4 * down, 4 * right),
                (2 * down, 2 * right),
                (2 * down, 0),
                (2 * down, 4 * right),
                (4 * down, 2 * right),
                (0, 2 * right),
                (down, right),
                (down, 3 * right),
                (3 * down, right),
                (3 * down, 3 * right),
            ]
    return found


def drawn_windows(spec, whole, size, count):
    """Draw plans and return ((height, width), (top, left)) of each."""
    rng = np.random.default_rng(3)
    plans = torch.stack([draw(spec, whole, size, rng) for _ in range(count)]).int()
    return [((h, w), (t, left)) for t, left, h, w in plans[:, [0, 1, 2, -1]].tolist()]


def test_distorted_crops_are_those_of_the_definition_and_equally_likely():
    count, possible = 10_000, windows(512, SHARES)
    assert len(possible) == 19
    assert {side for pair in possible for side in pair} == {512, 448, 384, 337, 256}
    drawn = drawn_windows(DISTORTED, 512, 448, count)
    pairs, both = Counter(pair for pair, _ in drawn), Counter(drawn)
    assert pairs.keys() == possible.keys()
    assert both.keys() == {(pair, place) for pair in possible for place in possible[pair]}
    for pair, places in possible.items():
        expected = count / 19
        assert abs(pairs[pair] - expected) < 4.5 * expected**0.5, pair
        for place in set(places):
            expected = count / 19 * places.count(place) / 13
            assert abs(both[pair, place] - expected) < 4.5 * expected**0.5, (pair, place)
    square = sum(times for (height, width), times in pairs.items() if height == width)
    assert square / count == pytest.approx(5 / 19, abs=0.02)


def test_a_side_that_nearly_is_the_input_side_is_it():
    sides = {side for pair, _ in drawn_windows(DISTORTED, 512, 450, 300) for side in pair}
    assert sides == {512, 450, 384, 337, 256}
    sides = {side for pair, _ in drawn_windows(DISTORTED, 512, 451, 300) for side in pair}
    assert sides == {512, 448, 384, 337, 256}
    assert {pair for pair, _ in drawn_windows(DISTORTED, 2, 3, 300)} == {
        (2, 2),
        (2, 1),
        (1, 2),
        (1, 1),
    }


def test_distorted_crops_are_resized_parts_of_the_image():
    """As Pillow crops and resizes them, up to two of 256 levels."""
    images = torch.stack([tensor(64, 64).roll(i, -1) for i in range(40)])
    plans = torch.stack([draw(DISTORTED, 64, 56, np.random.default_rng(i)) for i in range(40)])
    results = apply(images, plans, DISTORTED, 56)
    shapes = set()
    for image, plan, result in zip(images, plans.int().tolist(), results, strict=True):
        top, left, height, width = *plan[:3], plan[-1]
        box = (left, top, left + width, top + height)
        wanted = Image.fromarray(image.permute(1, 2, 0).numpy()).crop(box)
        wanted = np.array(wanted.resize((56, 56), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(result.permute(1, 2, 0).numpy() - wanted).max() <= 2
        shapes.add((height, width))
    assert len(shapes) > 10


def test_shares_of_distorted_crops_are_ordered():
    unordered = {"multiscale": (0.5, 1.0, 0.75)}
    assert Augmentation(**unordered).multiscale == (0.5, 1.0, 0.75)
    with pytest.raises(UserError, match=r"the largest first: \[1.0, 0.75, 0.5\], but got \[0.5, "):
        Augmentation(**unordered, multiscale_kind="distorted")
    with pytest.raises(UserError, match=r"^stage2.augmentation .*largest first"):
        Config().override(
            {
                "stage2.augmentation.multiscale": (0.5, 1.0),
                "stage2.augmentation.multiscale_kind": "distorted",
            }
        )


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


class CountCopies(TorchDispatchMode):
    """Counts what the host and a GPU copy from each other, and kernels that get both's tensors."""

    def __init__(self):
        super().__init__()
        self.to_gpu, self.from_gpu, self.mixed = [], 0, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        name = function.overloadpacket.__name__
        tensors = [value for value in tree_leaves(args) if isinstance(value, torch.Tensor)]
        given = [tensor.device.type for tensor in tensors]
        if name in ("_local_scalar_dense", "nonzero", "is_nonzero") and "cuda" in given:
            self.from_gpu += 1
        elif name == "_to_copy" and given[0] != result.device.type:
            if result.device.type == "cuda":
                self.to_gpu.append((args[0].dtype, kwargs.get("non_blocking")))
            else:
                self.from_gpu += 1
        elif "cuda" in given and any(t.dim() and t.device.type == "cpu" for t in tensors):
            self.mixed.append((name, given))
        return result


@pytest.mark.parametrize("spec", SPECS)
def test_a_plan_goes_to_a_gpu_in_one_copy_that_nothing_waits_for(spec, monkeypatch):
    """On a GPU that is pretended: results have shapes, and no values."""
    monkeypatch.setattr(one_copy, "_pack", partial(pack_unpinned, one_copy._pack))
    plans = torch.stack([draw(spec, 48, 32, np.random.default_rng(i)) for i in range(64)])
    steps = module._steps(plans, spec, 32)
    with FakeTensorMode(allow_non_fake_inputs=True), CountCopies() as copies:
        images = torch.zeros(64, 3, 48, 48, dtype=torch.uint8, device="cuda:0")
        found = run_steps(steps, images)
    assert (found.shape, found.device.type) == ((64, 3, 32, 32), "cuda")
    assert copies.to_gpu == [(torch.uint8, True)]
    assert copies.from_gpu == 0
    assert copies.mixed == []


def pack_unpinned(pack, tensors, *, pin):
    assert pin
    return pack(tensors, pin=False)  # without a GPU no memory can be pinned


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
