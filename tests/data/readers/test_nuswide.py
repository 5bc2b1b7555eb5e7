"""NUS-WIDE: its splits, lists that are wrong, and the names of its images."""

from __future__ import annotations

import pytest

from tests.data.readers.layouts import (
    CONCEPTS,
    put,
    refused,
    table,
)


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        (
            "Groundtruth/TrainTestLabels/Labels_concept07_Test.txt",
            "0\n1\n0\n2\n",
            r"07_Test.txt' line 4 is '2'; 0 or 1",
        ),
        (
            "Groundtruth/TrainTestLabels/Labels_concept07_Test.txt",
            "0\n1\n",
            r"has 2 labels for the 4 images that TestImage",
        ),
        (
            "Groundtruth/TrainTestLabels/Labels_concept07_Test.txt",
            "01\n\n01\n",
            r"line 1 is '01'; 0 or 1 is possible",
        ),
        (
            "ConceptsList/Concepts81.txt",
            "sky\nsun\n",
            r"Concepts81.txt' has 2 concepts; NUS-WIDE has 81",
        ),
    ],
)
def test_nuswide_lists_that_are_wrong(layout_copy, path, content, message):
    root, read = layout_copy("nuswide-lists")
    put(root / path, content)
    refused(read, message)


def test_nuswide_without_a_list_of_concepts_and_with_files_by_id(layout_copy):
    root, read = layout_copy("nuswide-lists")
    before = read()
    (root / "ConceptsList/Concepts81.txt").unlink()
    for path in (root / "Flickr").rglob("*.jpg"):
        path.rename(root / "Flickr" / path.name.rsplit("_", 1)[1])
    after = read()
    assert after.labels == CONCEPTS
    assert after.train.files.to_pylist()[:2] == ["770.jpg", "771.jpg"]
    assert (after.train.targets == before.train.targets).all()


def test_nuswide_splits_are_not_mixed_up(layout_copy):
    root, read = layout_copy("nuswide-csv")
    refused(
        read,
        r"It has nus_wid_data.csv: data.nuswide_split = 'csv' reads that split",
        nuswide_split="lists",
    )
    content = (root / "nus_wid_data.csv").read_text()
    put(root / "nus_wid_data.csv", content + "images/0001_771.jpg,['concept00'],train\n")
    refused(read, r"line 14 has 'images/0001_771.jpg' a second time")
    put(root / "nus_wid_data.csv", content.replace("concept02", "kite"))
    refused(read, r"gives 'images/0001_771.jpg' the label 'kite', which is no concept")
    put(root / "nus_wid_data.csv", content.replace(",val\n", ",test\n"))
    refused(read, r"line 10 has .* split_name 'test'; a path below the root, and train or val")
    put(root / "nus_wid_data.csv", content.replace("['concept00']", "concept00"))
    refused(read, r"line 2 has label 'concept00'; a list such as")


@pytest.mark.parametrize(("stored", "file"), [("0000_70.jpg", "0000_70.jpg"), ("70.jpg", "70.jpg")])
def test_nuswide_files_that_would_be_two_images(layout_copy, stored, file):
    root, read = layout_copy("nuswide-lists")
    table(root / "ImageList/TrainImagelist.txt", [f"{x}\\0000_70.jpg" for x in ("actor", "zoo")])
    for path in (root / "Groundtruth").rglob("*_Train.txt"):
        table(path, [0, 1])
    put(root / "Flickr" / stored)
    refused(
        read,
        rf"lists 'actor/0000_70.jpg' and 'zoo/0000_70.jpg', and both are '{file}' in .*Flickr'",
    )


def test_nuswide_labels_beside_an_empty_folder(layout_copy):
    root, read = layout_copy("nuswide-all")
    digest = read().digest
    (root / "Groundtruth/TrainTestLabels").mkdir()
    assert read().digest == digest
    table(root / "ImageList/TrainImagelist.txt", ["actor\\0000_70.jpg  1"])
    refused(read, r"TrainImagelist.txt' line 1 has several columns")
    root, read = layout_copy("nuswide-csv")
    put(
        root / "nus_wid_data.csv",
        (root / "nus_wid_data.csv").read_text().replace("images/0000_880", "../0000_880"),
    )
    refused(read, r"has filepath '../0000_880.jpg' .* a path below the root")
