"""Files appear whole or not at all."""

import contextlib
import errno
import itertools
import os
import threading

import pytest

from sadcl import storage
from sadcl.errors import UserError


def test_round_trip(tmp_path):
    uri = storage.join(tmp_path, "a", "b.bin")
    storage.write(uri, b"one")
    storage.write(uri, b"two")
    assert storage.read(uri) == b"two"
    assert storage.listing(storage.join(tmp_path, "a")) == ["b.bin"]
    storage.delete(uri)
    storage.delete(uri)
    assert not storage.exists(uri)
    storage.delete(storage.join(tmp_path, "a"))
    assert storage.listing(storage.join(tmp_path, "a")) == []


def test_sizes_of_all_files_below(tmp_path):
    for path, size in (("a/b.bin", 3), ("a/c/d/e.bin", 5), ("f", 0)):
        storage.write(storage.join(tmp_path, "x", *path.split("/")), b"." * size)
    assert storage.sizes(storage.join(tmp_path, "x")) == {"a/b.bin": 3, "a/c/d/e.bin": 5, "f": 0}
    assert storage.sizes(f"file://{tmp_path}/x/a") == {"b.bin": 3, "c/d/e.bin": 5}
    assert storage.sizes(storage.join(tmp_path, "none")) == {}


def test_a_reader_never_sees_half_a_file(tmp_path):
    uri = storage.join(tmp_path, "file")
    contents = {bytes([letter]) * 200_000 for letter in b"abcdefgh"}
    storage.write(uri, next(iter(contents)))
    stop, seen = threading.Event(), set()

    def watch():
        while not stop.is_set():
            seen.add(storage.read(uri))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(5):
        for content in contents:
            storage.write(uri, content)
    stop.set()
    watcher.join()
    assert seen <= contents
    assert len(seen) > 1


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    uri = storage.join(tmp_path, "file")
    storage.write(uri, b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(storage.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        storage.write(uri, b"new")
    monkeypatch.undo()
    assert storage.read(uri) == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_unknown_scheme_is_a_users_error():
    with pytest.raises(UserError, match="nowhere://x"):
        storage.resolve("nowhere://x")


def test_what_fails_for_a_while_is_tried_again_and_what_waiting_cannot_help_is_not(monkeypatch):
    now, asked = [0.0], []
    monkeypatch.setattr(storage.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))

    def write(until, number):
        asked.append(now[0])
        if now[0] < until:
            raise OSError(number, os.strerror(number))
        return "written"

    assert storage.retry(lambda: write(30, errno.EROFS)) == "written"
    assert 30 <= now[0] < 40
    assert asked[:5] == [0, 0.5, 1.5, 3.5, 7.5]
    with pytest.raises(OSError, match="Input/output"):
        storage.retry(lambda: write(1000, errno.EIO))
    assert 45 < now[0] - asked[8] <= storage.PATIENCE
    for number in (errno.ENOSPC, errno.EDQUOT, errno.ENOENT, errno.EACCES):
        before = len(asked)
        with pytest.raises(OSError):
            storage.retry(lambda number=number: write(1e9, number))
        assert len(asked) == before + 1


def test_a_folder_that_is_gone_is_not_made_anew_where_it_was_there(tmp_path):
    gone = tmp_path / "mounted" / "run"
    with pytest.raises(OSError, match="has vanished: is its disk still mounted"):
        storage.write(str(gone / "state.pt"), b"1", make_folder=False)
    assert not gone.exists()
    storage.make(str(gone))
    storage.write(str(gone / "state.pt"), b"1", make_folder=False)
    assert storage.read(str(gone / "state.pt")) == b"1"


def test_a_folder_is_removed_while_others_write_into_it(tmp_path):
    folder, stop = tmp_path / "busy", threading.Event()

    def write():
        for i in itertools.count():
            if stop.is_set():
                return
            with contextlib.suppress(FileNotFoundError):
                (folder / f"{i}").write_text("x")

    for _ in range(10):
        folder.mkdir(exist_ok=True)
        for i in range(2000):
            (folder / f"old{i}").write_text("x")
        writer = threading.Thread(target=write)
        writer.start()
        timer = threading.Timer(0.1, stop.set)
        timer.start()
        storage.delete(folder)
        writer.join()
        stop.clear()
    assert not folder.exists() or not any(folder.glob("old*"))


def test_a_root_whose_disk_is_not_mounted_is_waited_for(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(
        storage.time, "sleep", lambda seconds: waited.append((tmp_path / "studies").mkdir())
    )
    storage.wait_for_root(str(tmp_path))
    assert len(waited) == 1
    monkeypatch.setattr(storage, "PATIENCE", 0.0)
    with pytest.raises(OSError, match="is its disk mounted on this node"):
        storage.wait_for_root(str(tmp_path / "other"))
    with pytest.raises(OSError, match="another worker has seen it"):
        storage.wait_for_file(str(tmp_path / "state.pt"))
