"""VOC's XML as LabelImg and CVAT write it."""

from __future__ import annotations

from sadcl.data.convert import convert
from tests.data.convert import exports
from tests.data.convert.exports import IMAGES, read
from tests.data.readers.layouts import put


def test_an_annotation_may_have_attributes(tmp_path):
    exports.roboflow_voc(tmp_path / "export", IMAGES)
    for path in (tmp_path / "export").rglob("*.xml"):
        put(path, path.read_text().replace("<annotation>", '<annotation verified="yes">'))
    done = convert(tmp_path / "export", tmp_path / "out")
    assert (done.kind, done.train, done.test) == ("voc", 3, 2)


def test_lists_may_have_any_word_of_a_split(tmp_path):
    exports.devkit(tmp_path / "export", IMAGES)
    lists = tmp_path / "export/VOC2007/ImageSets/Main"
    (lists / "trainval.txt").rename(lists / "Train.txt")
    (lists / "test.txt").rename(lists / "Validation.txt")
    put(lists / "dog_Train.txt", "d\n")  # of one class, which is no split
    done = convert(tmp_path / "export", tmp_path / "out")
    assert read(tmp_path / "out") == {one.name: (one.split, set(one.labels)) for one in IMAGES}
    assert done.remarks["images of 'val', which test here"] == 2
