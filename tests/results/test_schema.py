"""The columns' meanings, and files of older schemas."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.parquet as pq

from sadcl import results
from sadcl.results import compact, query, schema, status, verify
from sadcl.search.trial import Phase
from sadcl.study.execute import TESTED
from tests.results.runs import complete_trial, run


def test_files_of_the_first_schema_are_read_and_merged(tmp_path):
    """As the first version of this program wrote them: fewer columns, statistics, version 1."""
    run(tmp_path, "new")
    for table, columns in {
        "trials": {
            "key": ["old"],
            "study": ["s"],
            "status": ["complete"],
            "val_mAP": [60.0],
            "epochs_done": [1],
            "x": [None],
        },
        "epochs": {"key": ["old"], "stage": [2], "epoch": [1], "val_mAP": [60.0]},
        "labels": {"key": ["old"], "split": ["val"], "label": ["cat"], "AP": [60.0]},
    }.items():
        rows = pa.table(columns).replace_schema_metadata({"sadcl": "1"})
        (tmp_path / "tables" / table).mkdir()
        pq.write_table(rows, tmp_path / "tables" / table / "old.parquet", compression="zstd")
    for merged in (False, True):
        if merged:
            compact.compact(str(tmp_path))
            assert not list(tmp_path.glob("tables/*/*.parquet"))
            assert not list(tmp_path.glob("tables/_runs/*/*"))
        rows = {row["key"]: row for row in results.read(tmp_path, "trials").to_pylist()}
        assert (rows["old"]["val_mAP"], rows["old"]["weights_digest"]) == (60.0, None)
        ask = (
            "select t.key, count(*) as n from trials t join epochs using (key) "
            "group by all order by n"
        )
        assert results.sql(tmp_path, ask).to_pylist() == [
            {"key": "old", "n": 1},
            {"key": "new", "n": 2},
        ]
        assert query.top(str(tmp_path))[0]["key"] == "old"
        (fault,) = verify.verify(str(tmp_path))
        assert fault.problem.startswith("is missing, but the study 's' has 2 rows")


def test_columns_are_documented_and_typed_as_the_schema_says(tmp_path):
    complete_trial(tmp_path)
    for name, columns in schema.TABLES.items():
        table = results.read(tmp_path, name)
        assert table.column_names[: len(columns)] == list(columns)
        for column, (kind, meaning) in columns.items():
            assert table.schema.field(column).type == kind
            assert meaning


def test_phases_and_statuses_are_the_ones_that_are_written():
    """The texts of `phase`, `status` and `test_mAP` agree with what runs write."""
    meanings = {column: meaning for column, (_, meaning) in schema.TRIALS.items()}
    assert {*Phase} == schema.PHASES.keys()
    assert set(TESTED) < set(schema.PHASES)
    for phase, purpose in schema.PHASES.items():
        assert f"{phase}, {purpose}" in meanings["phase"]
        assert (phase in re.findall(r"\w+", meanings["test_mAP"])) == (phase in TESTED)
    assert meanings["status"] == "one of running, complete, pruned, failed"
    assert status.ENDED == ("complete", "pruned", "failed")
    assert set(verify.STANDALONE_PHASES) < set(schema.PHASES)


def test_meanings_name_units():
    """A reader must not guess: every measured column says in what it is measured."""
    units = re.compile(
        r"percent|[Ss]econds|\bMB\b|count|GPUs|CPUs|\bin the unit\b|share|images /"
        r"|of training alone|the same of|hours|weighted sum|loss|learning rate|times better|ratio"
    )
    tables = {name: columns for name, columns in schema.TABLES.items() if name != "studies"}
    for name, columns in tables.items():
        measured = [c for c, (kind, _) in columns.items() if pa.types.is_floating(kind)]
        assert measured or name == "predictions"
        for column in measured:
            assert units.search(columns[column][1]), (name, column)
