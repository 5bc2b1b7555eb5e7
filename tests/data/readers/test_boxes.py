"""Boxes of the annotations, in the order of a set's images, also of a subset."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sadcl.config import Data
from sadcl.data.load import load
from sadcl.data.readers import coco, scenes, voc


def test_boxes_of_embedded_scenes_are_those_that_were_drawn(tmp_path):
    data = load(
        Data(name="scenes", scene_train=12, scene_test=10, limit_test=6, holdout=0.25), tmp_path
    )
    digest = data.digest
    seen = 0
    for split, images in enumerate((data.train, data.test)):
        boxes = data.boxes(images)
        assert (np.diff(boxes.image_K) >= 0).all()
        for i, file in enumerate(images.files.to_pylist()):
            _, drawn = scenes.draw(0, split, int(file.removesuffix(".jpg")) - split * 500_000 - 1)
            found = boxes.of(i)
            assert set(found) == {
                data.labels.index(scenes.LABELS[thing.label].name) for thing in drawn
            }
            for label, rows in found.items():
                expected = [
                    t.box for t in drawn if scenes.LABELS[t.label].name == data.labels[label]
                ]
                np.testing.assert_allclose(
                    np.sort(rows * scenes.SIDE, 0), np.sort(expected, 0), atol=0.011
                )
                seen += len(rows)
    assert seen > 20
    assert (
        digest
        == load(
            Data(name="scenes", scene_train=12, scene_test=10, limit_test=6, holdout=0.25), tmp_path
        ).digest
    )


@pytest.fixture
def copy(tmp_path):
    """Writes COCO 2017 with two test images of 20 x 10 pixels and the given annotations."""

    def write(*annotations):
        (tmp_path / "annotations").mkdir()
        for part, first in (("train", 1), ("val", 3)):
            (tmp_path / f"{part}2017").mkdir()
            images = [
                {"id": i, "file_name": f"{i}.jpg", "width": 20, "height": 10}
                for i in (first, first + 1)
            ]
            for image in images:
                Image.new("RGB", (20, 10), (image["id"], 0, 0)).save(
                    tmp_path / f"{part}2017" / image["file_name"]
                )
            listed = (
                annotations if part == "val" else [{"image_id": 1, "category_id": 1, "iscrowd": 0}]
            )
            content = {
                "images": images,
                "annotations": list(listed),
                "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}],
            }
            (tmp_path / "annotations" / f"instances_{part}2017.json").write_text(
                json.dumps(content)
            )
        return load(Data(name="coco", holdout=0, crowd="ignore"), tmp_path)

    return write


def test_boxes_of_coco_are_shares_of_the_image_inside_it(copy):
    def thing(image, category, box, **more):
        return {"image_id": image, "category_id": category, "bbox": box, "iscrowd": 0, **more}

    data = copy(
        thing(4, 7, [5, 1, 10, 4]),
        thing(3, 1, [-2, 0, 12, 20]),  # over the border
        thing(4, 7, [0, 0, 4, 0]),  # without area
        thing(4, 7, "none"),
        {"image_id": 4, "category_id": 7},
        thing(3, 7, [0, 0, 5, 5], iscrowd=1),  # ignored: it shows no dog for certain
        thing(4, 7, [10, 5, 10, 5], iscrowd=1),  # a crowd beside a dog is where dogs are
    )
    boxes = data.boxes(data.test)
    assert boxes.image_K.tolist() == [0, 1, 1]
    assert boxes.label_K.tolist() == [0, 1, 1]
    np.testing.assert_allclose(
        boxes.box_K4, [[0, 0, 0.5, 1], [0.25, 0.1, 0.75, 0.5], [0.5, 0.5, 1, 1]]
    )
    part = data.boxes(data.test.subset([1], "second"))
    assert (part.image_K.tolist(), part.label_K.tolist()) == ([0, 0], [1, 1])
    assert boxes.of(0).keys() == {0}
    assert data.boxes(data.train).of(0) == {}


def test_a_set_without_boxes(copy):
    data = copy({"image_id": 3, "category_id": 1, "iscrowd": 0})
    boxes = data.boxes(data.test)
    assert boxes.box_K4.shape == (0, 4)
    assert boxes.of(0) == {}


def test_boxes_of_voc_count_pixels_from_one_and_take_difficult_objects_of_what_is_shown(tmp_path):
    def thing(name, corners, hard=0):
        tags = "".join(
            f"<{t}>{c}</{t}>"
            for t, c in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        )
        fields = f"<name>{name}</name><difficult>{hard}</difficult><bndbox>{tags}</bndbox>"
        return f"<object>{fields}</object>"

    size = "<size><width>20</width><height>10</height><depth>3</depth></size>"
    things = {
        "000001": size + thing("dog", (1, 1, 20, 10)),
        "000002": size
        + thing("dog", (6, 2, 10, 5))
        + thing("dog", (11, 6, 20, 10), 1)
        + thing("cat", (1, 1, 5, 5), 1),
        "000003": thing("cat", (1, 1, 5, 5)),  # of unknown size
    }
    home = tmp_path / "VOCdevkit" / "VOC2007"
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (home / folder).mkdir(parents=True)
    for name, content in things.items():
        (home / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><folder>VOC2007</folder>{content}</annotation>"
        )
        Image.new("RGB", (20, 10)).save(home / "JPEGImages" / f"{name}.jpg")
    (home / "ImageSets/Main/trainval.txt").write_text("000001\n")
    (home / "ImageSets/Main/test.txt").write_text("000002\n000003\n")
    data = load(Data(name="voc2007", holdout=0), tmp_path)
    boxes = data.boxes(data.test)
    assert boxes.image_K.tolist() == [0, 0]
    assert {data.labels[i] for i in boxes.label_K} == {"dog"}
    np.testing.assert_allclose(boxes.box_K4, [[0.25, 0.1, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    assert data.boxes(data.train).box_K4.tolist() == [[0, 0, 1, 1]]


NUMBERS = st.one_of(
    st.floats(-30, 30),
    st.floats(),
    st.integers(-30, 30),
    st.sampled_from([0, -0.0, float("nan"), float("inf"), -float("inf"), 10**400, "5", "x", None]),
)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(NUMBERS, min_size=4, max_size=4) | st.just([1, 2]) | st.just("none"))
def test_each_box_of_coco_counts_or_is_a_finding(copy_once, box):
    """Never both, never neither, and what counts lies in its image, with an area."""
    root, data = copy_once
    path = root / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"] = [{"image_id": 3, "category_id": 1, "iscrowd": 0, "bbox": box}]
    path.write_text(json.dumps(content))
    boxes = coco.boxes(root, CONFIG, data.test)
    findings = list(coco.flat_boxes(root, CONFIG, (data.train, data.test)))
    assert len(boxes.box_K4) + len(findings) == 1
    left, top, right, bottom = boxes.box_K4.T
    assert ((left >= 0) & (left < right) & (right <= 1)).all()
    assert ((top >= 0) & (top < bottom) & (bottom <= 1)).all()


CONFIG = Data(name="coco17", holdout=0, crowd="ignore")


@pytest.fixture
def copy_once(copy, tmp_path):
    return tmp_path, copy({"image_id": 3, "category_id": 1, "bbox": [1, 1, 2, 2], "iscrowd": 0})


@pytest.mark.parametrize(
    "corners", [("nan", 1, 5, 5), (1, 1, "inf", 5), (25, 1, 30, 5), (3, 3, 3, 9)]
)
def test_a_box_of_voc_that_is_none_is_a_finding_and_spoils_nothing(layout_copy, corners):
    root, read = layout_copy("voc2007")
    tags = "".join(
        f"<{name}>{value}</{name}>"
        for name, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    good = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>10</xmax><ymax>10</ymax></bndbox>"
    things = "".join(
        f"<object><name>cat</name><difficult>0</difficult>{box}</object>"
        for box in (f"<bndbox>{tags}</bndbox>", good)
    )
    (root / "VOCdevkit/VOC2007/Annotations/000500.xml").write_text(
        "<annotation><size><width>20</width><height>10</height></size>" + things + "</annotation>"
    )
    data = read()
    boxes = data.boxes(data.test)
    assert boxes.of(0)[data.labels.index("cat")].tolist() == [[0, 0, 0.5, 1]]
    rows = list(voc.flat_boxes(root, Data(name="voc2007"), (data.train, data.test)))
    assert [row[:3] for row in rows if row[1] == "000500.jpg"] == [(1, "000500.jpg", "cat")]
