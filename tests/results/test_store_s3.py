"""The tables in an object store: written, merged, removed and asked like those in a folder."""

import pyarrow.dataset as ds
import pytest

from sadcl import results, storage
from sadcl.results import cache, compact, published_tables, query, store, verify
from tests.buckets import serving
from tests.results.runs import trial


@pytest.fixture
def root(tmp_path, monkeypatch):
    """s3:// of an empty store on a server of this machine, found as a user's would be."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with serving(monkeypatch, "lab") as bucket:
        yield f"{bucket}/runs"


@pytest.mark.soak
def test_an_object_store_is_a_store(root, tmp_path, monkeypatch):
    for key in ("a", "b", "c/ä"):
        trial(root, key)
    trial(root, "going", status="running")
    before = {table: results.read(root, table) for table in ("trials", "epochs", "labels")}
    compact.compact(root)
    for table, rows in before.items():
        columns = [
            (name, "ascending")
            for name in rows.column_names
            if name in ("key", "stage", "epoch", "label")
        ]
        assert results.read(root, table).sort_by(columns).equals(rows.sort_by(columns))
    store.amend(root, "a", checkpoint="x")
    store.delete(root, "b")
    compact.compact(root)
    store.delete(root, "none")
    (first, second, _) = results.sql(
        root, "select key, checkpoint from trials order by key"
    ).to_pylist()
    assert first == {"key": "a", "checkpoint": "x"}
    assert second["key"] == "c/ä"
    assert len(results.sql(root, "from epochs")) == 9
    assert query.show(root, "a")["labels"][0]["AP"] == 50.0
    assert [fault.problem[:10] for fault in verify.verify(root)] == [
        "is missing"
    ]  # the study's file
    for _ in range(2):
        published_tables.publish(root)
        for table in ("trials", "epochs", "labels"):
            system, path = storage.resolve(f"{root}/tables/{table}")
            rows = ds.dataset(path, format="parquet", filesystem=system).to_table(columns=["key"])
            assert sorted(rows["key"].to_pylist()) == sorted(
                results.read(root, table)["key"].to_pylist()
            )
    copies = list((tmp_path / "cache").rglob("_merged/*.parquet"))
    assert copies
    monkeypatch.setattr(
        cache, "_mirror_object", lambda place, uri: str(place / uri.rsplit("/", 1)[-1])
    )  # nothing is fetched again
    assert len(results.read(root, "epochs")) == 9
