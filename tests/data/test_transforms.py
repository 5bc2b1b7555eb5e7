"""From a file to the network's input; Pillow is the reference for decoding."""

import contextlib
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from sadcl.data import transforms
from sadcl.data.augment import resize
from sadcl.data.image_header import read_header
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


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "MPO", "AVIF"])
@pytest.mark.parametrize("value", range(1, 9))
def test_every_format_is_turned_upright(kind, value):
    """As Pillow turns it, whichever library decodes; the check says the same."""
    if kind not in {*Image.registered_extensions().values(), "MPO"}:
        pytest.skip(f"this Pillow does not write {kind}")
    lossless = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}
    data = encoded(picture(), kind, exif=orientation(value), **lossless.get(kind, {}))
    with Image.open(io.BytesIO(data)) as opened:
        says = transforms.orientation_of(opened, data)
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB")).astype(int)
    pixels = decode(data, "a").permute(1, 2, 0).numpy()
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).max() <= 4
    assert says == value
    assert pixels.shape[0] == (40 if value >= 5 else 30)


def test_an_orientation_that_only_xmp_has_counts_in_every_format():
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert decode(encoded(picture(), "JPEG", xmp=xmp), "a").shape == (3, 40, 30)
    assert decode(encoded(picture(), "WEBP", xmp=xmp), "a").shape == (3, 40, 30)


@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    kind=st.sampled_from(["JPEG", "PNG", "WEBP"]),
    value=st.none() | st.integers(0, 9),
    in_xmp=st.none() | st.integers(1, 8),
    options=st.sampled_from([{}, {"lossless": True}, {"progressive": True}, {"mode": "RGBA"}]),
)
@settings(max_examples=40, deadline=None)
def test_a_header_says_what_pillow_says(size, kind, value, in_xmp, options):
    mode = options.get("mode", "RGB") if kind != "JPEG" else "RGB"
    more = {key: flag for key, flag in options.items() if key != "mode"}
    if value is not None:
        more["exif"] = orientation(value)
    if in_xmp is not None and kind != "PNG":
        more["xmp"] = b'<rdf:Description tiff:Orientation="%d"/>' % in_xmp
    data = encoded(Image.new(mode, size), kind, **more)
    header = read_header(data)
    with Image.open(io.BytesIO(data)) as opened:
        turn = opened.getexif().get(0x0112, 1)
        assert header.width * header.height == opened.width * opened.height
        assert header.orientation in (None, turn)
        assert transforms.orientation_of(opened, data) == (turn if turn in range(1, 9) else 1)


@given(
    st.binary(max_size=60), st.sampled_from([b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF1234WEBP"])
)
@settings(max_examples=60, deadline=None)
def test_no_bytes_break_the_reading_of_headers(data, start):
    read_header(start + data)


def test_damaged_exif_is_none():
    data = encoded(picture(), exif=b"Exif\0\0MM\0*\0\0\xff\xff" + bytes(40))
    assert decode(data, "a").shape == (3, 30, 40)


def test_a_png_whose_text_alone_is_damaged_is_read():
    data = encoded(picture(), "PNG")
    chunk = b"tEXtkey\0value"
    odd = data[:33] + struct.pack(">I", len(chunk) - 4) + chunk + b"\0\0\0\0" + data[33:]
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(io.BytesIO(odd))
    assert torch.equal(decode(odd, "a"), decode(data, "a"))
    with pytest.raises(UserError, match=r"too large \(40 x 30 pixels exceed 1,199\)"):
        decode(odd, "a", 1199)


def bomb(width, height):
    """A PNG of these pixels in a few bytes, whose data are missing."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(9))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


@given(st.integers(1, 2**31 - 1), st.integers(1, 2**31 - 1), st.none() | st.integers(1, 10**9))
@example(13_378, 13_377, None)
@example(60_000, 40_000, None)
@settings(max_examples=40, deadline=None)
def test_an_image_with_too_many_pixels_takes_no_memory(width, height, limit):
    assume(width * height > (limit or 2 * 89_478_485))
    with pytest.raises(UserError, match=r"'b.png' is too large \(.*data.max_pixels") as caught:
        decode(bomb(width, height), "b.png", limit)
    assert "\n" not in str(caught.value)


def test_the_limit_can_be_raised_and_lowered():
    data = encoded(Image.new("1", (500, 200)), "PNG")
    assert decode(data, "a", 100_000).shape == (3, 200, 500)
    with pytest.raises(UserError, match=r"500 x 200 pixels exceed 99,999"):
        decode(data, "a", 99_999)


def test_the_limit_is_raised_beyond_pillows(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    data = encoded(picture(60, 50), "PNG")
    with pytest.raises(UserError, match=r"too large"):
        decode(data, "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        assert decode(data, "a", 3000).shape == (3, 50, 60)


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


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_png_is_an_error_and_does_not_end_the_process(data):
    """torchvision's decoder ended it for a wrong checksum."""
    whole = encoded(picture(), "PNG")
    start = data.draw(st.integers(33, len(whole) - 1))
    patch = data.draw(st.binary(min_size=1, max_size=9))
    content = whole[:start] + patch + data.draw(st.sampled_from([b"", whole[start + len(patch) :]]))
    with contextlib.suppress(UserError):
        assert decode(content, "a.png").dtype == torch.uint8


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
