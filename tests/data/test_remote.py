"""Data roots on an S3-compatible server, which runs in a process of its own."""

import multiprocessing.forkserver
import os
import shutil
import socket
from pathlib import Path

import pytest
import torch
from pyarrow import fs

from sadcl import data
from sadcl.config import Augmentation, Data
from sadcl.data import remote
from sadcl.data.loader import Loader
from sadcl.data.prepare import prepare
from sadcl.data.readers import vg500
from sadcl.data.readers.scenes import ensure
from sadcl.data.transforms import read_image
from sadcl.errors import UserError
from tests.buckets import serving
from tests.data.readers.layouts import LAYOUTS, TEST, TRAIN


@pytest.fixture(scope="module")
def bucket():
    """The URI of an empty bucket, whose server is set by environment variables."""
    with pytest.MonkeyPatch.context() as patch, serving(patch, "photographs") as uri:
        # loader processes would have the environment of an earlier test's server
        multiprocessing.forkserver._forkserver._stop()
        yield uri


@pytest.fixture(autouse=True)
def nothing_known(tmp_path, monkeypatch):
    """As in a new process on a new machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(vg500, "CATEGORIES", 3)
    remote._MIRRORS.clear()


def put(folder, uri):
    system, path = remote._resolve(uri)
    fs.copy_files(
        str(folder), path, source_filesystem=fs.LocalFileSystem(), destination_filesystem=system
    )


def loaded(name, root, **fields):
    return data.load(Data(name=name, holdout=0.25, **fields), root)


@pytest.mark.parametrize("layout", LAYOUTS, ids=repr)
def test_every_layout_reads_as_on_a_disk(layout, tmp_path):
    """Through pyarrow's local file system, which stands for all of them."""
    (tmp_path / "copy").mkdir()
    layout.write(tmp_path / "copy", TRAIN, TEST)
    root = f"file://{tmp_path}/copy"
    one, two = data.load(layout.config, tmp_path / "copy"), data.load(layout.config, root)
    assert data.resolve(layout.config, root).name == one.name
    assert one.digest == two.digest
    assert two.train.path(0) == f"file://{one.train.path(0)}"
    assert torch.equal(read_image(one.train.path(0), 16), read_image(two.train.path(0), 16))
    os.unlink(one.train.path(1))
    remote._MIRRORS.clear()
    with pytest.raises(UserError, match=r"1 of \d+ images .* are missing") as caught:
        data.load(layout.config, root)
    assert str(tmp_path / "cache") not in str(caught.value)  # it names the root, not its mirror


def test_s3(bucket, tmp_path, monkeypatch):
    scenes = ensure(tmp_path / "source", seed=0, train=16, test=4)
    root = f"{bucket}/some folder/"
    put(scenes, root.rstrip("/"))
    local, away = loaded("coco", scenes), loaded("coco", root)
    assert local.digest == away.digest
    assert away.train.path(0).startswith("s3://photographs/some folder/train2017/")
    options = {
        "image_size": 64,
        "augmentation": Augmentation(flip=True),
        "batch_size": 5,
        "shuffle": True,
    }
    wanted = list(Loader(local.train, **options).batches(1))
    for workers in (0, 1):
        found = list(Loader(away.train, workers=workers, **options).batches(1))
        assert all(
            torch.equal(a.images_BCHW, b.images_BCHW) for a, b in zip(wanted, found, strict=True)
        )
    done = prepare(Data(name="coco"), root, tmp_path / "copy", 64)
    assert done.images == 20
    assert loaded("coco", tmp_path / "copy", prepared=64).digest == local.digest
    put(tmp_path / "copy", f"{bucket}/copy")
    assert torch.equal(
        read_image(loaded("coco", f"{bucket}/copy", prepared=64).train.path(2), 64),
        read_image(local.train.path(2), 64),
    )

    remote._MIRRORS.clear()  # another process: only what has changed is fetched
    fetched = []
    monkeypatch.setattr(
        remote, "read_bytes", lambda uri, read=remote.read_bytes: fetched.append(uri) or read(uri)
    )
    assert loaded("coco", root).digest == local.digest
    assert fetched == []
    lost = away.train.path(0)
    system, path = remote._resolve(lost)
    system.delete_file(path)
    with pytest.raises(UserError) as caught:
        read_image(lost, 64)
    assert lost in str(caught.value)
    assert socket.gethostname() in str(caught.value)
    remote._MIRRORS.clear()
    with pytest.raises(
        UserError, match="1 of 16 images .* 's3://photographs/some folder/train2017', first"
    ):
        loaded("coco", root)


def test_roots_that_cannot_be_read(bucket, tmp_path, monkeypatch):
    for root, message in (
        (f"{bucket}/none", "'s3://photographs/none' holds nothing"),
        ("s3://nobody/x", "'s3://nobody/x' holds nothing, or there is no such bucket"),
        (f"{bucket}/x?region=a", "AWS_ENDPOINT_URL"),
        ("what://x/y", "'what://x/' cannot be opened"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            loaded("coco", root)
        assert "\n" not in str(caught.value)
    with monkeypatch.context() as patch:
        patch.setattr(
            remote,
            "_resolve",
            lambda uri: (fs.SubTreeFileSystem("/", fs.LocalFileSystem()), "dev/null"),
        )
        with pytest.raises(UserError, match="'s3://photographs/x' cannot be listed: .*credentials"):
            loaded("coco", f"{bucket}/x")
    scenes = ensure(tmp_path / "source", seed=0, train=4, test=2)
    shutil.rmtree(scenes / "annotations")
    put(scenes, f"{bucket}/bare")
    with pytest.raises(UserError, match="'s3://photographs/bare' is not a copy of COCO"):
        loaded("coco", f"{bucket}/bare")


def test_a_missing_file_names_the_machine(tmp_path):
    with pytest.raises(
        UserError, match=f"none.jpg' cannot be read: No such file.*{socket.gethostname()}"
    ):
        read_image(Path(tmp_path) / "none.jpg", 32)
