"""Which file a listed name means, and how labels are spelled."""

from __future__ import annotations

import json
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sadcl.data.convert import convert
from sadcl.errors import UserError
from tests.data.convert.exports import read
from tests.data.readers.layouts import put

BOX = " 0.5 0.5 0.5 0.5\n"


def test_yolo_lists_say_the_split_whatever_the_folders_are_called(tmp_path):
    for folder in ("train2012", "val2012", "test"):
        put(tmp_path / f"export/images/{folder}/{folder}.jpg")
        put(tmp_path / f"export/labels/{folder}/{folder}.txt", f"0{BOX}")
    text = "train: [images/train2012, images/val2012]\nval: images/test\nnames: [dog]\n"
    put(tmp_path / "export/data.yaml", text)
    convert(tmp_path / "export", tmp_path / "out")
    dog = {"dog"}
    assert read(tmp_path / "out") == {
        "train2012.jpg": ("train", dog), "val2012.jpg": ("train", dog), "test.jpg": ("test", dog)
    }  # fmt: skip


def test_a_column_says_the_split_of_images_in_one_folder(tmp_path):
    for name in "abc":
        put(tmp_path / f"export/train/{name}.jpg")
    put(tmp_path / "export/t.csv", "file,label,split\na.jpg,x,train\nb.jpg,x,test\nc.jpg,y,val\n")
    done = convert(tmp_path / "export", tmp_path / "out")
    splits = {name: split for name, (split, _) in read(tmp_path / "out").items()}
    assert splits == {"a.jpg": "train", "b.jpg": "test", "c.jpg": "train"}
    assert done.remarks["images in the folder of another split, taken as the source says"] == 2


def test_the_listed_folder_counts_more_than_the_split(tmp_path):
    """A new split of COCO's images, which stay in their folders."""
    for place in ("train2014/a", "val2014/a", "val2014/b", "val2014/c"):
        put(tmp_path / f"export/images/{place}.jpg")
    for split, names in (("train", ("val2014/a", "val2014/b")), ("test", ("val2014/c",))):
        images = [{"id": i, "file_name": f"{name}.jpg"} for i, name in enumerate(names)]
        annotations = [{"image_id": 0, "category_id": 1}]
        content = {"images": images, "annotations": annotations}
        content |= {"categories": [{"id": 1, "name": "dog"}]}
        put(tmp_path / f"export/annotations/instances_{split}.json", json.dumps(content))
    done = convert(tmp_path / "export", tmp_path / "out")
    assert (done.train, done.test) == (2, 1)
    assert (tmp_path / "out/images/images/val2014/a.jpg").exists()


def test_names_of_classes_are_spelled_as_labels_of_images(tmp_path):
    """In the order of the source, although the second is the first that is shown."""
    put(tmp_path / "export/train/a.jpg")
    put(tmp_path / "export/train/a.txt", f"1{BOX}")
    put(tmp_path / "export/test/b.jpg")
    put(tmp_path / "export/test/b.txt", f"0{BOX}2{BOX}")
    put(tmp_path / "export/data.yaml", "names: ['two  words', cat, \"cafe\\u0301\"]\n")
    done = convert(tmp_path / "export", tmp_path / "out")
    assert done.labels == ("two words", "cat", "caf\u00e9")
    assert not done.remarks


@settings(max_examples=5, deadline=None)
@given(
    st.sampled_from([("train", "test"), ("Training", "val"), ("train2017", "valid"), ("", "")]),
    st.lists(
        st.sampled_from(["dog", "Katze", "\u72ac", "a b", "e\u0301"]), min_size=2, unique=True
    ),
)
def test_a_folder_for_each_class(splits, classes):
    with tempfile.TemporaryDirectory() as place:
        export = Path(place, "export")
        for split in set(splits):
            for i, name in enumerate(classes):
                for number in range(1 if split else 4):
                    put(export / split / name / f"{i}{split}{number}.jpg")
        done = convert(export, Path(place, "out"), test=0.5 if splits == ("", "") else None)
        assert done.kind == "class-folders"
        composed = {unicodedata.normalize("NFC", name) for name in classes}
        assert {label for _, (label,) in read(Path(place, "out")).values()} == composed
        assert set(done.labels) == composed


def test_folders_that_are_no_classes_are_not_taken_for_such(tmp_path):
    for place in ("train/a.jpg", "test/b.jpg", "deep/er/c/d.jpg"):
        put(tmp_path / "export" / place)
    with pytest.raises(UserError, match="not in a format that is known"):
        convert(tmp_path / "export", tmp_path / "out")


def test_pictures_and_their_masks_are_no_classes(tmp_path):
    for place in ("train/images/a.jpg", "train/masks/a.png", "test/images/b.jpg"):
        put(tmp_path / "export" / place)
    with pytest.raises(UserError, match="not in a format that is known"):
        convert(tmp_path / "export", tmp_path / "out")


def test_thumbnails_of_a_network_disk_are_passed_over(tmp_path):
    for name in ("@eaDir/a.jpg/S.jpg", "$RECYCLE.BIN/a.jpg", "__MACOSX/a.jpg", "._a.jpg", "a.jpg"):
        put(tmp_path / "export/train" / name)
    put(tmp_path / "export/test/b.jpg")
    for part in ("train/a", "test/b"):
        put(tmp_path / f"export/{part}.txt", f"0{BOX}")
    with pytest.raises(UserError, match="look like YOLO's boxes, but no file names the classes"):
        convert(tmp_path / "export", tmp_path / "out")
    put(tmp_path / "export/classes.txt", "dog\n")
    assert convert(tmp_path / "export", tmp_path / "out").unlabelled == 0
    assert read(tmp_path / "out") == {"a.jpg": ("train", {"dog"}), "b.jpg": ("test", {"dog"})}


def test_annotations_of_a_model_are_remarked_on(tmp_path):
    for part in ("train", "val"):
        put(tmp_path / f"export/{part}/{part}.jpg")
        content = {
            "images": [{"id": 1, "file_name": f"{part}.jpg"}],
            "annotations": [{"image_id": 1, "category_id": 1, "score": 0.07}],
            "categories": [{"id": 1, "name": "dog"}],
        }
        put(tmp_path / f"export/{part}/_annotations.coco.json", json.dumps(content))
    done = convert(tmp_path / "export", tmp_path / "out")
    assert done.remarks["annotations with a score, as predictions have, read as labels"] == 2
