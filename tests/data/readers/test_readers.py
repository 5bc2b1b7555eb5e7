"""What is each publisher's own: difficult objects, lists that disagree, frequencies, tables of one's own."""

from __future__ import annotations

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sadcl.data.audit.findings import audit_copy
from sadcl.data.load import load
from sadcl.data.readers import files, vg500, voc
from sadcl.errors import UserError
from tests.data.readers.layouts import CONCEPTS, LAYOUTS, TEST, TRAIN, objects_xml, put, table

BY_NAME = {layout.name: layout for layout in LAYOUTS}


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """Writes a layout's copy, and gives its root and a function that loads it."""
    monkeypatch.setattr(vg500, "CATEGORIES", 3)

    def write(name):
        layout = BY_NAME[name]
        layout.write(tmp_path, TRAIN, TEST)
        return tmp_path, lambda **fields: load(
            layout.config.model_copy(update={"holdout": 0, **fields}), tmp_path
        )

    return write


def refused(read, message, **fields):
    with pytest.raises(UserError, match=message) as caught:
        read(**fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("policy", "value"), [("negative", 0), ("ignore", -1), ("positive", 1)])
def test_voc_difficult_objects(copy, policy, value):
    root, read = copy("voc2007")
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


def test_voc_2012_is_tested_on_val_or_by_the_server(copy):
    root, read = copy("voc2012")
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
            objects_xml("VOC2007", []),
            r"000001.xml' is no .* found <annotation> with 0 <object>",
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
def test_voc_copies_that_are_wrong(copy, path, content, message):
    root, read = copy("voc2007")
    put(root / "VOCdevkit/VOC2007" / path, content)
    refused(read, message)


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
def test_nuswide_lists_that_are_wrong(copy, path, content, message):
    root, read = copy("nuswide-lists")
    put(root / path, content)
    refused(read, message)


def test_nuswide_without_a_list_of_concepts_and_with_files_by_id(copy):
    root, read = copy("nuswide-lists")
    before = read()
    (root / "ConceptsList/Concepts81.txt").unlink()
    for path in (root / "Flickr").rglob("*.jpg"):
        path.rename(root / "Flickr" / path.name.rsplit("_", 1)[1])
    after = read()
    assert after.labels == CONCEPTS
    assert after.train.files.to_pylist()[:2] == ["770.jpg", "771.jpg"]
    assert (after.train.targets == before.train.targets).all()


def test_nuswide_splits_are_not_mixed_up(copy):
    root, read = copy("nuswide-csv")
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


def test_vg500_categories_and_its_fixed_permutation(copy, monkeypatch):
    root, read = copy("vg500-objects")
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
def test_vg500_objects_are_read_in_parts(copy, monkeypatch, chunk):
    root, _ = copy("vg500-objects")
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
def test_vg500_objects_that_are_no_list(copy, content):
    root, read = copy("vg500-objects")
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
            r"train_list_500.txt' line 2 lists '2.jpg', which has no entry in vg_category_500_labels_index.json",
        ),
    ],
)
def test_vg500_labels_that_are_wrong(copy, index, message):
    root, read = copy("vg500-index")
    put(root / "vg_category_500_labels_index.json", json.dumps(index))
    refused(read, message)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["file,labels,split", "a.jpg,kat,train"],
            r"labels.csv' line 2 has the label 'kat', .* Did you mean 'cat'",
        ),
        (
            ["file,labels,split", "a.jpg,cat,train", "./a.jpg,ant,test"],
            r"line 3 has 'a.jpg' a second time, first in .* line 2",
        ),
        (
            ["file,labels,split", "a.jpg,cat,train"],
            r"labels.csv' has no test rows: say which images test",
        ),
        (["file,labels", "a.jpg,cat"], r"line 2 has no 'split'"),
        (["file,tags,split", "a.jpg,cat,train"], r"labels.csv' has no column 'labels'"),
        (["file,labels,split", "a.jpg,cat,val"], r"line 2 has the split 'val'; train or test"),
        (
            ["file,labels,split", "../a.jpg,cat,test"],
            r"line 2 has the file '../a.jpg'; a path below",
        ),
        (["file,labels,split", "/a.jpg,cat,test"], r"line 2 has the file '/a.jpg'; a path below"),
        (["file,labels,split", "a.jpg,cat"], r"line 2 has 2 fields, the first line has 3"),
        (["file,labels,split", 'a.jpg,"cat,train'], r"labels.csv' line 2 is not valid CSV"),
        (["file,labels,split,labels", "a.jpg,cat,train,ant"], r"has the column 'labels' twice"),
        (
            ["file,labels,split", '"a\nb.jpg",cat,train'],
            r"line 3 has the character \\n in file 'a\\nb.jpg'; remove it",
        ),
        (
            ["file,labels,split", "a.jpg,c\u2028at,train"],
            r"line 2 has the character \\u2028 in labels",
        ),
        (["file,labels,split", "a.jpg,c\0at,train"], r"line 2 has the character \\x00 in labels"),
    ],
)
def test_tables_of_ones_own_that_are_wrong(copy, lines, message):
    root, read = copy("folder-csv")
    table(root / "labels.csv", lines)
    refused(read, message)


def test_which_table_is_meant(copy):
    root, read = copy("folder-csv")
    (root / "labels.csv").rename(root / "train.csv")
    refused(read, r"are incomplete: .* found train.csv")
    put(root / "test.csv", "file,labels\n")
    put(root / "test.jsonl", "{}\n")
    refused(read, r"are ambiguous: .* found train.csv, test.csv, test.jsonl")


def test_labels_come_in_the_order_of_the_list_or_of_the_alphabet(copy):
    root, read = copy("folder-parquet")
    assert read().labels == ("ant", "bee hive", "cat")
    table(root / "labels.txt", ["cat", "zebra", "ant", "bee hive"])
    images = read().train
    assert images.labels == ("cat", "zebra", "ant", "bee hive")
    assert images.targets[1].tolist() == [1, 0, 0, 1]
    rows = pa.table({"file": ["a.jpg"], "labels": [[1, 2]], "split": ["train"]})
    pq.write_table(rows, root / "labels.parquet")
    refused(read, r"labels.parquet' row 1 has labels \[1, 2\]; a list of names")


def test_folders_in_another_letter_case(copy):
    root, read = copy("nuswide-lists")
    (root / "Flickr/actor").rename(root / "Flickr/Actor")
    assert read().train.path(0) == f"{root}/Flickr/Actor/0000_770.jpg"
    (root / "Flickr/zoo").rename(root / "away")
    refused(
        read,
        r"4 of 4 images that TestImagelist.txt lists are missing in .*Flickr', first 'zoo/0000_880.jpg'",
    )
    refused(read, r"test split of nuswide .* has no image", missing="drop")


def test_ignored_labels_survive_the_manifest(copy):
    root, read = copy("voc2007")
    put(root / "VOCdevkit/VOC2007/Annotations/000000.xml", objects_xml("VOC2007", [("cat", 1)]))
    for _ in range(2):
        assert np.flatnonzero(read(difficult="ignore").train.targets[0] == -1).tolist() == [7]


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
def test_two_rows_that_are_one_file_in_another_letter_case(copy, rows, message):
    root, read = copy("folder-csv")
    put(root / "a.jpg")
    put(root / "b.jpg")
    table(root / "labels.csv", ["file,labels,split", *rows])
    refused(read, message)
    refused(lambda: audit_copy(BY_NAME["folder-csv"].config, root, fast=True), message)


def test_two_entries_that_are_one_file_of_visual_genome(copy):
    root, read = copy("vg500-index")
    path = root / "vg_category_500_labels_index.json"
    put(path, json.dumps({**json.loads(path.read_text()), "1.JPG": [2]}))
    table(root / "train_list_500.txt", ["1.jpg", "1.JPG"])
    refused(read, r"both are the file 'VG_100K/1.jpg'")


def test_files_beside_the_images_whose_names_are_no_text(copy):
    root, read = copy("voc2007")
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


def test_nested_folders_in_another_letter_case(copy):
    root, read = copy("folder-csv")
    (root / "photos/more").rename(root / "photos/More")
    (root / "photos").rename(root / "Photos")
    assert read().test.files[0].as_py() == "Photos/More/0.jpg"
    text = (
        (root / "labels.csv").read_text().replace("photos/0.jpg", "PHOTOS/0.jpg")
    )  # two spellings of one folder
    put(root / "labels.csv", text)
    assert read().train.files.to_pylist()[:2] == ["Photos/0.jpg", "Photos/1.jpg"]


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


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            '{"file": "a.jpg", "labels": ["cat"], "labels": []}',
            r"line 1 is not valid JSON: a key occurs twice among 'file'",
        ),
        (DEEP, r"line 1 is not valid JSON"),
        (
            r'{"file": "a.jpg", "labels": ["c\ud800t"]}',
            r"line 1 has the character .ud800 in 'c.ud800t'; remove it",
        ),
        (
            r'{"file": "a\u0000.jpg", "labels": ["cat"]}',
            r"line 1 has the character .x00 in 'a.x00.jpg'",
        ),
        ('{"file": "a.jpg", "labels": ["cat", " "]}', r"line 1 has labels \['cat', ' '\]"),
        (
            '{"file": "a.jpg", "labels": ["caf\u00e9", "cafe\u0301"]}',
            r"labels 'cafe.' \('cafe.u0301'\) and 'caf.' \('caf.xe9'\) .* look alike",
        ),
    ],
)
def test_json_lines_that_are_wrong(copy, row, message):
    root, read = copy("folder-jsonl")
    table(root / "train.jsonl", [row])
    refused(read, message)


def test_json_lines_with_separators_in_strings_and_blanks_in_labels(copy):
    root, read = copy("folder-jsonl")
    put(root / "..a.jpg")
    table(
        root / "train.jsonl",
        ['{"file": "..a.jpg", "labels": [" ant", "cat "], "note": "one\u2028two\x85"}'],
    )
    images = read().train
    assert images.files.to_pylist() == ["..a.jpg"]
    assert images.labels == ("ant", "bee hive", "cat")
    assert images.targets.tolist() == [[1, 0, 1]]


def test_other_columns_of_parquet_are_not_read(copy, monkeypatch):
    root, read = copy("folder-parquet")
    rows = pq.read_table(root / "labels.parquet")
    pq.write_table(
        rows.append_column("pixels", pa.array([b"x"] * len(rows))), root / "labels.parquet"
    )
    asked = []
    whole = pq.ParquetFile.read
    monkeypatch.setattr(
        pq.ParquetFile,
        "read",
        lambda file, columns=None: asked.append(columns) or whole(file, columns),
    )
    read()
    assert asked == [["file", "labels", "split"]]


def test_nesting_that_no_file_has(copy, tmp_path):
    for name, path in (
        ("coco14", "annotations/instances_val2014.json"),
        ("vg500-objects", "objects.json"),
        ("vg500-index", "vg_category_500_labels_index.json"),
    ):
        root, read = copy(name)
        put(root / path, DEEP)
        refused(read, path.rsplit("/", 1)[-1])
    root, read = copy("nuswide-csv")
    table(root / "nus_wid_data.csv", ["filepath,label,split_name", f"a.jpg,{DEEP},train"])
    refused(read, r"line 2 has label .*; a list such as")


def test_names_of_visual_genome_that_are_no_text(copy):
    root, read = copy("vg500-objects")
    put(root / "objects.json", (root / "objects.json").read_text().replace("tree", "tr\\ud800"))
    refused(read, r"has the character .ud800 in the name 'tr.ud800'")
    root, read = copy("vg500-index")
    put(root / "vg_category_500_labels_index.json", r'{"\ud800.jpg": [1]}')
    refused(read, r"has an entry that is no file name")


@pytest.mark.parametrize(
    ("images", "crowd", "message"),
    [
        (
            ["../val2014/a.jpg"],
            0,
            r"lists the file '../val2014/a.jpg'; the plain name of a file in .*train2014",
        ),
        (["/a.jpg"], 0, r"lists the file '/a.jpg'"),
        (["./a.jpg"], 0, r"lists the file './a.jpg'"),
        (["\ud800.jpg"], 0, r"has a file_name with the character .ud800"),
        (["a\0.jpg"], 0, r"has a file_name with the character .x00"),
        (["a.jpg"], "0", r"annotation of image_id 0 with iscrowd = '0'; 0 or 1 is possible"),
        (["a.jpg"], 2, r"iscrowd = 2; 0 or 1"),
        (["a.jpg"], None, r"iscrowd = None; 0 or 1"),
    ],
)
def test_coco_files_and_crowds_that_are_wrong(copy, images, crowd, message):
    root, read = copy("coco14")
    path = root / "annotations/instances_train2014.json"
    content = json.loads(path.read_text())
    content["images"] = [{"id": i, "file_name": name} for i, name in enumerate(images)]
    content["annotations"] = [{"image_id": 0, "category_id": 10, "iscrowd": crowd}]
    path.write_text(json.dumps(content))
    refused(read, message)


def test_coco_with_both_splits_in_one_folder(copy):
    root, read = copy("coco17")
    for path in (root / "val2017").iterdir():
        path.unlink()
    (root / "val2017").rmdir()
    (root / "val2017").symlink_to(root / "train2017")
    refused(
        read,
        r"4 images are in instances_train2017.json and in instances_val2017.json .* must not train",
    )


@pytest.mark.parametrize(("stored", "file"), [("0000_70.jpg", "0000_70.jpg"), ("70.jpg", "70.jpg")])
def test_nuswide_files_that_would_be_two_images(copy, stored, file):
    root, read = copy("nuswide-lists")
    table(root / "ImageList/TrainImagelist.txt", [f"{x}\\0000_70.jpg" for x in ("actor", "zoo")])
    for path in (root / "Groundtruth").rglob("*_Train.txt"):
        table(path, [0, 1])
    put(root / "Flickr" / stored)
    refused(
        read,
        rf"lists 'actor/0000_70.jpg' and 'zoo/0000_70.jpg', and both are '{file}' in .*Flickr'",
    )


def test_nuswide_labels_beside_an_empty_folder(copy):
    root, read = copy("nuswide-all")
    digest = read().digest
    (root / "Groundtruth/TrainTestLabels").mkdir()
    assert read().digest == digest
    table(root / "ImageList/TrainImagelist.txt", ["actor\\0000_70.jpg  1"])
    refused(read, r"TrainImagelist.txt' line 1 has several columns")
    root, read = copy("nuswide-csv")
    put(
        root / "nus_wid_data.csv",
        (root / "nus_wid_data.csv").read_text().replace("images/0000_880", "../0000_880"),
    )
    refused(read, r"has filepath '../0000_880.jpg' .* a path below the root")


def test_the_names_of_an_annotation_may_differ_in_letter_case(copy):
    root, read = copy("voc2007")
    xml = objects_xml("VOC2007", [("cat", 0)], "A.JPG")
    put(root / "VOCdevkit/VOC2007/Annotations/a.xml", xml)
    put(root / "VOCdevkit/VOC2007/JPEGImages/a.jpg")
    table(root / "VOCdevkit/VOC2007/ImageSets/Main/test.txt", ["a"])
    assert read().test.targets.sum() == 1


def test_voc_2007_is_not_what_the_server_of_2012_takes(copy):
    root, _ = copy("voc2007-itself")
    refused(
        lambda: voc.server_images(root), r"test.txt lists in .* are VOC 2007's, first '000500.jpg'"
    )


def test_a_root_whose_name_is_no_text(copy, tmp_path):
    root, _ = copy("voc2007-itself")
    (tmp_path / "\udcff").symlink_to(root)
    refused(
        lambda: load(BY_NAME["voc2007"].config, tmp_path / "\udcff"),
        r"data root .* is no UTF-8 text; rename",
    )
