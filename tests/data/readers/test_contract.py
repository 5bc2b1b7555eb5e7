"""The contract of all readers: the right data, or an error that names the file."""

from __future__ import annotations

import importlib
import os
import pickle
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sadcl import data
from sadcl.config import Data
from sadcl.data import manifest
from sadcl.data.readers import vg500
from sadcl.data.transforms import read_image
from sadcl.errors import UserError
from tests.data.readers.layouts import LAYOUTS, TEST, TRAIN, put, refused, table


@pytest.fixture(autouse=True)
def three_categories(monkeypatch):
    monkeypatch.setattr(vg500, "CATEGORIES", 3)


@pytest.fixture(params=LAYOUTS, ids=repr)
def layout(request):
    return request.param


@pytest.fixture
def root(layout, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "copy").mkdir()
    layout.write(tmp_path / "copy", TRAIN, TEST)
    return tmp_path / "copy"


def load(layout, root, holdout=0.0, **fields):
    return data.load(layout.config.model_copy(update={"holdout": holdout, **fields}), root)


def shown(images):
    """Names of the labels of each image, by its path."""
    return {
        images.path(i): {images.labels[x] for x in np.flatnonzero(images.targets[i] == 1)}
        for i in range(len(images))
    }


def expected(layout, images, part, split):
    return {
        f"{images.folder}/{layout.files[part](i)}": {layout.labels[x] for x in s}
        for i, s in enumerate(split)
    }


def source(layout, root, pattern=0):
    return sorted(root.glob(layout.sources[pattern]))[0]


def test_what_is_read(layout, root):
    read = load(layout, root)
    assert read.labels == layout.labels
    assert read.name == (data.resolve(layout.config, root).name)
    for part, images, split in ((0, read.train, TRAIN), (1, read.test, TEST)):
        assert images.files.to_pylist() == [layout.files[part](i) for i in range(len(split))]
        assert images.targets.dtype == np.int8
        assert images.targets.tolist() == [
            [int(x in s) for x in range(len(layout.labels))] for s in split
        ]
        assert read_image(images.path(0), 8).shape == (3, 8, 8)
    assert len(read.val) == 0
    assert read.evaluable


def test_the_digest_is_of_the_content_not_of_the_place(layout, root, tmp_path):
    one = load(layout, root, holdout=0.3).digest
    shutil.copytree(root, tmp_path / "elsewhere")
    assert load(layout, tmp_path / "elsewhere", holdout=0.3).digest == one
    assert load(layout, root, holdout=0.3).digest == one
    digests = {one, load(layout, root).digest}
    for train, test in (([*TRAIN[:-1], {2}], TEST), (TRAIN, [*TEST[:-1], {1}]), (TRAIN[:-1], TEST)):
        layout.write(root, train, test)  # the same place: what has changed is read again
        digests.add(load(layout, root, holdout=0.3).digest)
    assert len(digests) == 5


def test_the_digest_has_not_changed_since_before_the_manifest(layout, root):
    read = load(layout, root)
    for images in (read.train, read.val, read.test):
        words = (*images.labels, "", *images.files.to_pylist())
        assert images.digest == data.base.digest_of(*words, extra=images.targets.tobytes())


def test_a_digest_is_what_it_was_in_earlier_versions(tmp_path):
    """What runs have recorded still says of which data they were."""
    layout = next(layout for layout in LAYOUTS if layout.name == "folder-csv")
    layout.write(tmp_path, TRAIN, TEST)
    read = load(layout, tmp_path, holdout=0.3)
    assert (read.digest, read.train.digest, read.val.digest, read.test.digest) == (
        "54a5dfc029e2",
        "43384992ec9d",
        "6aebc8b4316c",
        "bb3c5a214d3b",
    )


def test_the_second_opening_reads_no_annotations(layout, root, monkeypatch):
    one = load(layout, root, holdout=0.3)
    module = importlib.import_module("sadcl.data.load")  # the package has a function of this name
    reader = module.READERS[one.name]
    with monkeypatch.context() as patch:
        patch.setattr(reader, "read", None)
        # one manifest serves all divisions
        assert len(load(layout, root, split_seed=1, unlabelled="drop").test) == 3
        patch.setattr(module, "_divide", None)
        two = load(layout, root, holdout=0.3)
    for a, b in ((one.train, two.train), (one.val, two.val), (one.test, two.test)):
        assert (a.name, a.folder, a.labels, a.digest) == (b.name, b.folder, b.labels, b.digest)
        assert a.files.equals(b.files)
        assert (a.targets == b.targets).all()
    for path in (root.parent / "cache").rglob("*.arrow"):  # damaged: derived again
        path.write_bytes(path.read_bytes()[:-9] + b"\0" * 9)
    assert load(layout, root, holdout=0.3).digest == one.digest


_events: list[tuple[str, str]] | None = None


def _hook(event, arguments):
    if _events is not None and event in ("open", "os.listdir", "os.scandir"):
        _events.append((event, str(arguments[0])))


sys.addaudithook(_hook)  # it stays, so that it only looks while a test says so


def test_the_key_is_made_of_all_that_the_reader_opens(layout, root, monkeypatch):
    """Whatever Python opens and lists below the root, through whichever function."""
    monkeypatch.setattr(sys.modules[__name__], "_events", opened := [])
    listing = data.read_listing(layout.config, root)
    monkeypatch.undo()
    below = {Path(name) for _, name in opened if name.startswith(str(root))}
    below.discard(root / "prepared.json")  # looked at each time
    assert below <= set(listing.paths)
    labels_from = {path for pattern in layout.sources for path in root.glob(pattern)}
    assert set(listing.paths) & labels_from  # Parquet's are opened in C++
    assert not {path for path in listing.paths if path.suffix == ".jpg"}


def test_every_source_that_changes_is_read_again(layout, root, monkeypatch):
    first = data.read_listing(layout.config, root)
    reader = importlib.import_module("sadcl.data.load").READERS[
        data.resolve(layout.config, root).name
    ]
    calls, read = [], reader.read
    monkeypatch.setattr(reader, "read", lambda *given: calls.append(1) or read(*given))
    data.read_listing(layout.config, root)
    assert not calls
    for path in first.paths:
        if path.is_file():
            count = len(calls)
            os.utime(path)
            data.read_listing(layout.config, root)
            assert len(calls) > count, path


def test_a_few_files_tell_one_copy_from_another(layout, root):
    read = load(layout, root, holdout=0.3)
    config = data.resolve(layout.config, root)
    found = data.witness_files(read, config, root)
    assert len(found) <= 22
    assert all((root / name).exists() for name in found)
    assert {str(root / name) for name in found} >= {
        read.train.path(0),
        read.val.path(len(read.val) - 1),
        read.test.path(0),
    }
    assert data.witness_files(read, config, None) == []
    assert data.witness_files(read, Data(name="scenes"), root) == []
    remote = data.witness_files(read, config, root.as_uri())
    assert remote
    assert set(remote) < set(found)


def test_images_without_a_label(layout, root):
    kept, dropped = load(layout, root), load(layout, root, unlabelled="drop")
    assert len(kept.train) - len(dropped.train) == len(kept.test) - len(dropped.test) == 1
    assert shown(dropped.train) == {
        path: labels for path, labels in shown(kept.train).items() if labels
    }


def test_the_held_out_part(layout, root):
    whole, one, again = (
        load(layout, root),
        load(layout, root, holdout=0.3),
        load(layout, root, holdout=0.3),
    )
    assert 0 < len(one.val) < len(one.train)
    assert shown(one.train) | shown(one.val) == shown(whole.train)
    assert not set(shown(one.train)) & set(shown(one.val))
    assert one.val.files.equals(again.val.files)
    assert one.test.digest == whole.test.digest


def test_another_process_gets_the_place_not_the_content(layout, root):
    images = load(layout, root, holdout=0.3).train
    for one in (images, images.subset([2, 0], "two")):
        sent = pickle.dumps(one)
        assert len(sent) < 1000
        other = pickle.loads(sent)
        assert other.files.equals(one.files)
        assert (other.targets == one.targets).all()
        assert (other.name, other.folder, other.labels, other.digest) == (
            one.name,
            one.folder,
            one.labels,
            one.digest,
        )


def test_missing_images(layout, root):
    name, lost = layout.files[0](1), Path(load(layout, root).train.path(1))
    lost.unlink()
    with pytest.raises(
        UserError,
        match=rf"1 of 8 images that .* lists are missing in .*, first '{name}'.*data.missing",
    ):
        load(layout, root)
    read = load(layout, root, missing="drop")
    assert shown(read.train) == {
        k: v for k, v in expected(layout, read.train, 0, TRAIN).items() if k != str(lost)
    }
    put(lost)
    assert len(load(layout, root).train) == 8


def test_another_letter_case(layout, root):
    lower = Path(load(layout, root).train.path(3))
    upper = lower.with_name(lower.name.replace(".jpg", ".JPG"))
    lower.rename(upper)
    read = load(layout, root)
    assert Path(read.train.path(3)) == upper
    assert shown(read.train)[str(upper)] == {layout.labels[x] for x in TRAIN[3]}
    put(lower.with_name(lower.name.replace(".jpg", ".Jpg")))
    if not layout.name.startswith(
        "vg500"
    ):  # whose folders are searched: there is no listed name to go by
        with pytest.raises(
            UserError, match=r"several files .* differ from it in letter case .* only: .*\.JPG'"
        ):
            load(layout, root)


def test_line_ends_and_blanks(layout, root):
    digest = load(layout, root).digest
    paths = [path for path in root.rglob("*") if path.suffix in (".txt", ".csv", ".jsonl")]
    for path in paths:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"  \r\n") + b"\r\n")
    assert load(layout, root).digest == digest


def test_several_processes_may_ask_at_once(layout, root):
    with ThreadPoolExecutor(4) as pool:
        assert len({d.digest for d in pool.map(lambda _: load(layout, root), range(4))}) == 1
    assert all(
        path.suffix == ".arrow" for path in (manifest.cache_folder() / "manifests").iterdir()
    )


def test_a_cache_that_cannot_be_written(layout, root, monkeypatch):
    digest = load(layout, root).digest
    monkeypatch.setenv("XDG_CACHE_HOME", str(source(layout, root)))
    read = load(layout, root)
    assert read.digest == digest
    assert pickle.loads(pickle.dumps(read.train)).digest == read.train.digest


def test_a_root_that_holds_something_else(layout, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty"):
        data.resolve(layout.config, tmp_path / "empty")


@pytest.mark.parametrize("share", [0, 0.4, 0.9])
def test_a_source_that_was_cut(layout, root, share):
    for pattern in range(len(layout.sources)):
        path = source(layout, root, pattern)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        right_or_named(layout, root, path, must_fail=not share)
        path.write_bytes(content)
    load(layout, root)


def right_or_named(layout, root, path, must_fail=False):
    """Never an image with labels that it has not, and no error but one that names the file."""
    read = message = None
    try:
        read = load(layout, root)
    except UserError as error:
        message = str(error)
    if read is None:
        assert path.name in message, message
        assert "\n" not in message
        return
    assert not must_fail
    for part, images, split in ((0, read.train, TRAIN), (1, read.test, TEST)):
        assert shown(images).items() <= expected(layout, images, part, split).items()
        assert (images.targets >= 0).all()


@st.composite
def mutations(draw, content, suffix):
    """Draw a change of a file's content.

    It is cut, has some high bits flipped (so that it is no text), a key or tag renamed, lines left
    out, or a row twice.
    """
    rows = (
        content.replace(b"}, {", b"},\n{").replace(b', "', b',\n "')
        if suffix == ".json"
        else content
    )
    rows = rows.splitlines(keepends=True)
    kinds = {".json": ["rename", "delete"], ".xml": ["rename"], ".parquet": []}.get(
        suffix, ["delete", "double"]
    )
    kind = draw(st.sampled_from(["cut", "flip", *kinds]))
    if kind == "cut":
        return content[: draw(st.integers(0, len(content) - 1))]
    if kind == "flip":
        changed = bytearray(content)
        for at in draw(st.sets(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
            changed[at] ^= 0x80
        return bytes(changed)
    if kind == "rename":
        name = draw(
            st.sampled_from(
                list(re.finditer(rb'"([\w.]+)":' if suffix == ".json" else rb"<(\w+)>", content))
            )
        )
        before, after, word = content[: name.start()], content[name.end() :], name[1]
        if word == b"difficult":  # may be left out
            return content
        return (
            before
            + name[0].replace(word, word + b"x")
            + after.replace(b"</%b>" % word, b"</%bx>" % word, 1)
        )
    if kind == "double":  # as a file system that ignores letter case has it
        at = draw(st.integers(0, len(rows) - 1))
        return b"".join([*rows[: at + 1], rows[at].replace(b".jpg", b".JPG"), *rows[at + 1 :]])
    gone = draw(
        st.sets(st.integers(0, len(rows) - 1), min_size=1, max_size=1 if suffix == ".json" else 3)
    )
    return b"".join(row for i, row in enumerate(rows) if i not in gone)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)
@given(draw=st.data())
def test_mutated_copies(layout, root, draw):
    """Every change gives the right data, another valid copy, or an error that names the file.

    An XML file without one of its lines, or a Parquet index with a flipped bit, may be valid.
    """
    path = draw.draw(
        st.sampled_from(sorted(p for pattern in layout.sources for p in root.glob(pattern)))
    )
    content = path.read_bytes()
    path.write_bytes(draw.draw(mutations(content, path.suffix)))
    shutil.rmtree(
        os.environ["XDG_CACHE_HOME"], ignore_errors=True
    )  # times of change may be equal here
    try:
        right_or_named(layout, root, path)
    finally:
        path.write_bytes(content)


DEEP = "[" * 100_000


def test_nesting_that_no_file_has(layout_copy, tmp_path):
    for name, path in (
        ("coco14", "annotations/instances_val2014.json"),
        ("vg500-objects", "objects.json"),
        ("vg500-index", "vg_category_500_labels_index.json"),
    ):
        root, read = layout_copy(name)
        put(root / path, DEEP)
        refused(read, path.rsplit("/", 1)[-1])
    root, read = layout_copy("nuswide-csv")
    table(root / "nus_wid_data.csv", ["filepath,label,split_name", f"a.jpg,{DEEP},train"])
    refused(read, r"line 2 has label .*; a list such as")
