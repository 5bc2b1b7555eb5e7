"""RandAugment draws each operation as often as it should, and applies it to its images."""

import numpy as np
import pytest
import torch

from sadcl.config import Augmentation
from sadcl.data import pillow_operations
from sadcl.data.batch_step import run_steps
from sadcl.data.randaugment import OPERATIONS, columns, draw, steps
from tests.data.pictures import operate, tensor

PUBLISHED = Augmentation(randaugment=2, randaugment_kind="published")


def plans(spec, size, count):
    """Return the plans of so many images, (images, operations, numbers)."""
    rng = np.random.default_rng(0)
    drawn = torch.stack([torch.from_numpy(draw(spec, size, rng)) for _ in range(count)])
    assert drawn.shape[1] == columns(spec)
    return drawn.view(count, spec.randaugment, -1)


def likely(counts, probability, total):
    """Whether counts are within 4.5 standard deviations of what is expected."""
    expected = probability * total
    return ((counts - expected).abs() <= 4.5 * (expected * (1 - probability)) ** 0.5).all()


def test_torchvisions_operations_are_drawn_equally_often():
    drawn = plans(Augmentation(randaugment=2), 32, 3000)
    numbers, magnitudes = drawn.flatten(0, 1).unbind(1)
    counts = torch.bincount(numbers.int(), minlength=14)
    assert len(OPERATIONS["torchvision"]) == len(counts) == 14
    assert likely(counts, 1 / 14, 6000)
    rotations = magnitudes[numbers == 5]
    assert 0.3 < (rotations < 0).float().mean() < 0.7
    assert rotations.abs().unique().tolist() == [9.0]


def test_published_operations_magnitudes_and_signs_are_drawn_equally_often():
    drawn = plans(PUBLISHED, 64, 8000)
    numbers, magnitudes, rows, column = drawn.flatten(0, 1).unbind(1)
    assert likely((numbers >= 0).sum(), 0.5, 16000)
    both = (drawn[:, 0, 0] >= 0) & (drawn[:, 1, 0] >= 0)
    assert likely(both.sum(), 0.25, 8000)  # two coins, not one
    counts = torch.bincount(numbers[numbers >= 0].int(), minlength=15)
    assert len(OPERATIONS["published"]) == len(counts) == 15
    assert likely(counts, 0.5 / 15, 16000)
    for number, operation in enumerate(pillow_operations.OPERATIONS):
        found = magnitudes[numbers == number]
        possible = [operation.magnitude(m, 64) for m in range(1, 10)]
        for value in set(possible):
            times = (found.abs() == value).sum()
            assert likely(times, possible.count(value) / 9, len(found)), (number, value)
        assert likely((found < 0).sum(), 0.5 if operation.signed else 1e-9, len(found))
    holes = numbers == 1
    for place in (rows, column):
        assert place[holes].min() <= 5
        assert place[holes].max() >= 58
        assert place[holes].max() < 64
        assert not place[~holes].any()
    assert (rows[holes] != column[holes]).any()


def test_plans_are_carried_out_in_their_order():
    """Image by image and step by step, with the functions themselves."""
    images = torch.stack([tensor(48, 48).roll(i, -1) for i in range(40)])
    before, spec = images.clone(), PUBLISHED.model_copy(update={"randaugment": 3})
    drawn = plans(spec, 48, 40)
    results = run_steps(steps(drawn.flatten(1), spec, 48), images)
    assert torch.equal(images, before)
    unchanged = 0
    for image, plan, result in zip(images, drawn, results, strict=True):
        wanted = image[None].contiguous()
        for number, *values in plan.tolist():
            if number >= 0:
                operation = pillow_operations.OPERATIONS[int(number)]
                values = values[: 3 if operation.placed else 1]
                values = torch.tensor(values, dtype=torch.float64)[:, None]
                wanted = operate(operation, wanted, *values)
        assert torch.equal(result, wanted[0])
        unchanged += torch.equal(result, image)
    assert 0 < unchanged < 20


@pytest.mark.parametrize("kind", ["torchvision", "published"])
def test_no_operation_has_no_plan(kind):
    spec = Augmentation(randaugment=0, randaugment_kind=kind)
    assert columns(spec) == 0
    assert draw(spec, 32, np.random.default_rng(0)).shape == (0,)
