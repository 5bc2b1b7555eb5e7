"""Files that are damaged, foreign, newer or older, and columns whose types differ."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sadcl import results
from sadcl.errors import UserError
from tests.results.runs import complete_trial


def test_a_damaged_a_foreign_and_a_newer_file_are_named(tmp_path):
    complete_trial(tmp_path)
    folder = tmp_path / "tables" / "trials"
    folder.mkdir()
    (folder / "x.parquet").write_bytes(b"PAR1 half")
    with pytest.raises(UserError, match=r"x.parquet' is damaged"):
        results.read(tmp_path, "trials")
    pq.write_table(pa.table({"a": [1]}), folder / "x.parquet")
    with pytest.raises(UserError, match=r"x.parquet' has no version"):
        results.read(tmp_path, "trials")
    newer = pa.table({"key": ["z"]}).replace_schema_metadata({"sadcl": "99"})
    pq.write_table(newer, folder / "x.parquet")
    with pytest.raises(UserError, match=r"version 99 of the schema; this program reads up to"):
        results.read(tmp_path, "trials")


def test_a_file_with_fewer_or_other_columns_is_read(tmp_path):
    complete_trial(tmp_path, data_note="x", bank_size=3)
    old = pa.table(
        {"key": ["old"], "val_mAP": [1.0], "bank_size": ["many"]}
    ).replace_schema_metadata({"sadcl": "1"})
    complete_trial(tmp_path, "other", bank_size=None)
    (tmp_path / "tables" / "trials").mkdir()
    pq.write_table(old.drop_columns(["bank_size"]), tmp_path / "tables" / "trials" / "old.parquet")
    rows = {r["key"]: r for r in results.read(tmp_path, "trials").to_pylist()}
    assert rows["old"]["study"] is None
    assert rows["s-tuned-s0-a"]["bank_size"] == 3


def test_a_column_of_numbers_here_and_words_there_is_words(tmp_path):
    """A search over a choice of both gives rows of both."""
    complete_trial(tmp_path, "a", x_choice=3)
    complete_trial(tmp_path, "b", x_choice="many")
    assert {r["key"]: r["x_choice"] for r in results.read(tmp_path, "trials").to_pylist()} == {
        "a": "3",
        "b": "many",
    }
    complete_trial(tmp_path, "c", x_choice=None)
    assert len(results.sql(tmp_path, "select * from trials where x_choice is null")) == 1
