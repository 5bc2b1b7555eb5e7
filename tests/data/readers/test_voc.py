"""PASCAL VOC: difficult objects, annotations that are wrong, and the two ways to test 2012."""

from __future__ import annotations

import numpy as np
import pytest

from sadcl.config import Data
from sadcl.data import load
from sadcl.data.prepare import prepare
from sadcl.data.readers import voc
from tests.data.readers.layouts import (
    objects_xml,
    put,
    refused,
    table,
)


@pytest.mark.parametrize(("policy", "value"), [("negative", 0), ("ignore", -1), ("positive", 1)])
def test_voc_difficult_objects(layout_copy, policy, value):
    root, read = layout_copy("voc2007")
    things = [("cat", 1), ("dog", 1), ("dog", 0), ("bus", 0), ("bus", 1), ("cow", None)]
    xml = objects_xml("VOC2007", things).replace(
        "<name>bus", "<part>\n<name>head</name>\n</part>\n<name>bus", 1
    )
    put(root / "VOCdevkit/VOC2007/Annotations/000002.xml", xml)
    images = read(difficult=policy).train
    found = dict(zip(images.labels, images.targets[2].tolist(), strict=True))
    assert {name: target for name, target in found.items() if target} == {
        name: target
        for name, target in {"cat": value, "dog": 1, "bus": 1, "cow": 1}.items()
        if target
    }
    # an image of which something may be known is not one without a label
    assert len(read(difficult=policy, unlabelled="drop").train) == 8


def test_voc_2012_is_tested_on_val_or_by_the_server(layout_copy):
    root, read = layout_copy("voc2012")
    home = root / "VOCdevkit/VOC2012"
    refused(read, r"trainval.txt' cannot be read: No such file", voc2012_test="server")
    table(home / "ImageSets/Main/trainval.txt", ["000000", "000001", "000500"])
    table(home / "ImageSets/Main/test.txt", ["000900", "000901"])
    for name in ("000900", "000901"):
        put(home / f"JPEGImages/{name}.jpg")
    put(
        home / "Annotations/000900.xml", objects_xml("VOC2012", [("person", 0)])
    )  # of the layout task: not all objects
    one, other = read(), read(voc2012_test="server")
    assert (len(one.train), len(one.test), one.evaluable) == (8, 4, True)
    assert (len(other.train), len(other.test), other.evaluable) == (3, 2, False)
    assert (other.test.targets == -1).all()
    assert len(read(voc2012_test="server", unlabelled="drop").test) == 2


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        (
            "Annotations/000001.xml",
            objects_xml("VOC2007", [("kat", 0)]),
            r"000001.xml' has an object of class 'kat'",
        ),
        (
            "Annotations/000001.xml",
            objects_xml("VOC2007", [("cat", 2)]),
            r"000001.xml' has a cat with difficult = '2'",
        ),
        (
            "Annotations/000001.xml",
            objects_xml("VOC2012", []),
            r"000001.xml' belongs to VOC2012, but data.name = 'voc2007'",
        ),
        (
            "Annotations/000001.xml",
            "<html><body/></html>",
            r"000001.xml' is no annotation of VOC: .* found <html>",
        ),
        (
            "Annotations/000001.xml",
            objects_xml("VOC2007", [("cat", 0), ("dog", 0)]).replace("object>", "Object>", 2),
            r"found <annotation> with 1 <object> and <Object>",
        ),
        (
            "Annotations/000001.xml",
            objects_xml("VOC2007", [("cat", 0)]).replace(
                "<name>cat", "<name>dog</name>\n<name>cat"
            ),
            r"has an object with 2 names",
        ),
        (
            "Annotations/000001.xml",
            objects_xml("VOC2007", [("cat", 0)], "000002.jpg"),
            r"000001.xml' is the annotation of another image, '000002.jpg'",
        ),
        (
            "Annotations/000001.xml",
            '<?xml version="1.0" encoding="utf-32"?>' + objects_xml("VOC2007", [("cat", 0)]),
            r"000001.xml' is not valid XML",
        ),
        (
            "Annotations/000001.xml",
            '<?xml version="1.0" encoding="klingon"?>' + objects_xml("VOC2007", [("cat", 0)]),
            r"000001.xml' is not valid XML",
        ),
        (
            "ImageSets/Main/test.txt",
            "000500\n000501\n000500\n",
            r"test.txt' lists '000500' twice, in lines 1 and 3",
        ),
        (
            "ImageSets/Main/test.txt",
            "000500\n\n000003\n",
            r"1 images are in trainval.txt and in test.txt .* '000003.jpg'",
        ),
        (
            "ImageSets/Main/test.txt",
            "000500\n000777\n",
            r"test.txt lists '000777', but .*000777.xml' cannot be read",
        ),
    ],
)
def test_voc_copies_that_are_wrong(layout_copy, path, content, message):
    root, read = layout_copy("voc2007")
    put(root / "VOCdevkit/VOC2007" / path, content)
    refused(read, message)


def test_the_names_of_an_annotation_may_differ_in_letter_case(layout_copy):
    root, read = layout_copy("voc2007")
    xml = objects_xml("VOC2007", [("cat", 0)], "A.JPG")
    put(root / "VOCdevkit/VOC2007/Annotations/a.xml", xml)
    put(root / "VOCdevkit/VOC2007/JPEGImages/a.jpg")
    table(root / "VOCdevkit/VOC2007/ImageSets/Main/test.txt", ["a"])
    assert read().test.targets.sum() == 1


def test_voc_2007_is_not_what_the_server_of_2012_takes(layout_copy):
    root, _ = layout_copy("voc2007-itself")
    refused(
        lambda: voc.server_images(root), r"test.txt lists in .* are VOC 2007's, first '000500.jpg'"
    )


def in_folders(root):
    """Move images and annotations of a copy into a folder that its lists name, as tools do."""
    home = root / "VOCdevkit/VOC2007"
    for path in [*home.glob("Annotations/*.xml"), *home.glob("JPEGImages/*.jpg")]:
        put(path.parent / "task1" / path.name, path.read_bytes())
        path.unlink()
    for part in ("trainval", "test"):
        path = home / f"ImageSets/Main/{part}.txt"
        table(path, [f"task1/{name}" for name in path.read_text().split()])
    return home


def test_a_corrected_annotation_in_a_folder_of_its_own_is_seen(layout_copy):
    root, read = layout_copy("voc2007")
    home = in_folders(root)
    before = read().train.targets.copy()
    put(home / "Annotations/task1/000000.xml", objects_xml("VOC2007", [("bus", 0)], "000000.jpg"))
    changed = read().train.targets
    assert np.flatnonzero(changed[0]).tolist() == [voc.LABELS.index("bus")]
    assert (changed[1:] == before[1:]).all()


def test_a_prepared_copy_has_annotations_in_folders(layout_copy, tmp_path):
    root, read = layout_copy("voc2007")
    in_folders(root)
    prepare(Data(name="voc2007"), str(root), tmp_path / "prepared", 32)
    copy = load(Data(name="voc2007", prepared=32, holdout=0.0), tmp_path / "prepared")
    assert copy.digest == read(difficult="ignore").digest


@pytest.mark.parametrize("ending", [".png", ".jpeg", ".webp", ".JPG"])
def test_images_that_are_no_jpg(layout_copy, ending):
    root, read = layout_copy("voc2007")
    before = read()
    for path in (root / "VOCdevkit/VOC2007/JPEGImages").iterdir():
        path.rename(path.with_suffix(ending))
    after = read()
    assert (after.train.targets == before.train.targets).all()
    assert after.train.files.to_pylist()[0] == f"000000{ending}"
    rows = list(voc.flat_boxes(root, Data(name="voc2007"), (after.train, after.test)))
    assert rows == list(voc.flat_boxes(root, Data(name="voc2007"), (before.train, before.test)))


@pytest.mark.parametrize(
    "filename",
    [
        "cam1.{}",
        "cam1.{}.jpg",
        "C:\\data\\cam1.{}.JPG",
        "JPEGImages/cam1.{}.png",
        "/home/x/CAM1.{}",
    ],
)
def test_names_with_dots_and_file_names_as_tools_write_them(layout_copy, filename):
    root, read = layout_copy("voc2007")
    before = read()
    home = root / "VOCdevkit/VOC2007"
    for path in [*home.glob("Annotations/*.xml"), *home.glob("JPEGImages/*.jpg")]:
        if path.suffix == ".xml":
            name = filename.format(path.stem)
            path.write_text(path.read_text().replace(f">{path.stem}.jpg<", f">{name}<"))
        path.rename(path.with_name(f"cam1.{path.name}"))
    for part in ("trainval", "test"):
        path = home / f"ImageSets/Main/{part}.txt"
        table(path, [f"cam1.{name}" for name in path.read_text().split()])
    after = read()
    assert (after.train.targets == before.train.targets).all()
    assert after.train.files.to_pylist()[0] == "cam1.000000.jpg"
    data_boxes = after.boxes(after.test)
    assert len(data_boxes.image_K) == len(before.boxes(before.test).image_K)


def test_an_annotation_without_objects_has_no_label(layout_copy):
    root, read = layout_copy("voc2007")
    before = len(read(unlabelled="drop").train)
    put(root / "VOCdevkit/VOC2007/Annotations/000001.xml", objects_xml("VOC2007", [], "000001.jpg"))
    assert not read().train.targets[1].any()
    assert len(read(unlabelled="drop").train) == before - 1


def test_entities_of_ones_own_are_refused(layout_copy):
    """They may contain one another, until a file of a kilobyte takes all memory."""
    root, read = layout_copy("voc2007")
    bomb = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'
    path = root / "VOCdevkit/VOC2007/Annotations/000001.xml"
    put(path, bomb + path.read_text())
    refused(read, "000001.xml' declares the entity 'a', which annotations do not need")


def test_lists_with_folders_that_windows_wrote(layout_copy):
    root, read = layout_copy("voc2007")
    before, home = read().train, root / "VOCdevkit/VOC2007"
    path = home / "ImageSets/Main/trainval.txt"
    for kind, ending in (("Annotations", "xml"), ("JPEGImages", "jpg")):
        (home / kind / "task").mkdir()
        for name in path.read_text().split():
            (home / kind / f"{name}.{ending}").rename(home / kind / f"task/{name}.{ending}")
    path.write_text("".join(f"task\\{name}\n" for name in path.read_text().split()))
    train = read().train
    assert train.files.to_pylist() == [f"task/{name}" for name in before.files.to_pylist()]
    assert train.targets.tolist() == before.targets.tolist()
