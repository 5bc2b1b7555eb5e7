"""Damage in one image file, and what looks like damage."""

from __future__ import annotations

import io
import os
import re
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sadcl.data.audit import image_file, jpeg_scans
from sadcl.errors import UserError
from tests.data.audit.copies import picture


@pytest.mark.parametrize(
    "quality", [{}, {"progressive": True}, {"mode": "L"}, {"format": "PNG"}, {"format": "WEBP"}]
)
@pytest.mark.parametrize("cut", [-2, -200, 400])
def test_files_that_were_cut_short(tmp_path, quality, cut):
    """What a look takes for whole, training can decode, and the other way round."""
    whole = picture(1, size=(200, 120), **quality)
    path = tmp_path / "a.jpg"
    path.write_bytes(whole)
    assert "corrupt" not in dict(image_file.inspect_file(str(path)).remarks)
    path.write_bytes(whole[:cut])
    remarks = dict(image_file.inspect_file(str(path)).remarks)
    try:
        image_file.decode(whole[:cut], "a.jpg")
    except UserError:
        assert "a.jpg" in remarks["corrupt"]
    else:
        assert "corrupt" not in remarks
    if cut == 400:
        assert "corrupt" in remarks


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"mode": "L"}])
def test_a_hole_in_a_file_that_decodes_all_the_same(tmp_path, options):
    exif = Image.Exif()
    exif[0x927C] = bytes(4000)  # a camera's own notes
    whole = picture(1, size=(400, 300), exif=exif, **options)
    path = tmp_path / "a.jpg"
    path.write_bytes(whole + bytes(4000))
    assert not {"hole", "corrupt"} & dict(image_file.inspect_file(str(path)).remarks).keys()
    start = len(whole) - 9000
    path.write_bytes(whole[:start] + bytes(4096) + whole[start + 4096 :])
    remarks = dict(image_file.inspect_file(str(path)).remarks)
    assert remarks["hole"].startswith("from byte")
    assert "corrupt" not in remarks


def test_a_progressive_file_with_a_plain_background_has_no_hole(tmp_path):
    """Its later scans have runs of zero bytes."""
    image = Image.new("RGB", (1200, 900), "white")
    image.paste(Image.open(io.BytesIO(photograph())), (400, 300))
    image.save(tmp_path / "a.jpg", progressive=True)
    content = (tmp_path / "a.jpg").read_bytes()
    assert bytes(image_file.HOLE_BYTES // 4) in content
    assert not image_file.inspect_file(str(tmp_path / "a.jpg")).remarks


def photograph(size=(320, 240), **options):
    """A smooth picture with some noise, as a photograph is coded."""
    y, x = np.mgrid[: size[1], : size[0]]
    smooth = np.stack([x * 0.6, y * 0.9, (x + y) * 0.4], axis=-1)
    noise = np.random.default_rng(0).normal(0, 6, smooth.shape)
    image = Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))
    image.save(sink := io.BytesIO(), "JPEG", quality=90, **options)
    return sink.getvalue()


def remarks_of(tmp_path, *contents):
    paths = [tmp_path / f"{i}.jpg" for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return [dict(found.remarks) for found in image_file.inspect_files(list(map(str, paths)))]


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_half_a_file_with_an_end_mark_is_no_picture(tmp_path, options, capfd):
    """The decoder complains, without a name; which file it is is found all the same."""
    whole = photograph(**options)
    cut = whole[: len(whole) // 2] + b"\xff\xd9"
    garbled = bytearray(whole)
    garbled[len(whole) // 2 : len(whole) // 2 + 900] = whole[700:1600]
    right, half, mixed, also_right = remarks_of(tmp_path, whole, cut, bytes(garbled), whole)
    assert not right
    assert not also_right
    assert "Corrupt JPEG data" in half["damaged"]
    assert "Corrupt JPEG data" in mixed["damaged"]
    if not options:
        assert re.fullmatch(r"the lower [45]\d%", half["flat"])
    os.write(2, b"and what others say is heard")
    assert capfd.readouterr().err == "and what others say is heard"


@settings(max_examples=20, deadline=None)
@given(share=st.floats(0.1, 0.9), quality=st.sampled_from([{}, {"progressive": True}]))
def test_wherever_a_file_is_cut_and_closed(share, quality):
    whole = photograph((160, 120), **quality)
    start = 700  # behind tables, where the picture begins
    cut = whole[: start + int(share * (len(whole) - start))] + b"\xff\xd9"
    with tempfile.TemporaryDirectory() as folder:
        (remarks,) = remarks_of(Path(folder), cut)
    assert remarks.keys() & {"damaged", "corrupt"}


def scans_of(data):
    """Where each scan of a JPEG file, with its tables, ends."""
    ends, at = [], 2
    while (match := re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]").search(data, at)) is not None:
        at = match.end()
        if match[0] in (b"\xff\xda", b"\xff\xd9", b"\xff\xc4"):
            ends.append((match[0], match.start()))
        if match[0] != b"\xff\xd9":
            at += int.from_bytes(data[at : at + 2])
    first = next(i for i, (kind, _) in enumerate(ends) if kind == b"\xff\xda")
    return [start for _, start in ends[first + 1 :]]


@settings(max_examples=12, deadline=None)
@given(st.data(), st.sampled_from(["RGB", "L", "CMYK"]))
def test_a_file_that_ends_between_two_scans_is_not_whole(data, mode):
    """No decoder complains, because every scan that there is is right."""
    with Image.open(io.BytesIO(photograph((96, 64)))) as image:
        image.convert(mode).save(sink := io.BytesIO(), "JPEG", progressive=True)
    whole = sink.getvalue()
    cut = whole[: data.draw(st.sampled_from(scans_of(whole)[:-1]))] + b"\xff\xd9"
    assert dict(jpeg_scans.missing_scans(cut))["damaged"].startswith("scans of")
    assert not dict(jpeg_scans.missing_scans(whole))
    assert not dict(jpeg_scans.missing_scans(photograph((96, 64))))


@given(st.binary(max_size=60), st.integers(0, 2000))
@settings(max_examples=50, deadline=None)
def test_no_bytes_break_the_reading_of_scans(junk, place):
    whole = photograph((48, 32), progressive=True)
    list(jpeg_scans.missing_scans(whole[:place] + junk + whole[place + len(junk) :]))


def saved(kind, image, **options):
    image.save(sink := io.BytesIO(), kind, **options)
    return sink.getvalue()


def test_what_a_decoder_passes_over_is_remarked_on(tmp_path):
    with Image.open(io.BytesIO(photograph())) as image:
        image.load()
    several = {"save_all": True, "append_images": [image.rotate(90)]}
    clear = image.convert("RGBA")
    clear.putalpha(image.convert("L"))
    dim = image.point(lambda value: value // 16)  # 12 of 16 bits
    even = image.point(lambda value: 100 + value // 64)
    bitmap, webp = saved("BMP", image), saved("WEBP", image)
    holes = [one[: len(one) // 2] + bytes(len(one) - len(one) // 2) for one in (bitmap, webp)]
    contents = [
        *(saved(kind, image, **several) for kind in ("GIF", "WEBP", "PNG", "TIFF")),
        *(saved("PNG", one) for one in (clear, dim, even)),
        *holes,
        *(bitmap, webp, saved("PNG", image), saved("PNG", image.convert("RGBA"))),
    ]
    remarks = remarks_of(tmp_path, *contents)
    assert [one.get("frames") for one in remarks[:4]] == 4 * ["the first of 2"]
    assert remarks[4]["transparent"] == "the colours behind it are read"
    assert remarks[5]["range"] == "no value above 14 of 255: nearly black as it is read"
    assert remarks[6]["range"].endswith("of 255: nearly one colour")
    assert remarks[7]["flat"] == "the upper 50%"
    assert "hole" in remarks[8]
    notes = {"misnamed"}  # they are all called .jpg
    assert all(one.keys() <= notes for one in remarks[9:])


def test_one_colour_below_is_remarked_on_but_a_frame_is_not(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (100, 80, 3), dtype=np.uint8)
    below, framed, blank = pixels.copy(), pixels.copy(), np.full_like(pixels, 7)
    below[60:], framed[70:], framed[:20] = 128, 0, 0
    contents = []
    for array in (pixels, below, framed, blank):
        Image.fromarray(array).save(sink := io.BytesIO(), "PNG")
        contents.append(sink.getvalue())
    flat = [found.get("flat") for found in remarks_of(tmp_path, *contents)]
    assert flat == [None, "the lower 40%", None, "the whole picture"]


@pytest.mark.parametrize(
    ("values", "detail"),
    [
        (np.linspace(0, 4095, 600).astype(np.uint16), "no value above 4,095 of 65,535"),
        (np.linspace(0, 1, 600).astype(np.float32), "no value above 1 of 255"),
        (np.linspace(-4, 300, 600).astype(np.float32), "values from -4 to 300"),
        (np.full(600, np.nan, np.float32), "600 values are NaN"),
        (np.linspace(0, 1_000_000, 600).astype(np.int32), r"values from 0 to 1e\+06"),
        (np.linspace(0, 65_535, 600).astype(np.uint16), None),
        (np.linspace(0, 255, 600).astype(np.float32), None),
    ],
)
def test_numbers_that_come_out_black_or_clipped(tmp_path, values, detail):
    path = tmp_path / "a.tiff"
    Image.fromarray(values.reshape(20, 30)).save(path)
    remarks = dict(image_file.inspect_file(str(path)).remarks)
    assert re.match(detail, remarks["range"]) if detail else "range" not in remarks


def test_a_file_with_too_many_pixels_is_an_error(tmp_path):
    Image.new("1", (300, 200)).save(tmp_path / "a.png")
    remarks = dict(image_file.inspect_file(str(tmp_path / "a.png"), 59_999).remarks)
    assert remarks.keys() == {"large"}
    assert "300 x 200 pixels exceed 59,999" in remarks["large"]


def test_what_follows_a_picture_is_no_hole_in_it(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(picture(1) + bytes(4096) + picture(2))
    assert "hole" not in dict(image_file.inspect_file(str(path)).remarks)


def test_lab_has_colours(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(picture(1, "TIFF", mode="RGB"))
    image = Image.open(path).convert("RGB")
    from PIL import ImageCms

    lab = ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    lab.save(path, "TIFF")
    assert Image.open(path).mode == "LAB"
    assert "grayscale" not in dict(image_file.inspect_file(str(path)).remarks)


def test_an_inspection_that_is_stopped_leaves_the_remaining_files(monkeypatch):
    seen = []

    def slow(path, max_pixels):
        seen.append(path)
        time.sleep(0.01)
        return image_file.ImageFile(b"", ())

    monkeypatch.setattr(image_file, "inspect_file", slow)
    some = image_file.inspect_files([str(i) for i in range(5000)])
    next(some)
    some.close()
    assert len(seen) < 500
