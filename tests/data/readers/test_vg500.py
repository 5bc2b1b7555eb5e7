"""Visual Genome: categories, the fixed permutation, and files that are wrong."""

from __future__ import annotations

import json

import pytest

from sadcl.data.readers import vg500
from tests.data.readers.layouts import (
    TEST,
    TRAIN,
    put,
    refused,
    table,
)


def test_vg500_categories_and_its_fixed_permutation(layout_copy, monkeypatch):
    root, read = layout_copy("vg500-objects")
    monkeypatch.setattr(vg500, "TEST", 4)
    (root / "train_list_500.txt").unlink()
    refused(read, r"train_list_500.txt' cannot be read: .* come together")
    (root / "test_list_500.txt").unlink()
    one = read()
    assert (len(one.train), len(one.test)) == (8, 4)
    everything = sorted(one.train.files.to_pylist() + one.test.files.to_pylist())
    assert everything == sorted(
        [f"VG_100K/{i}.jpg" for i in range(1, 9)] + [f"VG_100K_2/{i}.jpg" for i in range(101, 105)]
    )
    assert read().digest == one.digest
    counts = one.train.targets.sum(axis=0) + one.test.targets.sum(axis=0)
    assert counts.tolist() == [sum(i in s for s in TRAIN + TEST) for i in range(3)]
    monkeypatch.setattr(vg500, "TEST", 12)
    (root / "objects.json").write_bytes((root / "objects.json").read_bytes() + b"\n")
    refused(read, r"objects.json' has 12 images, of which 12 would test")


@pytest.mark.parametrize("chunk", [600, 650, 777, 5000])
def test_vg500_objects_are_read_in_parts(layout_copy, monkeypatch, chunk):
    root, _ = layout_copy("vg500-objects")
    monkeypatch.setattr(vg500, "CHUNK", chunk)
    entries = json.loads((root / "objects.json").read_text())
    (root / "objects.json").write_text(json.dumps(entries, indent=1 if chunk == 5000 else None))
    read = list(vg500._entries(root / "objects.json"))
    assert [entry["objects"] for entry in read] == [
        [thing["names"] for thing in e["objects"]] for e in entries
    ]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[",
        "{}",
        '[{"image_id": 1}',
        '[{"a": 1} {"b": 2}]',
        '[{"a": 1},]',
        '[{"a": 1}] x',
        '["a": 1]',
    ],
)
def test_vg500_objects_that_are_no_list(layout_copy, content):
    root, read = layout_copy("vg500-objects")
    put(root / "objects.json", content)
    refused(read, r"objects.json' (is not a valid JSON list|has an entry)")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"1.jpg": [3]}, r"label numbers from 0 to 2: \('1.jpg', \[3\]\)"),
        ({"1.jpg": 1}, r"labels_index.json' has an entry"),
        ([1], r"labels_index.json' has an entry"),
        (
            {"1.jpg": [1]},
            r"train_list_500.txt' line 2 lists '2.jpg', which has no entry in "
            r"vg_category_500_labels_index.json",
        ),
    ],
)
def test_vg500_labels_that_are_wrong(layout_copy, index, message):
    root, read = layout_copy("vg500-index")
    put(root / "vg_category_500_labels_index.json", json.dumps(index))
    refused(read, message)


def test_two_entries_that_are_one_file_of_visual_genome(layout_copy):
    root, read = layout_copy("vg500-index")
    path = root / "vg_category_500_labels_index.json"
    put(path, json.dumps({**json.loads(path.read_text()), "1.JPG": [2]}))
    table(root / "train_list_500.txt", ["1.jpg", "1.JPG"])
    refused(read, r"both are the file 'VG_100K/1.jpg'")


def test_names_of_visual_genome_that_are_no_text(layout_copy):
    root, read = layout_copy("vg500-objects")
    put(root / "objects.json", (root / "objects.json").read_text().replace("tree", "tr\\ud800"))
    refused(read, r"has the character .ud800 in the name 'tr.ud800'")
    root, read = layout_copy("vg500-index")
    put(root / "vg_category_500_labels_index.json", r'{"\ud800.jpg": [1]}')
    refused(read, r"has an entry that is no file name")
