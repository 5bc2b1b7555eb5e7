"""Image files are checked before training: damaged ones are counted, and the first is named."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from sadcl.data import image_check
from sadcl.data.base import ImageSet
from sadcl.errors import UserError


@pytest.fixture
def folder(tmp_path):
    for i in range(6):
        Image.effect_noise((40, 40), 60 + i).convert("RGB").save(tmp_path / f"{i}.jpg", quality=90)
    Image.new("RGB", (8, 8)).save(tmp_path / "6.jpg", "PNG")  # not a JPEG, but an image
    (tmp_path / "7.jpg").write_bytes((tmp_path / "0.jpg").read_bytes() + b"trailing")
    names = [f"{i}.jpg" for i in range(8)]
    return tmp_path, ImageSet(
        "x", str(tmp_path), pa.array(names), np.zeros((8, 1), np.int8), ("a",)
    )


def test_whole_files_pass_and_progress_is_told(folder):
    seen = []
    image_check.check_files(
        [folder[1], folder[1]], progress=lambda done, of: seen.append((done, of))
    )
    assert seen[-1] == (16, 16)


def test_files_that_look_whole_are_not_decoded(folder, monkeypatch):
    decoded = []
    monkeypatch.setattr(image_check, "decode", lambda data, name, _: decoded.append(name[-5:]))
    image_check.check_files([folder[1]])
    assert sorted(decoded) == ["6.jpg", "7.jpg"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-200]), r"cannot be decoded: .*truncated"),
        (lambda p: p.write_bytes(b""), r"is empty \(0 bytes\)"),
        (lambda p: p.write_bytes(b"<html>404</html>"), r"no known image format"),
        (lambda p: p.unlink(), r"cannot be read: No such file"),
        (lambda p: p.write_bytes(b"\xff\xd8\xff\xd9"), r"cannot be decoded"),
    ],
)
def test_damaged_files_are_counted_and_the_first_is_named(folder, damage, message):
    for name in ("2.jpg", "4.jpg"):
        damage(folder[0] / name)
    with pytest.raises(UserError, match=message) as caught:
        image_check.check_files([folder[1]])
    assert str(caught.value).startswith("2 of 8 image files cannot be used. The first: The image '")
    assert "2.jpg" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_with_too_many_pixels_is_found_before_anything_trains(folder):
    """Its header is read alone: 20,000 x 20,000 pixels of one colour would take 1.2 GB."""
    path = folder[0] / "3.jpg"
    Image.new("L", (4000, 3000), 99).save(path)
    image_check.check_files([folder[1]])
    small = replace(folder[1], max_pixels=10_000_000)
    with pytest.raises(
        UserError, match=r"3.jpg' is too large \(4,000 x 3,000 pixels exceed 10,000"
    ):
        image_check.check_files([small])
    content = bytearray(path.read_bytes())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", 20_000, 20_000)
    path.write_bytes(content + bytes(2_400_000) + b"\xff\xd9")
    with pytest.raises(UserError, match=r"3.jpg' is too large .* raise data.max_pixels"):
        image_check.check_files([folder[1]])
