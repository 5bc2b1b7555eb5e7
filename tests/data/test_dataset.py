"""A data set of the user's: the constructor of its splits, and the way through the loader."""

import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from sadcl.cli.app import app
from sadcl.config import Config, Data
from sadcl.data import MultiLabelData, image_set, load, read_listing, witness_files
from sadcl.data.dataset import OwnReader
from sadcl.errors import UserError
from tests.own_parts import LABELS, make_birds, write_module

BIRDS = "bird_parts:birds"


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    write_module(tmp_path, "bird_parts")
    return make_birds(tmp_path / "birds")


def test_a_split_is_made_of_files_and_targets():
    images = image_set("photos", ["a/1.png", "2.png"], [[True, False, False], [0, -1, 1]], LABELS)
    assert images.path(0) == "photos/a/1.png"
    assert images.targets.dtype == np.int8
    assert images.targets.tolist() == [[1, 0, 0], [0, -1, 1]]
    assert images.labels == LABELS
    assert len(image_set("photos", [], [], LABELS)) == 0
    assert image_set("p", ["1"], np.array([[1.0, 0.0]]), ["x", "y"]).targets.tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("files", "targets", "labels", "message"),
    [
        (["1"], [[1, 0, 1]], "ab", r"shape \(files, labels\) = \(1, 2\), but have \(1, 3\)"),
        (["1", "2"], [[1, 0]], "ab", r"= \(2, 2\), but have \(1, 2\)"),
        (["1"], [1, 0], "ab", r"but have \(2,\)"),
        (["1"], [[1, 2]], "ab", r"1, 0 or -1 \(ignored\), but '1' has 2 for the label 'b'"),
        (["1"], [[1, 0.5]], "ab", r"'1' has 0.5 for the label 'b'"),
        (["1", "2", "1"], [[1], [0], [1]], "a", "the file '1' occurs 2 times"),
        (["1"], [[1, 0]], "aa", "the label 'a' occurs 2 times"),
        (["/x/1.png"], [[1]], "a", "'/x/1.png' must be a path below the folder, such as '1.png'"),
        (["../1"], [[1]], "a", "must be a path below the folder"),
        ([""], [[1]], "a", "a file must be a text that is not empty"),
        (["a\n"], [[1]], "a", r"the file 'a\\n' has the character \\n"),
    ],
)
def test_what_is_no_split_is_refused(files, targets, labels, message):
    with pytest.raises(ValueError, match=message):
        image_set("photos", files, targets, labels)


def test_it_is_held_out_limited_and_identified_as_any_other(root):
    data = load(Data(name=BIRDS, holdout=0.25, arguments={"table": "birds.csv"}), root)
    assert isinstance(data, MultiLabelData)
    assert (data.name, data.labels, data.missing) == (BIRDS, LABELS, 0)
    assert (len(data.train) + len(data.val), len(data.test)) == (36, 12)
    assert 6 <= len(data.val) <= 12
    assert data.train.path(0).startswith(str(root / "photos"))
    assert data.train.reopen is not None, "loader processes share its pages"
    fewer = load(Data(name=BIRDS, holdout=0.25, limit_train=20, limit_test=5), root)
    assert (len(fewer.train) + len(fewer.val), len(fewer.test)) == (20, 5)
    assert fewer.digest != data.digest == load(Data(name=BIRDS, holdout=0.25), root).digest
    names = witness_files(data, Data(name=BIRDS), root)
    assert "photos/000.png" in names
    assert all((root / name).is_file() for name in names)
    # what changes is read anew
    table = root / "birds.csv"
    table.write_text(table.read_text().replace("001.png,finch heron", "001.png,owl"))
    assert load(Data(name=BIRDS, holdout=0.25), root).digest != data.digest


def test_images_that_are_missing_follow_the_policy(root):
    (root / "photos" / "007.png").unlink()
    message = f"1 of 36 images that the training split of {BIRDS} lists are missing in .*007.png"
    with pytest.raises(UserError, match=message):
        load(Data(name=BIRDS), root)
    assert load(Data(name=BIRDS, missing="drop"), root).missing == 1


def test_an_image_must_not_train_and_test(root):
    table = root / "birds.csv"
    table.write_text(table.read_text() + "000.png,owl,train\n")
    with pytest.raises(UserError, match=f"1 images are in the training split of {BIRDS} and in"):
        load(Data(name=BIRDS), root)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "bird_parts:nothing"}, r"must return the training and the test split.*NoneType"),
        ({"name": "bird_parts:late"}, r"FileNotFoundError: .*bird_parts.py line \d+\)"),
        ({"name": "bird_parts:robins"}, "data.name = .* bird_parts has no 'robins'; it has birds"),
        ({"name": "no_such_parts:birds"}, "data.name = .* cannot be imported"),
        ({"arguments": {"tabel": "x"}}, "data.arguments: .* has no argument 'tabel'; it takes tab"),
        ({"arguments": {"table": 3}}, "data.arguments.table = 3 is not possible"),
        ({"prepared": 64}, "Prepared copies are only read of data sets that are built in"),
    ],
)
def test_mistakes_name_the_field_and_the_path(root, changes, message):
    with pytest.raises(UserError, match=message):
        load(Data(**{"name": BIRDS, "image_size": 32, **changes}), root)


def test_other_mistakes(root, tmp_path):
    with pytest.raises(UserError, match="needs images: give their folder with --data-root"):
        load(Data(name=BIRDS))
    with pytest.raises(UserError, match="does not exist"):
        load(Data(name=BIRDS), tmp_path / "nowhere")
    with pytest.raises(UserError, match="arguments belongs to a data set of your own"):
        Data(name="folder", arguments={"table": "x"})
    with pytest.raises(UserError, match="bird_parts.py was edited after this run was planned"):
        load(Data(name=BIRDS), root, sources={"bird_parts": "0123456789ab"})


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (
            "[image_set(root.parent, [f], [[1]], ['a']) for f in 'xy']",
            "must be below the data root",
        ),
        (
            "[image_set(root, ['x'], [[1, 1]], ['a', name]) for name in 'bc']",
            "training split has 'b' the test split has 'c'",
        ),
        ("[image_set(root, ['x'], [[1]], 'a')]", r"but returned \(ImageSet\)"),
        ("image_set(root, ['x'], [[3]], 'a')", "= 'odd:birds': targets must be 1, 0 or -1"),
    ],
)
def test_what_it_returns_is_checked(tmp_path, monkeypatch, expression, message):
    monkeypatch.syspath_prepend(str(tmp_path))
    source = f"from sadcl.data import image_set\ndef birds(root):\n    return {expression}\n"
    (tmp_path / "odd.py").write_text(source)
    sys.modules.pop("odd", None)
    with pytest.raises(UserError, match=message):
        OwnReader().read(tmp_path, Data(name="odd:birds"))


def test_another_source_is_another_run(root, tmp_path):
    config = Config(data=Data(name=BIRDS))
    (tmp_path / "bird_parts.py").open("a").write("# changed\n")
    assert Config(data=Data(name=BIRDS)).digest() != config.digest()


def test_the_command_that_checks_a_copy_takes_it(root):
    assert [len(part) for part in read_listing(Data(name=BIRDS), root).splits] == [36, 12]
    where = [BIRDS, "--data-root", str(root)]
    done = CliRunner().invoke(app, ["data", "check", *where, "--set", "arguments.table=birds.csv"])
    assert done.exit_code == 0, done
    assert "48 image files were read" in done.output
    assert "UNSURE: no errors, but 2 warnings" in done.output  # that it is small
    refused = CliRunner().invoke(app, ["data", "prepare", *where, "--to", str(root / "copies")])
    assert refused.exit_code == 2
    assert "Copies can only be prepared of data sets that are" in refused.output
