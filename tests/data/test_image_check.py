"""Image files are checked before training: damaged ones are counted, and the first is named."""

from __future__ import annotations

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
    monkeypatch.setattr(image_check, "decode", lambda data, name: decoded.append(name[-5:]))
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
