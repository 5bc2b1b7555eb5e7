"""Damage in one image file, and what looks like damage."""

from __future__ import annotations

import time

import pytest
from PIL import Image

from sadcl.data.audit import image_file
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

    def slow(path):
        seen.append(path)
        time.sleep(0.01)
        return image_file.ImageFile(b"", ())

    monkeypatch.setattr(image_file, "inspect_file", slow)
    some = image_file.inspect_files([str(i) for i in range(5000)])
    next(some)
    some.close()
    assert len(seen) < 500
