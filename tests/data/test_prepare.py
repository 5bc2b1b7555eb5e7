"""A copy of resized images: the same set, the same pixels, and never taken for the photographs."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sadcl import data
from sadcl.cli.app import app
from sadcl.config import Augmentation, Config, Data, Stage
from sadcl.data import prepare as module
from sadcl.data.loader import Loader
from sadcl.data.prepare import prepare
from sadcl.data.readers import vg500
from sadcl.data.readers.scenes import ensure
from sadcl.data.transforms import read_image
from sadcl.errors import UserError
from tests.data.readers.layouts import LAYOUTS, TEST, TRAIN


@pytest.fixture
def root(tmp_path):
    return str(ensure(tmp_path / "source", seed=0, train=12, test=4))


def load(root, **fields):
    return data.load(Data(name="coco17", holdout=0.25, **fields), root)


@pytest.mark.parametrize("layout", LAYOUTS, ids=repr)
def test_every_layout_reads_as_its_source(layout, tmp_path, monkeypatch):
    monkeypatch.setattr(vg500, "CATEGORIES", 3)
    (tmp_path / "source").mkdir()
    layout.write(tmp_path / "source", TRAIN, TEST)
    done = prepare(
        layout.config.model_copy(update={"limit_train": 2, "unlabelled": "drop"}),
        str(tmp_path / "source"),
        tmp_path / "copy",
        32,
    )
    assert (done.images, done.written) == (12, 12)
    one = data.load(layout.config, tmp_path / "source")
    two = data.load(layout.config.model_copy(update={"prepared": 32}), tmp_path / "copy")
    assert one.digest == two.digest
    for i in range(len(one.train)):
        assert torch.equal(read_image(one.train.path(i), 32), read_image(two.train.path(i), 32))
        assert os.path.getsize(two.train.path(i)) == 3 * 32 * 32 + 13


def test_training_sees_the_same_bytes(root, tmp_path):
    """Where the augmentation resizes to the size of the copies."""
    prepare(Data(name="coco17"), root, tmp_path / "copy", 96)
    spec = Augmentation(resize=96, multiscale=(1.0, 0.5), flip=True)
    one, two = (
        list(
            Loader(
                images.train, image_size=64, augmentation=spec, batch_size=4, shuffle=True
            ).batches(1)
        )
        for images in (load(root), load(tmp_path / "copy", prepared=96))
    )
    assert all(
        torch.equal(a.images_BCHW, b.images_BCHW) and torch.equal(a.index_B, b.index_B)
        for a, b in zip(one, two, strict=True)
    )


def test_it_goes_on_where_it_was_stopped(root, tmp_path, monkeypatch):
    config, copy = Data(name="coco17"), tmp_path / "copy"
    calls, reader = [], read_image

    def stopped(path, size, _):
        calls.append(path)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return reader(path, size)

    monkeypatch.setattr(module, "read_image", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare(config, root, copy, 64)
    with pytest.raises(UserError, match="not complete.*resumes"):
        load(copy, prepared=64)
    seen = []
    done = prepare(config, root, copy, 64, lambda done, all_: seen.append((done, all_)))
    assert 0 < done.written < 16
    assert seen == [(n, 16) for n in range(17 - done.written, 17)]
    assert prepare(config, root, copy, 64).written == 0
    changed = load(root).train.path(0)
    os.utime(changed, ns=(1, 1))
    assert prepare(config, root, copy, 64).written == 1
    time.sleep(0.01)  # a tick of the file system's clock
    Path(changed).write_bytes(Path(load(root).train.path(1)).read_bytes())  # as cp -p copies
    os.utime(changed, ns=(1, 1))
    assert prepare(config, root, copy, 64).written == 1


def test_ctrl_c_leaves_whole_files_and_says_that_it_goes_on(root, tmp_path, monkeypatch, capfd):
    words = [
        "data",
        "prepare",
        "coco",
        "--data-root",
        root,
        "--to",
        str(tmp_path / "copy"),
        "--size",
        "64",
    ]

    def slow(path, size, _):
        if path.endswith("5.jpg"):
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        return read_image(path, size)

    with monkeypatch.context() as patch:
        patch.setattr(module, "read_image", slow)
        ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 130
    assert ended.stderr.endswith("\nStopped. Nothing is lost; run the same command to resume.\n")
    assert "Stopping the copy to " in ended.stderr
    copies = list((tmp_path / "copy").rglob("[!.]*.jpg"))
    assert 0 < len(copies) < 16
    assert {p.stat().st_size for p in copies} == {3 * 64 * 64 + 13}
    ended = CliRunner().invoke(app, words)
    assert "16 images of 64 x 64 pixels" in ended.output
    assert f"({16 - len(copies)} written now" in " ".join(ended.output.split())
    assert load(tmp_path / "copy", prepared=64).digest == load(root).digest
    check = ["data", "check", "coco", "--data-root", str(tmp_path / "copy"), "--set", "prepared=64"]
    assert "16 image files were read" in CliRunner().invoke(app, check).output
    with pytest.raises(UserError, match="--set 'missing' is not possible"):
        CliRunner().invoke(app, [*words, "--set", "missing"], catch_exceptions=False)


def test_copies_are_never_taken_for_photographs(root, tmp_path):
    prepare(Data(name="coco17"), root, tmp_path / "copy", 64)
    for fields in ({}, {"prepared": 96}):
        with pytest.raises(UserError, match=r"resized to 64 pixels, but data.prepared = (None|96)"):
            load(tmp_path / "copy", **fields)
    with pytest.raises(
        UserError, match="holds no prepared copies.*sadcl data prepare coco17 .*--size 64"
    ):
        load(root, prepared=64)
    assert Config(data=Data(prepared=512)).flat()["data.prepared"] == 512  # in the trial's row
    with pytest.raises(UserError, match="data.prepared >= .* 448 < 512"):
        Config(data=Data(prepared=448), stage2=Stage(augmentation=Augmentation(resize=512)))
    with pytest.raises(UserError, match="scenes"):
        data.load(Data(name="scenes", prepared=64))


def test_a_copy_is_checked_as_what_it_is(root, tmp_path):
    prepare(Data(name="coco17"), root, tmp_path / "copy", 64)
    done = CliRunner().invoke(
        app, ["data", "check", "coco17", "--data-root", str(tmp_path / "copy")]
    )
    assert "16 image files were read and decoded" in done.output
    assert not {"corrupt", "empty", "unreadable"} & set(done.output.split())


def test_what_can_be_wrong(root, tmp_path, monkeypatch):
    config, copy = Data(name="coco17"), tmp_path / "copy"
    with pytest.raises(UserError, match="nothing to prepare"):
        prepare(Data(name="scenes"), root, copy, 64)
    with pytest.raises(UserError, match="is not empty and holds no prepared copies"):
        prepare(config, root, tmp_path, 64)
    (tmp_path / "file").touch()
    for target in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="cannot be written"):
            prepare(config, root, target, 64)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 5, 5))
        with pytest.raises(
            UserError, match="16 images of 64 pixels need 0.0 GB .* 0.0 GB are free"
        ):
            prepare(config, root, copy, 64)
    prepare(config, root, copy, 64)
    with pytest.raises(
        UserError, match="holds copies of coco17 at 64 pixels .* not of coco17 at 96"
    ):
        prepare(config, root, copy, 96)
    with pytest.raises(UserError, match="resized to 64 pixels"):
        prepare(config, str(copy), tmp_path / "twice", 64)
    (copy / "prepared.json").write_text(json.dumps({"size": "x"}))
    with pytest.raises(UserError, match="prepared.json' is damaged"):
        load(copy, prepared=64)
    bad = load(root).train.path(3)
    os.truncate(bad, 100)
    with pytest.raises(UserError, match="cannot be decoded") as caught:
        prepare(config, root, tmp_path / "new", 64)
    assert bad in str(caught.value)
