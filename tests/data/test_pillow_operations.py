"""The published run's operations equal Pillow's, with the magnitudes of the package's tables."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from sadcl.data.pillow_operations import OPERATIONS
from tests.data.pictures import operate, tensor

GREY = (128, 128, 128)
BITS = (8, 7, 7, 6, 6, 5, 5, 4, 4)
HOLES = (2, 4, 7, 9, 11, 13, 16, 18, 20)
THIRD, NINE_TENTHS = np.linspace(0, 0.3, 10), np.linspace(0, 0.9, 10)
TRANSLATED, DEGREES = np.linspace(0, 150 / 331, 10), np.linspace(0, 30, 10)
THRESHOLDS = np.linspace(256, 0, 10)
ROW, COLUMN = 5, 44


def affine(image, matrix, resample=Image.Resampling.NEAREST):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=GREY)


def rotate(image, m, sign):
    return image.rotate(DEGREES[m], Image.Resampling.NEAREST, fillcolor=GREY)


def cutout(image, m, sign):
    """Every pixel by itself, from its distance to the centre."""
    pixels, half = np.array(image), HOLES[m - 1] // 2
    for row in range(image.height):
        for column in range(image.width):
            if -half <= row - ROW < half and -half <= column - COLUMN < half:
                pixels[row, column] = (125, 122, 113)
    return Image.fromarray(pixels)


def enhance(kind):
    return lambda image, m, sign: kind(image).enhance(1 + sign * NINE_TENTHS[m])


def shear(x, y):
    def function(image, m, sign):
        along = sign * THIRD[m]
        return affine(image, (1, x * along, 0, y * along, 1, 0), Image.Resampling.BICUBIC)

    return function


def translate(x, y):
    def function(image, m, sign):
        pixels = sign * TRANSLATED[m] * image.width
        return affine(image, (1, 0, x * pixels, 0, 1, y * pixels))

    return function


REFERENCE = {  # in the package's order: a function of image, magnitude and sign, and if it has one
    "Invert": (lambda image, m, sign: ImageOps.invert(image), False),
    "Cutout": (cutout, False),
    "Sharpness": (enhance(ImageEnhance.Sharpness), True),
    "AutoContrast": (lambda image, m, sign: ImageOps.autocontrast(image), False),
    "Posterize": (lambda image, m, sign: ImageOps.posterize(image, BITS[m - 1]), False),
    "ShearX": (shear(1, 0), True),
    "TranslateX": (translate(1, 0), True),
    "TranslateY": (translate(0, 1), True),
    "ShearY": (shear(0, 1), True),
    "Rotate": (rotate, False),
    "Equalize": (lambda image, m, sign: ImageOps.equalize(image), False),
    "Contrast": (enhance(ImageEnhance.Contrast), True),
    "Color": (enhance(ImageEnhance.Color), True),
    "Solarize": (lambda image, m, sign: ImageOps.solarize(image, THRESHOLDS[m]), False),
    "Brightness": (enhance(ImageEnhance.Brightness), True),
}


def pictures(side):
    """Colours, their mirror image, noise, little contrast, and one colour."""
    noise = np.random.default_rng(side).integers(0, 256, (3, side, side))
    colours = tensor(side, side)
    return torch.stack(
        [
            colours,
            colours.flip(-1),
            torch.from_numpy(noise.astype(np.uint8)),
            colours // 4 + 90,
            torch.full((3, side, side), 201, dtype=torch.uint8),
        ]
    ).contiguous()


@pytest.mark.parametrize("number", range(15), ids=list(REFERENCE))
@pytest.mark.parametrize("side", [48, 61, 224])
def test_operations_are_pillows(number, side):
    """To the bit, but for shears: Pillow's weights are not rounded."""
    name = list(REFERENCE)[number]
    reference, has_sign = REFERENCE[name]
    operation = OPERATIONS[number]
    assert operation.signed == has_sign
    assert operation.placed == (name == "Cutout")
    images = pictures(side)
    before, apart = images.clone(), []
    place = [torch.full((5,), float(at), dtype=torch.float64) for at in (ROW, COLUMN)]
    for m in range(1, 10):
        for sign in (1, -1) if has_sign else (1,):
            magnitude = torch.full((5,), sign * operation.magnitude(m, side), dtype=torch.float64)
            result = operate(operation, images, magnitude, *(place if operation.placed else ()))
            assert result.dtype == torch.uint8
            assert result.is_contiguous()
            for image, found in zip(images, result, strict=True):
                wanted = reference(Image.fromarray(image.permute(1, 2, 0).numpy()), m, sign)
                apart.append(found.permute(1, 2, 0).int() - torch.from_numpy(np.array(wanted)))
    assert torch.equal(images, before)
    difference = torch.stack(apart).abs()
    if "Shear" in name:
        assert difference.max() <= 1
        assert (difference > 0).float().mean() < 1e-3
    else:
        assert difference.max() == 0


def test_each_image_has_a_magnitude_of_its_own():
    images = pictures(48)
    for operation in OPERATIONS:
        values = [[operation.magnitude(m, 48), 3 * m, 40 - m] for m in (1, 9, 4, 7, 2)]
        values = torch.tensor(values, dtype=torch.float64)[:, : 3 if operation.placed else 1]
        values[::2, 0] *= -1 if operation.signed else 1
        together = operate(operation, images, *values.unbind(1))
        for image, alone, row in zip(together, images, values, strict=True):
            assert torch.equal(operate(operation, alone[None], *row[None].unbind(1))[0], image)


def test_the_hole_is_cut_off_at_the_border_and_a_tall_one_has_twenty_pixels():
    white = torch.full((4, 3, 48, 48), 255, dtype=torch.uint8)
    at = torch.tensor([[20.0, 24, 24], [20, 0, 0], [20, 47, 24], [7, 24, 24]]).double()
    holes = (operate(OPERATIONS[1], white, *at.unbind(1)) != 255).all(dim=1)
    assert holes.sum((1, 2)).tolist() == [400, 100, 220, 36]
    assert holes[0, 14:34, 14:34].all()
    assert holes[1, :10, :10].all()
    assert holes[2, 37:, 14:34].all()


def test_rotation_is_anticlockwise_and_translation_moves_the_picture():
    image = torch.zeros(1, 3, 90, 90, dtype=torch.uint8)
    image[..., 40:50, 70:80] = 255  # right of the centre
    by_name = dict(zip(REFERENCE, OPERATIONS, strict=True))
    turned = operate(by_name["Rotate"], image, torch.tensor([30.0]).double())[0, 0]
    rows, columns = (turned == 255).nonzero().double().mean(0).tolist()
    assert rows == pytest.approx(45 - 30 * 0.5, abs=1)
    assert columns == pytest.approx(45 + 30 * 0.866, abs=1)
    assert turned[0, 0] == 128
    moved = operate(by_name["TranslateX"], image, torch.tensor([20.4]).double())[0, 0]
    assert torch.equal(moved[:, :70], image[0, 0, :, 20:])
    assert (moved[:, 70:] == 128).all()
