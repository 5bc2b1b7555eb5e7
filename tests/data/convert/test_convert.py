"""What tools export becomes a folder with the same labels, or an error that says what to do."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sadcl.config import Data
from sadcl.data.audit.findings import audit_copy
from sadcl.data.convert import FORMATS, convert
from sadcl.data.readers import files
from sadcl.errors import UserError
from tests.data.convert import exports
from tests.data.convert.exports import EXPORTS, IMAGES, Shown, read
from tests.data.readers.layouts import put


def expected(images):
    return {one.name: (one.split, set(one.labels)) for one in images}


@pytest.fixture
def export(tmp_path):
    """Writes an export; its folder."""

    def write(kind, images=IMAGES):
        kind(tmp_path / "export", images)
        return tmp_path / "export"

    return write


@pytest.mark.parametrize("kind", EXPORTS, ids=lambda kind: kind.__name__)
def test_each_export_becomes_the_same_images_and_labels(export, tmp_path, kind):
    done = convert(export(kind), tmp_path / "out")
    assert read(tmp_path / "out") == expected(IMAGES)
    assert done.kind == EXPORTS[kind]
    assert (done.train, done.test, done.unlabelled) == (3, 2, 1)
    assert set(done.labels) == {"dog", "cat", "cow"}
    audit = audit_copy(Data(name="folder"), tmp_path / "out")
    assert audit.right
    assert {one.kind for one in audit.findings} <= {"absent", "few", "frequency", "unlabelled"}
    expected_remarks = {
        "coco": {"labels that no image shows"},  # the one above all of them, of Roboflow
        "yolo": {"images without a text file, read as images without labels"},
        "table": {"rows of one image, joined", "columns that are no labels"},
    }
    assert set(done.remarks) <= expected_remarks.get(done.kind, set())


WORDS = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters="\\/;|[]{}\"',\0"),
    min_size=1,
    max_size=8,
).map(files.composed)


@st.composite
def pictures(draw):
    """Images whose names and labels are of any letters, of which some train and some test."""
    labels = draw(st.lists(WORDS, min_size=1, max_size=4, unique_by=str.casefold))
    names = draw(
        st.lists(WORDS.filter(lambda name: name[0] not in ".#"), min_size=2, max_size=5,
                 unique_by=files.spelling)
    )  # fmt: skip
    shown = st.lists(st.sampled_from(labels), unique=True).map(tuple)
    images = [
        Shown(f"{name}.jpg", draw(shown), "train" if i % 2 else "test")
        for i, name in enumerate(names)
    ]
    return [images[0]._replace(labels=(labels[0],)), *images[1:]]


@given(pictures(), st.sampled_from(sorted(EXPORTS, key=lambda kind: kind.__name__)))
@settings(max_examples=20, deadline=None, derandomize=True, database=None)
def test_any_names_and_labels_come_through(images, kind):
    with tempfile.TemporaryDirectory() as folder_name:
        root = Path(folder_name)
        kind(root / "export", images)
        convert(root / "export", root / "out")
        assert read(root / "out") == expected(images)


def test_images_are_links_or_copies_and_nothing_is_overwritten(export, tmp_path):
    source = export(exports.roboflow_coco)
    convert(source, tmp_path / "links")
    convert(source, tmp_path / "copies", copy=True)
    link, copy = (tmp_path / name / "images/train/a.jpg" for name in ("links", "copies"))
    assert link.is_symlink()
    assert not copy.is_symlink()
    assert link.read_bytes() == copy.read_bytes() == (source / "train/a.jpg").read_bytes()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="links' exists already; give a new folder"):
        convert(source, tmp_path / "links")
    with pytest.raises(UserError, match="no format|may be|not in a format"):
        convert(tmp_path / "copies/images", tmp_path / "more")
    assert sorted(tmp_path.rglob("*")) == before


def test_one_file_with_the_images_elsewhere(export, tmp_path):
    source = export(exports.label_studio)
    (source / "images").rename(tmp_path / "photos")
    file = source / "project-1.json"
    with pytest.raises(
        UserError, match=r"give it with --images\. What was read: 5 images that are not there \("
    ):
        convert(file, tmp_path / "out")
    convert(file, tmp_path / "out", images=tmp_path / "photos")
    assert read(tmp_path / "out") == expected(IMAGES)


def test_which_images_test_is_never_decided_silently(export, tmp_path):
    images = [Shown(f"{i}.jpg", ("dog", "cat")[: 1 + i % 2], "") for i in range(20)]
    source = export(lambda root, _: exports.cvat_xml(root, images))
    with pytest.raises(UserError, match="No image is said to test: .*let --test 0.2 draw"):
        convert(source, tmp_path / "out")
    done = convert(source, tmp_path / "out", test=0.2)
    assert (done.train, done.test) == (16, 4)
    tests = [labels for split, labels in read(tmp_path / "out").values() if split == "test"]
    assert sum("cat" in labels for labels in tests) == 2  # half of them, as of all images
    with pytest.raises(UserError, match="The source says itself which images test"):
        convert(export(exports.devkit), tmp_path / "other", kind="voc", test=0.5)


def test_val_tests_only_where_nothing_else_does(tmp_path):
    val = [one._replace(split="val") if one.split == "test" else one for one in IMAGES]
    exports.huggingface_objects(tmp_path / "two", val)
    done = convert(tmp_path / "two", tmp_path / "two-out")
    assert (done.train, done.test) == (3, 2)
    assert done.remarks["images of 'val', which test here"] == 2
    more = [*IMAGES, Shown("v.jpg", ("cow",), "val")]
    exports.huggingface_objects(tmp_path / "three", more)
    done = convert(tmp_path / "three", tmp_path / "three-out")
    assert (done.train, done.test) == (4, 2)
    assert done.remarks["images of 'val', which train here"] == 1


def test_what_is_skipped_is_counted_with_examples(export, tmp_path):
    source = export(exports.roboflow_coco)
    path = source / "train/_annotations.coco.json"
    content = json.loads(path.read_text())
    content["annotations"] += [{"image_id": 77, "category_id": 1}, {"image_id": 0}]
    content["images"].append({"id": 9, "file_name": "gone.jpg"})
    put(path, json.dumps(content))
    shutil.copy(source / "train/a.jpg", source / "train/new.jpg")
    done = convert(source, tmp_path / "out")
    assert read(tmp_path / "out") == expected(IMAGES)
    assert {what: (number, done.examples[what]) for what, number in done.remarks.items()} == {
        "annotations of images that are not listed":
            (1, ["train/_annotations.coco.json: image_id 77"]),
        "annotations of categories that are not listed":
            (1, ["train/_annotations.coco.json: category_id None"]),
        "images that are not there": (1, ["gone.jpg"]),
        "images on disk of which the source says nothing": (1, ["new.jpg"]),
        "labels that no image shows": (1, ["all-of-them"]),
    }  # fmt: skip


def test_an_image_that_is_meant_is_never_guessed(export, tmp_path):
    source = export(exports.cvat_coco)
    for split in ("train", "test"):  # the same names in both splits
        for i, name in enumerate(("a.jpg", "d.jpg")):
            put(source / f"images/{split}/{name}", exports._jpeg(20 + i))
    (source / "images/train/b.jpg").unlink()
    (source / "images/more").mkdir()
    shutil.copy(source / "images/train/c.jpg", source / "images/more/c.jpg")
    done = convert(source, tmp_path / "out")
    clear = [one for one in IMAGES if one.name not in ("b.jpg", "c.jpg")]
    assert read(tmp_path / "out") == expected(clear)
    assert done.examples["images that are not there"] == ["b.jpg"]
    assert done.examples["images that fit several files"] == ["c.jpg"]


def test_files_that_several_names_or_splits_fit_are_left_out(tmp_path):
    rows = [*IMAGES, Shown("./x/a.jpg", ("cow",), "train"), Shown("d.jpg", ("cow",), "train")]
    exports.row_a_label(tmp_path / "export", rows)
    shutil.rmtree(tmp_path / "export/photos/x")
    done = convert(tmp_path / "export", tmp_path / "out")
    assert set(read(tmp_path / "out")) == {"b.jpg", "c.jpg", "e.jpg"}
    assert done.examples["files that several listed names fit"] == ["./x/a.jpg and a.jpg"]
    assert done.examples["images in several splits"] == ["photos/d.jpg (test and train)"]


def test_labels_with_a_semicolon_or_of_two_unicode_forms(tmp_path):
    labels = ("a;b", "caf\u00e9", "cafe\u0301", " two \t words ", "x\x07")
    images = [Shown("a.jpg", labels, "train"), Shown("b.jpg", ("a;b",), "test")]
    exports.label_studio(tmp_path / "export", images)
    done = convert(tmp_path / "export", tmp_path / "out")
    shown = {"a;b", "caf\u00e9", "two words"}
    assert read(tmp_path / "out") == {"a.jpg": ("train", shown), "b.jpg": ("test", {"a;b"})}
    assert done.remarks["labels without a name, or with a control character"] == 1
    assert (tmp_path / "out/labels.jsonl").exists()


def test_a_format_that_is_not_clear_is_named(export, tmp_path):
    source = export(exports.devkit)
    exports.cvat_coco(source, IMAGES)
    message = r"several formats: coco \(annotations/instances_test.json\); voc \(.*Say which"
    with pytest.raises(UserError, match=message):
        convert(source, tmp_path / "out")
    assert convert(source, tmp_path / "out", kind="voc").kind == "voc"
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match=r"not in a format that is known \(coco, voc, .* no files"):
        convert(tmp_path / "nothing", tmp_path / "other")
    unlabelled = [one._replace(labels=("\x07",)) for one in IMAGES]
    exports.kaggle(tmp_path / "unlabelled", [*unlabelled, Shown("x.jpg", ("dog",), "")])
    with pytest.raises(UserError, match="None of the 5 images .* has a label: 5 labels without"):
        convert(tmp_path / "unlabelled", tmp_path / "other")
    with pytest.raises(UserError, match="gone' does not exist"):
        convert(tmp_path / "gone", tmp_path / "other")


BOMB = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'


@pytest.mark.parametrize(
    ("kind", "file", "content", "message"),
    [
        ("voc", "a.xml", f"{BOMB}<annotation>&b;</annotation>", "declares the entity 'a'"),
        ("cvat", "a.xml", f"{BOMB}<annotations>&b;</annotations>", "declares the entity 'a'"),
        ("voc", "a.xml", "<annotation><object>", "a.xml' is not valid XML: no element found"),
        ("cvat", "a.xml", "<annotations><track/></annotations>", "a.xml' is about a video"),
        ("coco", "a.json", '{"images": [], "annotations": ', "a.json' .* is not valid JSON"),
        ("coco", "a.json", '{"images": [], "annotations": []}', "has no list 'categories'"),
        ("label-studio", "a.json", '[{"data": 1', "a.json' is not valid JSON"),
        ("table", "a.csv", "file,size\na.jpg,3.5\n", "a.csv' has no labels: a column called"),
        ("table", "a.csv", "file,label\nb.jpg,x\n", "a.csv. has, in a column .* no image below"),
        ("table", "a.csv", "file,label\na.jpg\n", "line 2 has 1 fields, the first line has 2"),
        ("table", "a.csv", "file,x,x\na.jpg,1,0\n", "two columns of one name"),
        ("huggingface", "metadata.jsonl", "[1, 2]\n", r"line 1 is \[1, 2\]; one object a line"),
        ("huggingface", "metadata.jsonl", "{\n", "line 1 is not valid JSON"),
        ("yolo", "data.yaml", "names: {a: b}\n", "names = {'a': 'b'}; a list, or a mapping"),
    ],
)  # fmt: skip
def test_damaged_exports_are_one_paragraph(tmp_path, kind, file, content, message):
    put(tmp_path / "export/a.jpg")
    put(tmp_path / "export/a.txt", "0 0.5 0.5 0.5 0.5\n")
    put(tmp_path / "export" / file, content)
    with pytest.raises(UserError, match=message):
        convert(tmp_path / "export", tmp_path / "out", kind=kind)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export"]
    assert kind in FORMATS
