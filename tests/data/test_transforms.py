"""From a file to the network's input; Pillow is the reference for decoding."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from sadcl.data import transforms
from sadcl.data.augment import resize
from sadcl.data.transforms import (
    IMAGENET,
    Normalisation,
    decode,
    encode_pixmap,
    pixmap_bytes,
    read_image,
    to_input,
)
from sadcl.errors import UserError


def picture(width=40, height=30):
    """Smooth colours with an orientation."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 6, y * 8, (x + y) * 3], axis=-1).astype(np.uint8))


def encoded(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(picture()), id="jpeg"),
        pytest.param(encoded(picture(), progressive=True), id="progressive"),
        pytest.param(encoded(picture().convert("L")), id="gray"),
        pytest.param(encoded(picture().convert("CMYK")), id="cmyk"),
        pytest.param(encoded(picture(), "PNG"), id="png"),
        pytest.param(encoded(picture().convert("RGBA"), "PNG"), id="png-alpha"),
        pytest.param(encoded(picture().convert("P"), "PNG"), id="png-palette"),
        pytest.param(encoded(picture(), "BMP"), id="bmp"),
        pytest.param(encoded(picture(), "GIF"), id="gif"),
        pytest.param(encoded(picture(), exif=orientation(6)), id="exif-6"),
        pytest.param(encoded(picture(), exif=orientation(3)), id="exif-3"),
        pytest.param(encoded(picture()) + b"trailing bytes", id="trailing"),
    ],
)
def test_decoding_is_pillows(data, fast, tmp_path, monkeypatch):
    if not fast:
        monkeypatch.setattr(
            transforms, "decode_image", None
        )  # a torchvision that no longer decodes
    (tmp_path / "named.jpg").write_bytes(data)  # whatever it is
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    image = decode(data, "named.jpg")
    assert image.dtype == torch.uint8
    assert image.shape == (3, *expected.shape[:2])
    assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 2
    assert read_image(tmp_path / "named.jpg", 16).shape == (3, 16, 16)


def test_a_file_without_compression_is_its_pixels():
    image = torch.from_numpy(np.array(picture(24, 24))).permute(2, 0, 1)
    assert torch.equal(decode(encode_pixmap(image), "x.jpg"), image)
    assert len(encode_pixmap(image)) == pixmap_bytes(24)
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(encode_pixmap(image)))), np.array(picture(24, 24))
    )


def test_sixteen_bit_png_is_brought_to_bytes():
    data = encoded(Image.fromarray(np.array([[0, 256, 40_000, 65_535]], np.uint16)), "PNG")
    image = decode(data, "x.png")
    assert image.dtype == torch.uint8
    assert image.tolist() == [[[0, 1, 156, 255]]] * 3


WHOLE = encoded(Image.effect_noise((64, 64), 90).convert("RGB"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"bad.jpg' is empty \(0 bytes\)"),
        (b"GIF89a, not really", r"bad.jpg' \(18 bytes\) cannot be decoded"),
        (b"<html>404</html>", r"cannot be decoded: no known image format"),
        (WHOLE[:20], r"cannot be decoded"),
        (encode_pixmap(torch.zeros(3, 64, 64, dtype=torch.uint8))[:-1], r"cannot be decoded"),
        (WHOLE[: len(WHOLE) // 2], r"cannot be decoded: .*truncated"),
        (WHOLE[:-40], r"cannot be decoded: .*truncated"),
        (WHOLE[:-2], r"cannot be decoded: .*truncated"),
        (encoded(picture(), "PNG")[:80], r"cannot be decoded"),
    ],
)
def test_damaged_files_are_named(data, message, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        read_image(tmp_path / "bad.jpg", 32)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none.jpg' cannot be read: No such file"):
        read_image(tmp_path / "none.jpg", 32)
    with pytest.raises(UserError, match=r"cannot be read: Is a directory"):
        read_image(tmp_path, 32)


def test_resizing_is_pillows_bilinear():
    image = torch.from_numpy(np.array(picture(100, 60))).permute(2, 0, 1)
    expected = np.asarray(picture(100, 60).resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(resize(image, 32).permute(1, 2, 0).numpy() - expected).max() <= 1


@pytest.mark.parametrize("normalisation", [IMAGENET, Normalisation((0.5, 0.4, 0.3), (0.5, 1, 2))])
def test_normalisation(normalisation):
    image = torch.arange(3 * 4 * 4, dtype=torch.uint8).view(3, 4, 4)
    mean, std = (torch.tensor(values).double().view(3, 1, 1) for values in normalisation)
    expected, found = (image.double() / 255 - mean) / std, to_input(image, normalisation)
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-6)
    assert torch.equal(to_input(image[None], normalisation)[0], found)  # a batch is its images
