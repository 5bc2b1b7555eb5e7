"""Manifests in the cache: old ones are removed, and a process that uses one keeps working."""

import os
import pickle
import time

import numpy as np
import pytest

from sadcl.config import Config, Data
from sadcl.data import manifest
from sadcl.data.load import load
from sadcl.data.loader import Loader
from sadcl.errors import UserError
from sadcl.study import execute
from tests.data.readers.layouts import LAYOUTS, TEST, TRAIN, objects_xml, put


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """Loads copies of COCO with a cache of their own; returns the set and all manifests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    layout = LAYOUTS[0]

    def read(name):
        if not (tmp_path / name).exists():
            layout.write(tmp_path / name, TRAIN, TEST)
        data = load(layout.config.model_copy(update={"holdout": 0.0}), tmp_path / name)
        return data.train, set((manifest.cache_folder() / "manifests").iterdir())

    return read


def age(paths, days):
    for path in paths:
        os.utime(path, (time.time() - days * 86_400,) * 2)


def test_manifests_that_nobody_opens_are_removed(copies):
    _, first = copies("a")
    _, both = copies("b")
    part = manifest.cache_folder() / "manifests" / "0123-cut short"
    part.touch()
    age([*both, part], manifest.DAYS + 1)
    images, now = copies("a")  # opened: they are used again
    assert now == both | {part}
    _, now = copies("c")  # something new is kept
    assert first < now
    assert not now & ((both - first) | {part})
    age(now, manifest.DAYS - 1)
    _, later = copies("d")
    assert now < later
    assert images.targets.sum() == sum(map(len, TRAIN))


def test_a_set_whose_manifest_is_gone_sends_its_content(copies):
    images, paths = copies("a")
    chosen = images.subset([3, 1], "two")
    assert len(pickle.dumps(chosen)) < 1000
    for path in paths:
        path.unlink()
    for one in (images, chosen):
        other = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(one))))
        assert other.files.equals(one.files)
        assert (other.targets == one.targets).all()
        assert (other.name, other.folder, other.labels, other.digest) == (
            one.name,
            one.folder,
            one.labels,
            one.digest,
        )


def test_loader_processes_start_after_the_manifest_was_removed(copies):
    images, paths = copies("a")
    loader = Loader(images, image_size=32, batch_size=8, workers=1)
    for path in paths:
        path.unlink()
    (batch,) = loader.batches(0)
    assert (batch.targets_BL.numpy() == images.targets).all()
    assert np.isfinite(batch.images_BCHW.numpy()).all()


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a table, and a function that writes the label of its first image.

    All labels have the same length.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "own"
    root.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (root / name).touch()

    def write(label):
        (root / "labels.csv").write_text(
            f"file,labels,split\na.jpg,{label},train\nb.jpg,cat;dog,test\n"
        )

    write("cat")
    return root, write


CONFIG = Data(name="folder", holdout=0.0)


def shown(data):
    return [data.labels[i] for i in np.flatnonzero(data.train.targets[0])]


def test_other_content_of_the_same_size_and_time_is_read_anew(own):
    root, write = own
    table = root / "labels.csv"
    before = table.stat()
    assert shown(load(CONFIG, root)) == ["cat"]
    write("dog")
    os.utime(table, ns=(before.st_atime_ns, before.st_mtime_ns))  # as copies with their times do
    assert table.stat().st_size == before.st_size
    assert shown(load(CONFIG, root)) == ["dog"]


def test_a_list_of_labels_that_is_added_later_is_read(own):
    root, _ = own
    assert load(CONFIG, root).labels == ("cat", "dog")
    (root / "labels.txt").write_text("dog\ncat\n")
    assert load(CONFIG, root).labels == ("dog", "cat")


def test_one_process_trains_on_what_is_there_now(own):
    root, write = own
    config = Config(data=CONFIG)
    first = execute.cached_data(config, str(root))
    assert execute.cached_data(config, str(root)) is first  # decoded images go with the object
    write("dog")
    assert shown(execute.cached_data(config, str(root))) == ["dog"]
    write("cat")
    assert execute.cached_data(config, str(root)) is first


def test_what_changes_while_it_is_read_is_not_kept(own, monkeypatch):
    from sadcl.data.readers import folder

    root, write = own
    read = folder.read

    def slow(*given):
        write("dog")
        found = read(*given)
        write("cat")
        return found

    monkeypatch.setattr(folder, "read", slow)
    assert shown(load(CONFIG, root)) == ["dog"]
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(root.parent / "cache"))
    assert shown(load(CONFIG, root)) == ["cat"]


def test_a_user_without_a_home_has_a_cache(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(manifest.Path, "home", homeless)
    assert manifest.cache_folder().is_absolute()


def test_the_home_of_nobody_is_a_users_error():
    with pytest.raises(
        UserError, match="'~nobody-at-all/x' is in a home folder that this machine does not know"
    ):
        load(CONFIG, "~nobody-at-all/x")


def test_ignored_labels_survive_the_manifest(layout_copy):
    root, read = layout_copy("voc2007")
    put(root / "VOCdevkit/VOC2007/Annotations/000000.xml", objects_xml("VOC2007", [("cat", 1)]))
    for _ in range(2):
        assert np.flatnonzero(read(difficult="ignore").train.targets[0] == -1).tolist() == [7]
