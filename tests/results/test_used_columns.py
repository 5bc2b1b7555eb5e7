"""Which columns a query may use; a copy of these alone answers it as all columns do."""

import duckdb
import pytest

from sadcl import results
from sadcl.errors import UserError
from sadcl.results import cache, joined_rows
from sadcl.results.used_columns import used_columns
from tests.results.runs import trial


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("select arm, count(*) as n from trials group by all order by all", {"arm"}),
        ("select max(Val_mAP) m from trials where arm = 'a' order by m", {"val_map", "arm", "m"}),
        ("select a.arm from trials a join epochs b using (key)", {"a", "arm", "key"}),
        ("select (select max(loss) from epochs where key = k) from (select key k from trials)",
         {"loss", "key", "k"}),
        ("from trials", None),
        ("describe trials", None),
        ("select t from trials t", None),
        ("select #2 from trials", None),
        ("select b from trials t(a, b)", None),
        ("select key from trials natural join labels", None),
        ("select columns('val_.*') from trials", None),
        ("pivot trials on arm using avg(val_mAP)", None),
        ("select key from trials where seed = 1 using sample 3", {"key", "seed"}),
        ("select device.upper() from trials", None),
        ("select key from trials order by columns('workers')", None),
        ("select list(arm order by all) from trials", None),
        ("select count(*) from query('select workers from trials')", None),
        ("select main.trials from trials", None),
        ("selec arm", None),
    ],
)  # fmt: skip
def test_the_names_that_may_be_columns(query, expected):
    assert used_columns(duckdb.connect(), query) == expected


def test_a_first_query_copies_only_what_it_uses(tmp_path, monkeypatch):
    """Files of other columns are among them, and one whose column is of another type."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "MAX_UNCACHED_FILES", 2)
    monkeypatch.setattr(cache, "SETTLE_SECONDS", -1.0)
    monkeypatch.setattr(joined_rows, "GROUP_FILES", 3)
    root = tmp_path / "runs"
    for i in range(8):
        params = {"loss_tau": i / 10, "mine": str(i) if i % 4 == 1 else 0.5 * i}
        trial(root, f"k{i}", epochs=1, host=f"h{i}", workers=8 - i, **(params if i % 2 else {}))
    queries = (
        "select key, loss_tau, mine from trials order by key",
        "select Mine, count(*) as n from trials group by all order by all",
        "select key, loss from epochs order by key",
        "select upper(Host) as h from trials where workers > 2 order by workers",
        "select t.key, e.loss, t.loss_tau from trials t join epochs e using (key) order by all",
    )
    first = [results.sql(root, query).to_pylist() for query in queries]
    copied = {path.parts[-4] for path in cache.cache_folder().rglob("columns/*/index.parquet")}
    assert copied == {"trials", "epochs"}
    assert not list(cache.cache_folder().glob("*/*/index.parquet"))
    monkeypatch.setattr(cache.table_file, "read_joined", None)  # no file is read again
    assert [results.sql(root, query).to_pylist() for query in queries] == first
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    assert [results.sql(root, query).to_pylist() for query in queries] == first


def test_a_column_that_its_text_does_not_show_is_read_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "MAX_UNCACHED_FILES", 2)
    monkeypatch.setattr(cache, "SETTLE_SECONDS", -1.0)
    for i in range(4):
        trial(tmp_path / "runs", f"k{i}", host=f"h{i}")
    monkeypatch.setattr("sadcl.results.query.used_columns", lambda connection, query: {"key"})
    rows = results.sql(tmp_path / "runs", "select host from trials order by host")
    assert rows["host"].to_pylist() == ["h0", "h1", "h2", "h3"]


@pytest.mark.parametrize("damaged", ["names.json", "*.parquet"])
@pytest.mark.parametrize("content", [b"", b"{", b"null", b"PAR1" * 20])
def test_a_damaged_copy_is_made_again(tmp_path, monkeypatch, damaged, content):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "MAX_UNCACHED_FILES", 2)
    monkeypatch.setattr(cache, "SETTLE_SECONDS", -1.0)
    for i in range(4):
        trial(tmp_path / "runs", f"k{i}", host=f"h{i}")
    query = "select key, host from trials order by key"
    before = results.sql(tmp_path / "runs", query)
    paths = list(cache.cache_folder().rglob(f"columns/*/{damaged}"))
    assert paths
    for path in paths:
        path.write_bytes(content)
    assert results.sql(tmp_path / "runs", query) == before


@pytest.mark.parametrize("length", [0, 1, 8])
def test_a_file_that_ends_early_is_named(tmp_path, monkeypatch, length):
    monkeypatch.setattr(cache, "MAX_UNCACHED_FILES", 1)
    monkeypatch.setattr(cache, "SETTLE_SECONDS", -1.0)
    for i in range(3):
        trial(tmp_path / "runs", f"k{i}")
    (path,) = (tmp_path / "runs/tables").glob("_runs/trials/k1*")
    path.write_bytes(path.read_bytes()[:length])
    for query in ("select key from trials", "select * from trials"):
        with pytest.raises(UserError, match="k1.*is damaged"):
            results.sql(tmp_path / "runs", query)


def test_after_a_few_sets_of_columns_all_are_copied(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "MAX_UNCACHED_FILES", 1)
    monkeypatch.setattr(cache, "SETTLE_SECONDS", -1.0)
    monkeypatch.setattr(cache, "MAX_NARROW", 2)
    for i in range(4):
        trial(tmp_path / "runs", f"k{i}")
    for column in ("device", "workers", "weights"):
        rows = results.sql(tmp_path / "runs", f"select key, {column} from trials")
        assert len(rows) == 4
    (folder,) = cache.cache_folder().glob("*/trials")
    assert (folder / "index.parquet").exists()
    assert not (folder / "columns").exists()
