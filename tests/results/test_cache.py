"""Copies in the user's cache: made once, never out of date, never needed."""

import os
import time

from sadcl import results
from sadcl.results import RunWriter, cache, read, sql, store, table_file
from tests.results.runs import trial


def test_copies_in_the_cache_never_bring_back_what_was_changed_or_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("sadcl.results.cache.SETTLE_SECONDS", -1.0)
    root = str(tmp_path / "runs")

    def write(numbers, status="complete"):
        for i in numbers:
            RunWriter(root, f"k{i}", {"study": "s"}).finish(status)

    def there():
        rows = read(root, "trials", ["key", "status"]).to_pylist()
        asked = sql(root, "select key, status from trials").to_pylist()
        assert sorted(map(str, rows)) == sorted(map(str, asked))
        assert len({row["key"] for row in rows}) == len(rows)
        return {row["key"]: row["status"] for row in rows}

    write(range(80))
    assert len(there()) == 80
    store.delete(root, "k0")
    for i in range(1, 4):
        store.amend(root, f"k{i}", status="failed")
    write(range(100, 180))  # so many that they are copied too
    assert there() == {
        f"k{i}": "failed" if i < 4 else "complete" for i in (*range(1, 80), *range(100, 180))
    }


def test_many_small_files_are_copied_to_the_cache_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "MAX_UNCACHED_FILES", 4)
    monkeypatch.setattr(cache, "MAX_PARTS", 2)
    root = tmp_path / "runs"
    old = time.time() - 100

    def settle():
        for path in root.rglob("*.arrow"):
            if path.stat().st_mtime > old + 50:
                os.utime(path, (old, old))

    reads = []
    read_file = table_file.read_file

    def counted(uri, columns=None):
        reads.append(uri)
        return read_file(uri, columns)

    monkeypatch.setattr(table_file, "read_file", counted)
    for batch in range(4):
        for i in range(6):
            trial(root, f"k{batch}-{i}", epochs=1)
        settle()
        assert len(results.read(root, "trials")) == 6 * (batch + 1)
        reads.clear()
        assert len(results.read(root, "trials")) == 6 * (batch + 1)
        assert not [uri for uri in reads if "/runs/" in uri]
    store.amend(str(root), "k0-0", checkpoint="x")
    store.delete(str(root), "k0-1")
    (root / "tables" / "_runs" / "trials" / "k0-2.arrow").write_bytes(
        (root / "tables" / "_runs" / "trials" / "k0-3.arrow").read_bytes()
    )
    rows = results.read(root, "trials")
    assert rows["checkpoint"].drop_null().to_pylist() == ["x"]
    assert sorted(rows["key"].to_pylist()) == sorted(
        results.sql(root, "from trials")["key"].to_pylist()
    )
    assert len(rows) == 23
    assert rows["key"].to_pylist().count("k0-2") == 0  # its file holds another row now
    for path in (tmp_path / "cache").rglob("index.parquet"):
        path.write_bytes(b"damaged")
    assert results.read(root, "trials").equals(rows)
    for path in (tmp_path / "cache").rglob("*.parquet"):
        if path.name != "index.parquet":
            path.unlink()
    assert results.read(root, "trials").equals(rows)


def test_a_cache_that_cannot_be_written_changes_nothing(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "MAX_UNCACHED_FILES", 1)
    monkeypatch.setattr(cache, "SETTLE_SECONDS", -1)
    for i in range(3):
        trial(tmp_path / "runs", f"k{i}")
    assert len(results.read(tmp_path / "runs", "trials")) == 3
