"""Files appear whole or not at all."""

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
