"""sadcl data check: damage of each kind in small copies is found, named and nothing else is."""

from __future__ import annotations

import io
import json
import math
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from sadcl.cli import app
from sadcl.config import Data
from sadcl.data.audit import image_file, published_counts
from sadcl.data.audit.findings import KINDS, audit_copy
from sadcl.data.base import ImageSet
from sadcl.data.load import load
from sadcl.data.readers import vg500
from sadcl.errors import UserError
from tests.data.readers.layouts import LAYOUTS, TEST, TRAIN, objects_xml, put

BY_NAME = {layout.name: layout for layout in LAYOUTS}


@pytest.fixture(autouse=True)
def three_categories(monkeypatch):
    monkeypatch.setattr(vg500, "CATEGORIES", 3)


def picture(seed, format="JPEG", size=(40, 30), mode="RGB", **options):
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(sink := io.BytesIO(), format, **options)
    return sink.getvalue()


@pytest.fixture
def copy(tmp_path):
    """Writes a layout's copy with another picture in each file; gives its root and the paths of both splits."""

    def write(name, train=TRAIN, test=TEST):
        layout = BY_NAME[name]
        layout.write(tmp_path, train, test)
        data = load(layout.config.model_copy(update={"holdout": 0}), tmp_path)
        paths = [[images.path(i) for i in range(len(images))] for images in (data.train, data.test)]
        for i, path in enumerate(paths[0] + paths[1]):
            (tmp_path / path).write_bytes(picture(i))
        return layout.config, tmp_path, paths

    return write


def found(result, *kinds):
    """Split, file, label and detail of the findings of these kinds."""
    rows = [row for row in result.findings if row.kind in kinds]
    return [(row.split, row.file.rsplit("/", 1)[-1], row.label, row.detail) for row in rows]


def kinds(result):
    return {row.kind for row in result.findings}


@pytest.mark.parametrize("name", BY_NAME)
def test_every_layout_is_checked_and_right_copies_have_no_findings_of_damage(copy, name):
    config, root, _ = copy(name)
    result = audit_copy(config, root)
    assert kinds(result) <= {"count", "absent", "unlabelled", "frequency"}
    assert result.opened == len(TRAIN) + len(TEST)
    assert [row[:2] for row in found(result, "unlabelled")] == [
        ("train", BY_NAME[name].files[0](2).rsplit("/", 1)[-1]),
        ("test", BY_NAME[name].files[1](2).rsplit("/", 1)[-1]),
    ]
    counted = {
        (row.split, row.label): row.number for row in result.findings if row.kind == "frequency"
    }
    labels = BY_NAME[name].labels
    for part, split in (("train", TRAIN), ("test", TEST)):
        for column, label in enumerate(labels):
            assert counted[part, label] == sum(column in shown for shown in split)
    assert result.right == (
        name.startswith("folder") or name in ("nuswide-lists", "nuswide-all", "nuswide-csv")
    )


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "unreadable": lambda path: (path.unlink(), path.mkdir()),
    "missing": lambda path: path.unlink(),
    "grayscale": lambda path: path.write_bytes(picture(99, mode="L")),
    "CMYK": lambda path: path.write_bytes(picture(99, mode="CMYK")),
    "misnamed": lambda path: path.write_bytes(picture(99, "PNG")),
    "rotated": lambda path: path.write_bytes(picture(99, exif=_turned(6))),
    "duplicate": lambda path: path.write_bytes(path.with_name("1.jpg").read_bytes()),
    "leak": lambda path: path.write_bytes((path.parent / "more/1.jpg").read_bytes()),
}


def _turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("kind", DAMAGE)
def test_one_file_of_each_kind(copy, kind):
    config, root, _ = copy("folder-csv")
    DAMAGE[kind](root / "photos/5.jpg")
    result = audit_copy(config, root)
    severity = KINDS[kind][0]
    assert kinds(result) == {"unlabelled", "frequency", kind}
    (row,) = [row for row in result.findings if row.kind == kind]
    assert row.severity == severity
    file = ("test", "photos/more/1.jpg") if kind == "leak" else ("train", "photos/5.jpg")
    assert (row.split, row.file) == file
    assert result.right == (severity != "error")
    assert (kind in kinds(audit_copy(config, root, fast=True))) == (kind == "missing")


@pytest.mark.parametrize(
    "quality", [{}, {"progressive": True}, {"mode": "L"}, {"format": "PNG"}, {"format": "WEBP"}]
)
@pytest.mark.parametrize("cut", [-2, -200, 400])
def test_files_that_were_cut_short(tmp_path, quality, cut):
    """What a look takes for whole, training can decode, and the other way round."""
    whole = picture(1, size=(200, 120), **quality)
    path = tmp_path / "a.jpg"
    path.write_bytes(whole)
    assert "corrupt" not in dict(image_file.inspect_file(str(path)).remarks)
    path.write_bytes(whole[:cut])
    remarks = dict(image_file.inspect_file(str(path)).remarks)
    try:
        image_file.decode(whole[:cut], "a.jpg")
    except UserError:
        assert "a.jpg" in remarks["corrupt"]
    else:
        assert "corrupt" not in remarks
    if cut == 400:
        assert "corrupt" in remarks


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"mode": "L"}])
def test_a_hole_in_a_file_that_decodes_all_the_same(tmp_path, options):
    exif = Image.Exif()
    exif[0x927C] = bytes(4000)  # a camera's own notes
    whole = picture(1, size=(400, 300), exif=exif, **options)
    path = tmp_path / "a.jpg"
    path.write_bytes(whole + bytes(4000))
    assert not {"hole", "corrupt"} & dict(image_file.inspect_file(str(path)).remarks).keys()
    start = len(whole) - 9000
    path.write_bytes(whole[:start] + bytes(4096) + whole[start + 4096 :])
    remarks = dict(image_file.inspect_file(str(path)).remarks)
    assert remarks["hole"].startswith("from byte")
    assert "corrupt" not in remarks


def test_what_is_no_image_is_corrupt(copy):
    config, root, _ = copy("folder-csv")
    put(root / "photos/3.jpg", "<html>404</html>")
    put(root / "photos/more/2.jpg", "<html>404</html>")  # the same page in place of a test image
    result = audit_copy(config, root)
    assert [(s, f) for s, f, _, _ in found(result, "corrupt")] == [
        ("train", "3.jpg"),
        ("test", "2.jpg"),
    ]
    assert "no known image format" in found(result, "corrupt")[0][3]
    assert [(s, f) for s, f, _, _ in found(result, "leak")] == [("test", "2.jpg")]


def test_twins_say_whose_and_whether_their_labels_agree(copy):
    config, root, paths = copy("coco14")
    for path, other in (
        (paths[0][5], paths[0][0]),
        (paths[0][6], paths[0][0]),
        (paths[1][3], paths[0][0]),
    ):
        put(root / path, (root / other).read_bytes())
    result = audit_copy(config, root)
    twin = "same bytes as COCO_train2014_000000000000.jpg"
    assert found(result, "duplicate") == [
        ("train", "COCO_train2014_000000000005.jpg", "", twin),
        ("train", "COCO_train2014_000000000006.jpg", "", f"{twin}, but other labels"),
    ]
    assert found(result, "leak") == [("test", "COCO_val2014_000000000003.jpg", "", twin)]


def test_a_copy_without_some_images_by_policy(copy):
    config, root, paths = copy("nuswide-lists")
    for path in (paths[0][1], paths[1][0]):
        (root / path).unlink()
    strict, dropping = (
        audit_copy(config, root),
        audit_copy(config.model_copy(update={"missing": "drop"}), root),
    )
    assert not strict.right
    assert dropping.right
    assert (
        [row[0] for row in found(strict, "missing")]
        == [row[0] for row in found(dropping, "missing")]
        == ["train", "test"]
    )
    assert load(config.model_copy(update={"missing": "drop"}), root).missing == 2


def test_coco_boxes_without_area(copy):
    config, root, _ = copy("coco14")
    path = root / "annotations/instances_val2014.json"
    content = json.loads(path.read_text())
    for annotation, box in zip(
        content["annotations"], ([1, 2, 3, 4], [1, 2, 0, 4], [1, 2, 3]), strict=False
    ):
        annotation["bbox"] = box
    path.write_text(json.dumps(content))
    assert found(audit_copy(config, root), "box") == [
        ("test", "COCO_val2014_000000000000.jpg", "cat", "bbox [1, 2, 0, 4]"),
        ("test", "COCO_val2014_000000000001.jpg", "cow", "bbox [1, 2, 3]"),
    ]


def test_voc_boxes_without_area_and_difficult_objects(copy):
    config, root, _ = copy("voc2007")
    xml = objects_xml("VOC2007", [("cat", 0), ("dog", 0), ("bus", 1)])
    for right in ("5.5", "1", "?"):
        xml = xml.replace("<xmax>5</xmax>", f"<xmax>{right}</xmax>", 1)
    put(root / "VOCdevkit/VOC2007/Annotations/000001.xml", xml)
    result = audit_copy(config.model_copy(update={"difficult": "ignore"}), root)
    corners = [
        ("train", "000001.jpg", "dog", "corners 1, 2, 1, 9"),
        ("train", "000001.jpg", "bus", "corners 1, 2, ?, 9"),
    ]
    assert found(result, "box") == corners
    assert ("train", "000001.jpg", "bus", "") in found(result, "ignored")


def test_visual_genome_objects_without_area(copy):
    config, root, _ = copy("vg500-objects")
    path = root / "objects.json"
    content = json.loads(path.read_text())
    content[0]["objects"][0]["w"] = 0
    path.write_text(json.dumps(content))
    assert found(audit_copy(config, root), "box") == [("train", "1.jpg", " Man", "w 0, h 1")]


def test_a_split_whose_labels_are_with_the_server(copy):
    _, root, _ = copy("voc2012")
    home = root / "VOCdevkit/VOC2012"
    for part, names in (("trainval", ["000000", "000001"]), ("test", ["000500"])):
        put(home / f"ImageSets/Main/{part}.txt", "\n".join(names))
    result = audit_copy(Data(name="voc2012", voc2012_test="server"), root)
    assert found(result, "ignored") == [("test", "", "", "no label of this split is known")]
    assert not any(
        row.split == "test" and row.kind in ("absent", "frequency") for row in result.findings
    )


def test_labels_that_nothing_shows(copy):
    config, root, _ = copy("folder-csv", [*TRAIN[:-1], {0}], [{0}, {1}])
    assert found(audit_copy(config, root), "absent") == [
        ("test", "", "cat", "it has no AP, and is left out of mAP")
    ]


def numbers(name, train, test, labels, shown, **fields):
    """Lines of a made-up copy in which ``shown`` labels are on each labelled image; None is an image without."""
    sets = []
    for count, bare in (train, test):
        targets = np.zeros((count + bare, labels), np.int8)
        targets[:count, : math.floor(shown)] = 1
        targets[: round(count * (shown % 1)), math.floor(shown)] = 1
        sets.append(
            ImageSet(
                "x",
                "",
                ["x"] * (count + bare),
                targets,
                ("x",) * labels,
                fields.pop("listed", "list"),
            )
        )
    lines = published_counts.compare_counts(Data(name=name, **fields), sets)
    return {line.what: (line.severity, line.remark) for line in lines}


@pytest.mark.parametrize(
    ("name", "train", "test", "labels", "shown", "fields"),
    [
        ("coco14", (82_081, 702), (40_137, 367), 80, 2.94, {}),
        ("voc2007", (5_011, 0), (4_952, 0), 20, 1.45, {}),
        ("voc2012", (5_717, 0), (5_823, 0), 20, 1.4, {}),
        ("voc2012", (11_540, 0), (10_991, 0), 20, 1.4, {"voc2012_test": "server"}),
        ("nuswide", (125_449, 36_340), (83_898, 23_961), 81, 2.42, {}),
        ("nuswide", (125_449, 0), (83_898, 0), 81, 2.42, {}),
    ],
)
def test_whole_copies_agree_with_the_published_numbers(name, train, test, labels, shown, fields):
    assert {
        severity for severity, _ in numbers(name, train, test, labels, shown, **fields).values()
    } == {""}


def test_numbers_that_differ_say_why_that_may_be_right():
    dropped = numbers("coco14", (82_081, 0), (40_137, 0), 80, 2.94)
    assert dropped["train images"][0] == dropped["test images"][0] == "warning"
    assert "with a label alone" in dropped["train images"][1]
    cut = numbers("coco14", (82_780, 0), (40_504, 0), 79, 2.0)
    assert [cut[what][0] for what in ("train images", "test images", "labels", "labels an image")] == [
        "error", "", "error", "warning"]  # fmt: skip
    assert numbers("nuswide", (119_000, 0), (50_000, 0), 81, 2.4)["train images"][0] == "warning"
    assert "trainval" in numbers("voc2012", (5_717, 0), (5_823, 0), 20, 1.4)["train images"][1]
    listed = numbers(
        "vg500", (900, 0), (100, 0), 500, 13.6
    )  # both from one file: there are no lists
    assert listed["train images"][0] == "warning"
    assert "SSGRL" in listed["train images"][1]


def test_the_report_has_a_row_for_each_finding(command, copy):
    config, root, paths = copy("coco14")
    put(root / paths[0][3], b"")
    done = command(
        "sadcl",
        "data",
        "check",
        "coco",
        "--data-root",
        root,
        "--report",
        "found/report.parquet",
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "empty: the file has zero bytes\tCOCO_train2014_000000000003.jpg" in done.stdout
    assert "train images\t8\t82,783\terror\tdiffers: not the whole data set" in done.stdout
    rows = pq.read_table(root / "found/report.parquet")
    assert rows.column_names == ["kind", "severity", "split", "file", "label", "detail", "number"]
    assert rows.num_rows == len(audit_copy(config, root).findings)
    assert rows.to_pylist()[3] == {
        "kind": "empty", "severity": "error", "split": "train", "file": "COCO_train2014_000000000003.jpg", "label": "",
        "detail": "0 bytes",
        "number": None}  # fmt: skip
    assert rows.to_pylist()[-1]["kind"] == "frequency"


def typed(*words):
    """Exit code, output and error of ``sadcl data check`` typed in this process."""
    done = CliRunner().invoke(app.app, ["data", "check", *map(str, words)])
    return done.exit_code, done.output, done.exception


def test_a_copy_that_cannot_be_read_is_one_paragraph_and_one_row(copy):
    _, root, _ = copy("voc2007")
    put(root / "VOCdevkit/VOC2007/Annotations/000001.xml", objects_xml("VOC2007", [("kat", 0)]))
    _, output, error = typed("voc2007", "--data-root", root, "--report", root / "r.parquet")
    assert (output, type(error)) == (
        "",
        UserError,
    )  # of which the command makes one paragraph and exit code 2
    (row,) = pq.read_table(root / "r.parquet").to_pylist()
    assert row["detail"] == str(error)
    assert "000001.xml' has an object of class 'kat'" in row["detail"]


def test_a_right_copy_and_few_examples_of_many(copy):
    _, root, _ = copy("folder-csv", [set()] * 9 + [{0, 1, 2}], [{0, 1, 2}])
    code, output, _ = typed("folder", "--data-root", root, "--fast")
    assert code == 0
    assert (
        "9\ttrain\tunlabelled: an image without a label\tphotos/0.jpg; photos/1.jpg; photos/2.jpg; and 6 more"
        in output
    )
    assert "No image file was opened (--fast)" in output
    assert "RIGHT: no errors; --report" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("cocoo",), "no data set 'cocoo'; did you mean 'coco'"),
        (("coco",), "give their folder with --data-root"),
        (
            ("folder", "--data-root", "{root}", "--set", "mising=drop"),
            "Did you mean 'data.missing'",
        ),
        (
            ("folder", "--data-root", "{root}", "--set", "name=coco"),
            "the data set is the first argument, 'folder' here",
        ),
        (
            ("folder", "--data-root", "{root}", "--set", "missing"),
            "--set 'missing' is not possible",
        ),
        (
            ("folder", "--data-root", "{root}", "--set", "missing=maybe"),
            "data.missing = 'maybe' is not possible",
        ),
        (
            ("folder", "--data-root", "{root}", "--report", "{root}"),
            "is a folder: give another place",
        ),
        (
            ("folder", "--data-root", "{root}", "--report", "{root}/labels.csv/r.parquet"),
            "cannot be written in",
        ),
    ],
)
def test_mistakes_are_known_at_once(copy, words, message):
    _, root, _ = copy("folder-csv")
    _, output, error = typed(*(word.format(root=root) for word in words))
    assert isinstance(error, UserError)
    assert message in str(error)
    assert not output


def test_policies_are_options(copy):
    _, root, _ = copy("folder-csv")
    (root / "photos/1.jpg").unlink()
    assert typed("folder", "--data-root", root)[0] == 1
    assert typed("folder", "--data-root", root, "--set", "missing=drop")[0] == 0


def test_a_look_that_is_stopped_leaves_the_files_that_are_left(monkeypatch):
    seen = []

    def slow(path):
        seen.append(path)
        time.sleep(0.01)
        return image_file.ImageFile(b"", ())

    monkeypatch.setattr(image_file, "inspect_file", slow)
    some = image_file.inspect_files([str(i) for i in range(5000)])
    next(some)
    some.close()
    assert len(seen) < 500

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("sadcl.data.audit.findings.audit_copy", stopped)
    code, output, _ = typed("scenes")
    assert (code, output) == (130, "stopped; no report was written.\n")


def test_labels_that_look_like_several(copy):
    config, root, _ = copy("folder-csv")
    (root / "labels.txt").unlink()
    put(
        root / "labels.csv",
        "file,labels,split\nphotos/0.jpg,\"['ant'; 'bee']\",train\nphotos/1.jpg,\"ant,bee\",test\n",
    )
    result = audit_copy(config, root)
    assert [row[2] for row in found(result, "label")] == ["'bee']", "['ant'", "ant,bee"]
    assert result.right


def test_what_follows_a_picture_is_no_hole_in_it(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(picture(1) + bytes(4096) + picture(2))
    assert "hole" not in dict(image_file.inspect_file(str(path)).remarks)


def test_lab_has_colours(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(picture(1, "TIFF", mode="RGB"))
    image = Image.open(path).convert("RGB")
    from PIL import ImageCms

    lab = ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    lab.save(path, "TIFF")
    assert Image.open(path).mode == "LAB"
    assert "grayscale" not in dict(image_file.inspect_file(str(path)).remarks)
