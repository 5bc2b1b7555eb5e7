"""Tables as people have them: more columns, folders beside the table, keys that are left out."""

from __future__ import annotations

import json

import pytest

from sadcl.data.convert import convert
from sadcl.errors import UserError
from tests.data.convert.exports import read
from tests.data.readers.layouts import put


@pytest.fixture
def table(tmp_path):
    """Converts a table and images; what is written."""

    def write(lines, images, name="data.csv"):
        for image in images:
            put(tmp_path / "export" / image)
        put(tmp_path / "export" / name, "".join(f"{line}\n" for line in lines))
        done = convert(tmp_path / "export", tmp_path / "out")
        return done, read(tmp_path / "out")

    return write


def test_a_column_of_labels_counts_more_than_columns_of_0_and_1(table):
    lines = ("file,label,split,is_blurry,verified", "a.jpg,dog,train,0,1", "b.jpg,cat,test,1,1")
    done, images = table(lines, ("a.jpg", "b.jpg"))
    assert images == {"a.jpg": ("train", {"dog"}), "b.jpg": ("test", {"cat"})}
    assert done.examples["columns that are no labels"] == ["is_blurry, verified"]


def test_labels_of_confidence_0_are_absent(table):
    """As people have verified that a label of OpenImages is absent."""
    lines = ("ImageID,LabelName,Confidence,IsOccluded,IsDepiction", "a,/m/1,1,0,1", "a,/m/2,0,1,0",
             "b,/m/2,0.7,0,0", "c,/m/1,0.0,0,0")  # fmt: skip
    done, images = table(lines, ("train/a.jpg", "test/b.jpg", "test/c.jpg"))
    assert images == {"a.jpg": ("train", {"/m/1"}), "b.jpg": ("test", {"/m/2"})}
    assert done.remarks["rows of confidence 0, whose labels are absent, left out"] == 2


def test_a_table_may_lie_in_a_folder_beside_the_images(table):
    lines = ("file,label,split", "a.jpg,dog,train", "b.jpg,cat,test")
    _, images = table(lines, ("images/a.jpg", "images/b.jpg"), "annotations/data.csv")
    assert images == {"a.jpg": ("train", {"dog"}), "b.jpg": ("test", {"cat"})}


def test_rows_of_json_lines_may_lack_keys(table):
    rows = [
        {"file": "a.jpg", "split": "train"},
        {"split": "train", "labels": ["cow"]},
        {"file": "b.jpg", "split": "train", "labels": ["dog"], "size": 3},
        {"file": "c.jpg", "split": "test", "labels": ["cat"]},
    ]
    done, images = table(map(json.dumps, rows), ("a.jpg", "b.jpg", "c.jpg"), "data.jsonl")
    assert images == {
        "a.jpg": ("train", set()), "b.jpg": ("train", {"dog"}), "c.jpg": ("test", {"cat"})
    }  # fmt: skip
    assert done.remarks["rows without an image"] == 1
    assert done.examples["columns that are no labels"] == ["size"]


def test_the_folder_of_an_image_says_its_split(table):
    lines = ("id,file,label", "1,train/a.jpg,dog", "2,b.jpg,cat")  # listed with it, and without
    _, images = table(lines, ("train/a.jpg", "test/b.jpg"))
    assert images == {"a.jpg": ("train", {"dog"}), "b.jpg": ("test", {"cat"})}


def test_other_columns_say_no_split(table):
    lines = ("url,file,label", "https://x/train/a.jpg,a.jpg,dog", "https://x/test/b.jpg,b.jpg,cat")
    with pytest.raises(UserError, match="No image is said to test"):
        table(lines, ("a.jpg", "b.jpg"))


@pytest.mark.parametrize(("yes", "no"), [("yes", "no"), ("Y", "N"), ("x", ""), ("1.0", "0.0")])
def test_a_column_for_each_label_with_words(table, yes, no):
    lines = ("file,dog,cat,split", f"a.jpg,{yes},{no},train", f"b.jpg,{yes},{yes},test")
    _, images = table(lines, ("a.jpg", "b.jpg"))
    assert images == {"a.jpg": ("train", {"dog"}), "b.jpg": ("test", {"dog", "cat"})}


def test_columns_of_counts_and_of_1_alone_are_remarked_on(table):
    lines = ("file,dog,cows,valid,width,split", "a.jpg,1,0,1,96,train", "b.jpg,0,3,1,96,test")
    done, images = table(lines, ("a.jpg", "b.jpg"))
    assert images == {"a.jpg": ("train", {"dog", "valid"}), "b.jpg": ("test", {"valid"})}
    remarks = {text.partition(",")[0]: examples for text, examples in done.examples.items()}
    assert remarks["columns of counts"] == ["cows"]
    assert remarks["columns of 1 alone"] == ["valid"]


def test_an_empty_split_is_no_split(tmp_path):
    lines = ["file,label,split", *(f"{i}.jpg,{'dog' if i % 2 else 'cat'}," for i in range(10))]
    for i in range(10):
        put(tmp_path / f"images/{i}.jpg")
    put(tmp_path / "tab.csv", "".join(f"{line}\n" for line in lines))
    done = convert(tmp_path / "tab.csv", tmp_path / "out", images=tmp_path / "images", test=0.2)
    assert (done.train, done.test) == (8, 2)
    assert not done.remarks


def test_images_elsewhere_are_asked_for_first(tmp_path):
    put(tmp_path / "export/tab.csv", "file,label,split\n0.jpg,dog,\n")
    with pytest.raises(
        UserError, match=r"^Give the folder of the images with --images: .*\(0 found"
    ):
        convert(tmp_path / "export/tab.csv", tmp_path / "out", test=0.2)
