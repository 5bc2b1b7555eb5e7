"""Which file a listed name means, and how labels are spelled."""

from __future__ import annotations

import json

from sadcl.data.convert import convert
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
