"""Lists, tables and names of images as they lie on disk."""

from __future__ import annotations

import os

import pytest

from sadcl.data.audit.findings import audit_copy
from sadcl.data.readers import files
from tests.data.readers.layouts import (
    BY_NAME,
    put,
    refused,
    table,
)


def test_csv_with_quotes_after_blanks_and_line_ends_in_other_columns(tmp_path):
    put(
        tmp_path / "x.csv", 'file, labels, note\n"a, b.jpg", "cat", "one\n two\u2028"\nc.jpg,dog,\n'
    )
    rows = list(files.read_csv(tmp_path / "x.csv", {"file", "labels"}, ""))
    assert [(row["file"], row["labels"]) for _, row in rows] == [
        ("a, b.jpg", "cat"),
        ("c.jpg", "dog"),
    ]
    assert rows[1][0].endswith("line 4")


def test_lists_have_one_entry_a_line(tmp_path):
    put(tmp_path / "x.txt", "a\u2028b\r\nc\x85d\re\n")
    refused(
        lambda: files.read_entries(tmp_path / "x.txt", ""),
        r"line 1 has the character \\u2028 in 'a.u2028b'",
    )
    put(tmp_path / "x.txt", "a b\r\nc\u3000d\re\n")
    assert list(files.read_entries(tmp_path / "x.txt", "")) == ["a b", "c\u3000d", "e"]


def test_folders_in_another_letter_case(layout_copy):
    root, read = layout_copy("nuswide-lists")
    (root / "Flickr/actor").rename(root / "Flickr/Actor")
    assert read().train.path(0) == f"{root}/Flickr/Actor/0000_770.jpg"
    (root / "Flickr/zoo").rename(root / "away")
    refused(
        read,
        r"4 of 4 images that TestImagelist.txt lists are missing in .*Flickr', "
        r"first 'zoo/0000_880.jpg'",
    )
    refused(read, r"test split of nuswide .* has no image", missing="drop")


def test_nested_folders_in_another_letter_case(layout_copy):
    root, read = layout_copy("folder-csv")
    (root / "photos/more").rename(root / "photos/More")
    (root / "photos").rename(root / "Photos")
    assert read().test.files[0].as_py() == "Photos/More/0.jpg"
    text = (
        (root / "labels.csv").read_text().replace("photos/0.jpg", "PHOTOS/0.jpg")
    )  # two spellings of one folder
    put(root / "labels.csv", text)
    assert read().train.files.to_pylist()[:2] == ["Photos/0.jpg", "Photos/1.jpg"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ["A.jpg,cat,train", "a.jpg,ant,test"],
            r"1 images are in .* first 'a.jpg': test images must not train",
        ),
        (
            ["A.jpg,cat,train", "a.JPG,ant,train", "b.jpg,ant,test"],
            r"'A.jpg' and 'a.JPG', and both are the file 'a.jpg'",
        ),
    ],
)
def test_two_rows_that_are_one_file_in_another_letter_case(layout_copy, rows, message):
    root, read = layout_copy("folder-csv")
    put(root / "a.jpg")
    put(root / "b.jpg")
    table(root / "labels.csv", ["file,labels,split", *rows])
    refused(read, message)
    refused(lambda: audit_copy(BY_NAME["folder-csv"].config, root, fast=True), message)


def test_files_beside_the_images_whose_names_are_no_text(layout_copy):
    root, read = layout_copy("voc2007")
    digest = read().digest
    for place in ("JPEGImages/\udcff.jpg", "Annotations/\udcff.xml", "\udcff"):
        put(root / "VOCdevkit/VOC2007" / place)
    (root / "VOCdevkit/VOC2007/JPEGImages/000000.jpg").rename(
        root / "VOCdevkit/VOC2007/JPEGImages/000000.JPG"
    )
    assert read().train.files[0].as_py() == "000000.JPG"
    os.rename(
        root / "VOCdevkit/VOC2007/JPEGImages/000000.JPG",
        root / "VOCdevkit/VOC2007/JPEGImages/000000.jpg",
    )
    assert read().digest == digest
