"""The findings of a copy: damage of each kind is found and named, and nothing else is."""

from __future__ import annotations

import functools
import json

import pytest
from PIL import Image

from sadcl.config import Data
from sadcl.data.audit import findings
from sadcl.data.audit.findings import KINDS, audit_copy
from sadcl.data.load import load
from sadcl.data.readers import vg500
from tests.data.audit.copies import found, kinds, picture, write_copy
from tests.data.readers.layouts import BY_NAME, TEST, TRAIN, objects_xml, put


@pytest.fixture(autouse=True)
def three_categories(monkeypatch):
    monkeypatch.setattr(vg500, "CATEGORIES", 3)


@pytest.fixture
def copy(tmp_path):
    """Writes a copy (:func:`write_copy`) into the test's folder."""
    return functools.partial(write_copy, tmp_path)


@pytest.fixture(autouse=True)
def few_images_are_enough(monkeypatch):
    monkeypatch.setattr(findings, "MIN_IMAGES", 1)


@pytest.mark.parametrize("name", BY_NAME)
def test_every_layout_is_checked_and_right_copies_have_no_findings_of_damage(copy, name):
    config, root, _ = copy(name)
    result = audit_copy(config, root)
    assert kinds(result) <= {"count", "absent", "unlabelled", "frequency"}
    assert result.opened == len(TRAIN) + len(TEST)
    assert [row[:2] for row in found(result, "unlabelled")] == [
        ("train", BY_NAME[name].files[0](2).rsplit("/", 1)[-1]),
        ("test", BY_NAME[name].files[1](2).rsplit("/", 1)[-1]),
    ]
    counted = {
        (row.split, row.label): row.number for row in result.findings if row.kind == "frequency"
    }
    labels = BY_NAME[name].labels
    for part, split in (("train", TRAIN), ("test", TEST)):
        for column, label in enumerate(labels):
            assert counted[part, label] == sum(column in shown for shown in split)
    assert result.right == (
        name.startswith("folder") or name in ("nuswide-lists", "nuswide-all", "nuswide-csv")
    )


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "unreadable": lambda path: (path.unlink(), path.mkdir()),
    "missing": lambda path: path.unlink(),
    "grayscale": lambda path: path.write_bytes(picture(99, mode="L")),
    "CMYK": lambda path: path.write_bytes(picture(99, mode="CMYK")),
    "misnamed": lambda path: path.write_bytes(picture(99, "PNG")),
    "rotated": lambda path: path.write_bytes(picture(99, exif=_turned(6))),
    "duplicate": lambda path: path.write_bytes(path.with_name("1.jpg").read_bytes()),
    "leak": lambda path: path.write_bytes((path.parent / "more/1.jpg").read_bytes()),
}


def _turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("kind", DAMAGE)
def test_one_file_of_each_kind(copy, kind):
    config, root, _ = copy("folder-csv")
    DAMAGE[kind](root / "photos/5.jpg")
    result = audit_copy(config, root)
    severity = KINDS[kind][0]
    assert kinds(result) == {"unlabelled", "frequency", kind}
    (row,) = [row for row in result.findings if row.kind == kind]
    assert row.severity == severity
    file = ("test", "photos/more/1.jpg") if kind == "leak" else ("train", "photos/5.jpg")
    assert (row.split, row.file) == file
    assert result.right == (severity != "error")
    assert (kind in kinds(audit_copy(config, root, fast=True))) == (kind == "missing")


def test_what_is_no_image_is_corrupt(copy):
    config, root, _ = copy("folder-csv")
    put(root / "photos/3.jpg", "<html>404</html>")
    put(root / "photos/more/2.jpg", "<html>404</html>")  # the same page in place of a test image
    result = audit_copy(config, root)
    assert [(s, f) for s, f, _, _ in found(result, "corrupt")] == [
        ("train", "3.jpg"),
        ("test", "2.jpg"),
    ]
    assert "no known image format" in found(result, "corrupt")[0][3]
    assert [(s, f) for s, f, _, _ in found(result, "leak")] == [("test", "2.jpg")]


def test_twins_say_whose_and_whether_their_labels_agree(copy):
    config, root, paths = copy("coco14")
    for path, other in (
        (paths[0][5], paths[0][0]),
        (paths[0][6], paths[0][0]),
        (paths[1][3], paths[0][0]),
    ):
        put(root / path, (root / other).read_bytes())
    result = audit_copy(config, root)
    twin = "same bytes as COCO_train2014_000000000000.jpg"
    assert found(result, "duplicate") == [
        ("train", "COCO_train2014_000000000005.jpg", "", twin),
        ("train", "COCO_train2014_000000000006.jpg", "", f"{twin}, but other labels"),
    ]
    assert found(result, "leak") == [("test", "COCO_val2014_000000000003.jpg", "", twin)]


def test_a_copy_without_some_images_by_policy(copy):
    config, root, paths = copy("nuswide-lists")
    for path in (paths[0][1], paths[1][0]):
        (root / path).unlink()
    strict, dropping = (
        audit_copy(config, root),
        audit_copy(config.model_copy(update={"missing": "drop"}), root),
    )
    assert not strict.right
    assert dropping.right
    assert (
        [row[0] for row in found(strict, "missing")]
        == [row[0] for row in found(dropping, "missing")]
        == ["train", "test"]
    )
    assert load(config.model_copy(update={"missing": "drop"}), root).missing == 2


def test_coco_boxes_without_area(copy):
    config, root, _ = copy("coco14")
    path = root / "annotations/instances_val2014.json"
    content = json.loads(path.read_text())
    for annotation, box in zip(
        content["annotations"], ([1, 2, 3, 4], [1, 2, 0, 4], [1, 2, 3]), strict=False
    ):
        annotation["bbox"] = box
    path.write_text(json.dumps(content))
    assert found(audit_copy(config, root), "box") == [
        ("test", "COCO_val2014_000000000000.jpg", "cat", "bbox [1, 2, 0, 4]"),
        ("test", "COCO_val2014_000000000001.jpg", "cow", "bbox [1, 2, 3]"),
    ]


def test_voc_boxes_without_area_and_difficult_objects(copy):
    config, root, _ = copy("voc2007")
    xml = objects_xml("VOC2007", [("cat", 0), ("dog", 0), ("bus", 1)])
    for right in ("5.5", "1", "?"):
        xml = xml.replace("<xmax>5</xmax>", f"<xmax>{right}</xmax>", 1)
    put(root / "VOCdevkit/VOC2007/Annotations/000001.xml", xml)
    result = audit_copy(config.model_copy(update={"difficult": "ignore"}), root)
    corners = [
        ("train", "000001.jpg", "dog", "corners 1, 2, 1, 9"),
        ("train", "000001.jpg", "bus", "corners 1, 2, ?, 9"),
    ]
    assert found(result, "box") == corners
    assert ("train", "000001.jpg", "bus", "") in found(result, "ignored")


def test_visual_genome_objects_without_area(copy):
    config, root, _ = copy("vg500-objects")
    path = root / "objects.json"
    content = json.loads(path.read_text())
    content[0]["objects"][0]["w"] = 0
    path.write_text(json.dumps(content))
    assert found(audit_copy(config, root), "box") == [
        ("train", "1.jpg", " Man", "x 0, y 3, w 0, h 1")
    ]


def test_a_split_whose_labels_are_with_the_server(copy):
    _, root, _ = copy("voc2012")
    home = root / "VOCdevkit/VOC2012"
    for part, names in (("trainval", ["000000", "000001"]), ("test", ["000500"])):
        put(home / f"ImageSets/Main/{part}.txt", "\n".join(names))
    result = audit_copy(Data(name="voc2012", voc2012_test="server"), root)
    assert found(result, "ignored") == [("test", "", "", "no label of this split is known")]
    assert not any(
        row.split == "test" and row.kind in ("absent", "frequency") for row in result.findings
    )


def test_labels_that_nothing_shows(copy):
    config, root, _ = copy("folder-csv", [*TRAIN[:-1], {0}], [{0}, {1}])
    assert found(audit_copy(config, root), "absent") == [
        ("test", "", "cat", "it has no AP, and is left out of mAP")
    ]


def test_labels_that_look_like_several(copy):
    config, root, _ = copy("folder-csv")
    (root / "labels.txt").unlink()
    put(
        root / "labels.csv",
        "file,labels,split\nphotos/0.jpg,\"['ant'; 'bee']\",train\nphotos/1.jpg,\"ant,bee\",test\n",
    )
    result = audit_copy(config, root)
    assert [row[2] for row in found(result, "label")] == ["'bee']", "['ant'", "ant,bee"]
    assert result.right
