"""Tables of your own images: which table is meant, labels, and rows that are wrong."""

from __future__ import annotations

import json
import re
import tempfile
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sadcl.config import Data
from sadcl.data.readers import files, folder
from sadcl.errors import UserError
from tests.data.readers.layouts import (
    put,
    refused,
    table,
)


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
            ["file,labels,split", "a.jpg,cat,train", "a.jpg,ant,train"],
            r"a second time, .* in one: 'cat;dog'. sadcl data convert '.*labels.csv' -o DIR joins",
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
def test_tables_of_ones_own_that_are_wrong(layout_copy, lines, message):
    root, read = layout_copy("folder-csv")
    table(root / "labels.csv", lines)
    refused(read, message)


def test_which_table_is_meant(layout_copy):
    root, read = layout_copy("folder-csv")
    (root / "labels.csv").rename(root / "train.csv")
    refused(read, r"are incomplete: .* found train.csv")
    put(root / "test.csv", "file,labels\n")
    put(root / "test.jsonl", "{}\n")
    refused(read, r"are ambiguous: .* found train.csv, test.csv, test.jsonl")


def test_labels_come_in_the_order_of_the_list_or_of_the_alphabet(layout_copy):
    root, read = layout_copy("folder-parquet")
    assert read().labels == ("ant", "bee hive", "cat")
    table(root / "labels.txt", ["cat", "zebra", "ant", "bee hive"])
    images = read().train
    assert images.labels == ("cat", "zebra", "ant", "bee hive")
    assert images.targets[1].tolist() == [1, 0, 0, 1]
    rows = pa.table({"file": ["a.jpg"], "labels": [[1, 2]], "split": ["train"]})
    pq.write_table(rows, root / "labels.parquet")
    refused(read, r"labels.parquet' row 1 has labels \[1, 2\]; a list of names")


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
        ("{", "line 1 is not valid JSON: .* One object a line is needed"),
        (
            '{"file": "a.jpg", "labels": null}',
            r"has no value for 'labels' \(null\); an image without",
        ),
        ('{"file": null, "labels": []}', r"line 1 has no value for 'file' \(null\)\."),
        ('{"file": "/a.jpg", "labels": []}', "finds images by paths of another place"),
        ('{"file": "a.jpg", "labels": ["cat", " "]}', r"line 1 has labels \['cat', ' '\]"),
        (
            '{"file": "a.jpg", "labels": ["caf\u00e9", "cafe\u0301"]}',
            r"labels 'cafe.' \('cafe.u0301'\) and 'caf.' \('caf.xe9'\) .* look alike",
        ),
    ],
)
def test_json_lines_that_are_wrong(layout_copy, row, message):
    root, read = layout_copy("folder-jsonl")
    table(root / "train.jsonl", [row])
    refused(read, message)


def test_json_lines_with_separators_in_strings_and_blanks_in_labels(layout_copy):
    root, read = layout_copy("folder-jsonl")
    put(root / "..a.jpg")
    table(
        root / "train.jsonl",
        ['{"file": "..a.jpg", "labels": [" ant", "cat "], "note": "one\u2028two\x85"}'],
    )
    images = read().train
    assert images.files.to_pylist() == ["..a.jpg"]
    assert images.labels == ("ant", "bee hive", "cat")
    assert images.targets.tolist() == [[1, 0, 1]]


def test_other_columns_of_parquet_are_not_read(layout_copy, monkeypatch):
    root, read = layout_copy("folder-parquet")
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


@pytest.mark.parametrize(
    ("encoding", "hint"),
    [
        ("utf-16", "it is UTF-16, .* save it as UTF-8"),
        ("utf-16-le", "it is UTF-16"),
        ("cp1252", "it may be Windows-1252, .* 'CSV UTF-8'"),
    ],
)
def test_a_table_in_another_encoding_is_named(layout_copy, encoding, hint):
    root, read = layout_copy("folder-csv")
    text = "file,labels,split\nphotos/0.jpg,pláž,train\nphotos/1.jpg,ant,test\n"
    if encoding == "cp1252":
        text = text.replace("pláž", "café")
    put(root / "labels.csv", text.encode(encoding))
    refused(read, rf"labels.csv' line \d is no text \(byte [\d,]+\): {hint}|has the character")


@pytest.mark.parametrize("long", [["a"] * 30_000, "a;" * 30_000, {"a": "b" * 30_000}])
def test_no_message_is_longer_than_one_can_read(layout_copy, long):
    """Whatever a table has: a list of all rows in the first line, or a value without an end."""
    root, read = layout_copy("folder-jsonl")
    right = {"file": "a.jpg", "labels": ["cat"], "split": "train"}
    rows = [long, *({**right, key: long} for key in right), {str(long): 1}]
    for row in rows:
        put(root / "train.jsonl", json.dumps(row) + "\n")
        with pytest.raises(UserError) as caught:
            read()
        assert len(str(caught.value)) < 1000
    put(root / "train.jsonl", json.dumps([right] * 500) + "\n")
    refused(read, r"train.jsonl' line 1 is a list of 500 items; one object a line .* lines=True")


@pytest.mark.parametrize("layout", ["folder-csv", "coco17", "nuswide-lists"])
def test_names_on_disk_in_another_unicode_form(layout_copy, layout):
    """A list made elsewhere, and an archive that was unpacked on a Mac."""
    root, read = layout_copy(layout)
    before = read()
    for images in (before.train, before.test):
        for i in range(len(images)):
            path = Path(images.path(i))
            path.rename(path.with_name(f"c\u030c{path.name}"))  # on disk: letter and accent
    names = {
        Path(file).name for part in (before.train, before.test) for file in part.files.to_pylist()
    }
    pattern = re.compile(rf"(?<=[/\"\\])(?={'|'.join(map(re.escape, sorted(names)))})")
    for path in [*root.glob("*.csv"), *root.glob("*/*.json"), *root.glob("*/*.txt")]:
        path.write_text(pattern.sub("\u010d", path.read_text()))  # listed: one letter
    after = read()
    assert (after.train.targets == before.train.targets).all()
    assert all(Path(after.test.path(i)).exists() for i in range(len(after.test)))


NAMES = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters="\\/.\0"),
    min_size=1,
    max_size=6,
)
SPELLINGS = (
    lambda path: path,
    lambda path: path.replace("/", "\\"),
    lambda path: f"./{path}",
    lambda path: unicodedata.normalize("NFC", path),
    lambda path: unicodedata.normalize("NFD", path),
    lambda path: unicodedata.normalize("NFD", path).replace("/", "\\"),
)
"""How people's programs write the same path."""


@given(
    st.lists(st.tuples(NAMES, NAMES), min_size=2, max_size=4,
             unique_by=lambda pair: files.spelling("/".join(pair))),
    st.data(),
)  # fmt: skip
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_a_path_is_found_in_every_spelling(pairs, draw):
    with tempfile.TemporaryDirectory() as folder_name:
        root, rows = Path(folder_name), []
        for i, pair in enumerate(pairs):
            path = f"{'/'.join(pair)}.jpg"
            put(root / path)
            spelled = draw.draw(st.sampled_from(SPELLINGS))(path)
            rows.append({"file": spelled, "labels": ["a"], "split": ("train", "test")[i % 2]})
        table(root / "labels.jsonl", map(json.dumps, rows))
        for part in folder.read(root, Data(name="folder")):
            found = files.existing_images(part, "error")
            assert all(Path(found.path(i)).exists() for i in range(len(found)))


def test_a_folder_without_a_table_is_told_how_to_get_one(layout_copy):
    root, read = layout_copy("folder-csv")
    (root / "labels.csv").unlink()
    refused(read, r"found none of them. If another tool exported it \(COCO, .*sadcl data convert")
