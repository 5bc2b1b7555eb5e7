"""The benchmarks table."""

from datetime import UTC, datetime, timedelta

import pytest

from sadcl import results, storage
from sadcl.errors import UserError
from sadcl.results import RunWriter, benchmarks, schema
from sadcl.results.verify import verify

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def row(**columns):
    return {
        "benchmark": "losses",
        "what": "time",
        "measured": NOW,
        "ours": 1.0,
        "unit": "ms",
        **columns,
    }


def test_rows_are_added_and_read_in_the_order_of_time(tmp_path):
    root = str(tmp_path)
    later = NOW + timedelta(hours=1)
    benchmarks.write_benchmarks(
        root, [row(measured=later), row(measured=later, what="memory", reached=False)]
    )
    benchmarks.write_benchmarks(root, [row(benchmark="metrics", reached=True, novel=1.5)])
    assert results.read(root, "benchmarks")["benchmark"].to_pylist() == [
        "metrics",
        "losses",
        "losses",
    ]
    assert results.sql(
        root, "select what, reached, novel from benchmarks order by what, measured"
    ).to_pylist() == [
        {"what": "memory", "reached": False, "novel": None},
        {"what": "time", "reached": True, "novel": 1.5},
        {"what": "time", "reached": None, "novel": None},
    ]
    assert len(results.sql(root, "from benchmarks")) == 3


def test_every_column_can_be_asked_for_without_quotes(tmp_path):
    benchmarks.write_benchmarks(str(tmp_path), [row()])
    table = results.sql(str(tmp_path), f"select {', '.join(schema.BENCHMARKS)} from benchmarks")
    assert table.column_names == list(schema.BENCHMARKS)
    assert len(table) == 1


def test_a_store_from_before_has_the_table_without_rows(tmp_path):
    RunWriter(str(tmp_path), "k", {"phase": "train"}).finish("complete", metrics={"val_mAP": 1.0})
    assert len(results.read(str(tmp_path), "benchmarks")) == 0
    assert results.sql(str(tmp_path), "select count(*) as n from benchmarks").to_pylist() == [
        {"n": 0}
    ]
    with pytest.raises(UserError, match="no table 'benchmark'; did you mean 'benchmarks'"):
        results.read(str(tmp_path), "benchmark")


def test_a_store_of_benchmarks_alone_is_a_store(tmp_path):
    benchmarks.write_benchmarks(str(tmp_path), [row()])
    assert len(results.read(str(tmp_path), "trials")) == 0
    assert list(verify(str(tmp_path))) == []


def test_a_damaged_file_is_named(tmp_path):
    benchmarks.write_benchmarks(str(tmp_path), [row()])
    storage.write(tmp_path / "tables" / "benchmarks" / "bad.parquet", b"no")
    with pytest.raises(UserError, match=r"bad.parquet' is damaged"):
        results.sql(str(tmp_path), "from benchmarks")
    (fault,) = verify(str(tmp_path))
    assert "bad.parquet" in fault.file
