"""``sadcl data check``: its output, its exit code, and mistakes."""

from __future__ import annotations

import functools
import shutil

import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from sadcl.cli.app import app
from sadcl.config import Data
from sadcl.data import bad_rows
from sadcl.data.audit import findings
from sadcl.data.audit.findings import audit_copy
from sadcl.data.load import load
from sadcl.data.readers import vg500
from sadcl.errors import UserError
from sadcl.search import plan_text
from tests.data.audit.copies import write_copy
from tests.data.convert import exports
from tests.data.readers.layouts import objects_xml, put


@pytest.fixture(autouse=True)
def three_categories(monkeypatch):
    monkeypatch.setattr(vg500, "CATEGORIES", 3)


@pytest.fixture
def copy(tmp_path):
    """Writes a copy (:func:`write_copy`) into the test's folder."""
    return functools.partial(write_copy, tmp_path)


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
        "kind": "empty", "severity": "error", "split": "train",
        "file": "COCO_train2014_000000000003.jpg", "label": "",
        "detail": "0 bytes",
        "number": None}  # fmt: skip
    assert rows.to_pylist()[-1]["kind"] == "frequency"


def typed(*words):
    """Exit code, output and error of ``sadcl data check`` typed in this process."""
    done = CliRunner().invoke(app, ["data", "check", *map(str, words)])
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


def test_a_right_copy_and_few_examples_of_many(copy, monkeypatch):
    monkeypatch.setattr(findings, "MIN_IMAGES", 1)
    _, root, _ = copy("folder-csv", [set()] * 9 + [{0, 1, 2}], [{0, 1, 2}])
    code, output, _ = typed("folder", "--data-root", root, "--fast")
    assert code == 0
    examples = "photos/0.jpg; photos/1.jpg; photos/2.jpg; and 6 more"
    assert f"9\ttrain\tunlabelled: an image without a label\t{examples}" in output
    assert "No image file was opened (--fast)" in output
    assert (
        "RIGHT: no errors in lists and label names; to write all findings, pass --report" in output
    )


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


def test_a_check_that_is_stopped_writes_no_report(monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("sadcl.data.audit.findings.audit_copy", stopped)
    code, output, _ = typed("scenes")
    assert (code, output) == (130, "Stopped. No report was written.\n")


def test_an_export_is_converted_and_then_checks_right(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exports.label_studio(tmp_path / "export", exports.IMAGES)
    shutil.copy(tmp_path / "export/images/a.jpg", tmp_path / "export/images/new.jpg")

    def converted(*words):
        return CliRunner().invoke(app, ["data", "convert", "export", *words])

    output = converted("--to", "folder", "-o", "out").output
    assert "1\timages on disk of which the source says nothing\tnew.jpg" in output
    assert (
        "out has 3 train and 2 test images (1 without a label), which are links to the source, and "
        "3 labels; read as label-studio from project-1.json. Next: sadcl data check folder "
        "--data-root out"
    ) in output
    code, output, _ = typed("folder", "--data-root", "out")
    assert code == 0
    assert "5 image files were read" in output
    for words, message in (
        (["-o", "out"], "out' exists already"),
        (["-o", "x", "--from", "cocoo"], "no format 'cocoo'; did you mean 'coco'?"),
        (["-o", "x", "--to", "coco"], "--to 'coco' is not possible"),
    ):
        assert message in str(converted(*words).exception)


def test_all_bad_rows_of_a_folder_are_listed_and_the_others_checked(tmp_path):
    rows = ["a.png,cat,train", "b.png,dog,test", "a.png,cat,train", "c.png,cat,training", "d.png"]
    rows += [f"x{i}.png,cat,validation" for i in range(30)]
    put(tmp_path / "labels.csv", "\n".join(["file,labels,split", *rows]) + "\n")
    for name in "abc":
        Image.effect_noise((40, 40), 60 + ord(name)).save(tmp_path / f"{name}.png")
    report = tmp_path / "report.parquet"
    code, output, _ = typed("folder", "--data-root", tmp_path, "--report", report)
    assert code == 1
    text = output
    assert "error\t33\t\trow: rows of the table that cannot be used" in text
    assert "line 4 has 'a.png' a second time, first in" in text
    assert "line 5 has the split 'training'; train or test is possible" in text
    assert "line 6 has 1 fields, the first line has 3" in text
    assert "... and 13 more rows." in text
    assert "2 image files were read and decoded" in text
    assert "WRONG: 33 errors; all findings are in" in text
    assert [row["kind"] for row in pq.read_table(report).to_pylist()].count("row") == 33
    with pytest.raises(
        UserError, match=r"line 4 has 'a.png' .* 32 more rows are wrong; this lists"
    ):
        load(Data(name="folder"), tmp_path)


def test_more_bad_rows_than_are_described_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(bad_rows, "MOST_ROWS", 4)
    rows = [f"x{i}.png,cat,validation" for i in range(9)]
    put(tmp_path / "labels.csv", "\n".join(["file,labels,split", *rows]) + "\n")
    code, output, _ = typed("folder", "--data-root", tmp_path)
    assert code == 1
    assert "more rows, which are not listed" in output
    assert "WRONG: 9 errors" in output


def test_few_held_out_images_are_warned_of(tmp_path):
    assert findings.MIN_IMAGES == plan_text.MIN_IMAGES
    names = [f"{i}.png" for i in range(30)]
    for name in names:
        Image.effect_noise((40, 40), 60).save(tmp_path / name)
    rows = [f"{name},cat,{'test' if i < 3 else 'train'}" for i, name in enumerate(names)]
    put(tmp_path / "labels.csv", "\n".join(["file,labels,split", *rows]) + "\n")
    _, output, _ = typed("folder", "--data-root", tmp_path, "--fast")
    assert "Training will hold out 3 training images to select by" in output
    warned = [
        row for row in audit_copy(Data(name="folder"), tmp_path).findings if row.kind == "few"
    ]
    assert [row.split for row in warned] == ["held-out", "test"]
    assert len(load(Data(name="folder"), tmp_path).val) == 3
