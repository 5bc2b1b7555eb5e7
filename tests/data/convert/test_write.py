"""Where the folder is written, and how errors name it."""

from __future__ import annotations

import pytest

from sadcl.data.convert import convert
from sadcl.errors import UserError
from tests.data.convert import exports
from tests.data.convert.exports import IMAGES, read
from tests.data.readers.layouts import put


def test_the_current_folder_is_filled(tmp_path, monkeypatch):
    exports.row_a_label(tmp_path / "export", IMAGES)
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path / "new")
    target = type(tmp_path)(".")
    convert(tmp_path / "export", target)
    assert read(target) == read(tmp_path / "new")  # the same folder still, not one in its place
    assert len(read(target)) == len(IMAGES)
    names = sorted(path.name for path in target.iterdir())
    assert names == ["images", "labels.csv", "labels.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "new"]


@pytest.mark.parametrize("exists", [False, True])
def test_errors_name_the_target(tmp_path, exists):
    put(tmp_path / "export/x\x07/a.jpg")
    put(tmp_path / "export/b.jpg")
    put(tmp_path / "export/t.csv", "file,label,split\na.jpg,dog,train\nb.jpg,dog,test\n")
    out = tmp_path / "it's \\ new"
    if exists:
        out.mkdir()
    with pytest.raises(UserError, match="has no train rows") as caught:
        convert(tmp_path / "export", out)
    assert repr(str(out / "labels.csv")) in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", *[out.name] * exists]
