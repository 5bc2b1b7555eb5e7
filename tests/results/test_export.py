"""Tables and answers as files that other programs read."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from sadcl import results
from sadcl.errors import UserError
from sadcl.results import RunWriter, export, predictions
from tests.results.runs import run


def test_export_gives_what_other_programs_read(tmp_path, sadcl):
    run(tmp_path, 'a,"b"\n🦆')
    RunWriter(str(tmp_path), "p", {}).finish(
        "complete", predictions=[predictions.predictions_table("val", ["x"], ["c"], [[1]], [[1]])]
    )
    out = tmp_path / "out"
    for suffix in (".csv", ".arrow", ".parquet", ".tex"):
        sadcl("export", "trials", "-o", f"{out}{suffix}")
    table = results.read(tmp_path, "trials")
    assert pq.read_table(f"{out}.parquet").equals(table)
    assert pa.ipc.open_file(f"{out}.arrow").read_all().equals(table)
    from pyarrow import csv

    options = csv.ParseOptions(newlines_in_values=True)
    assert (
        csv.read_csv(f"{out}.csv", parse_options=options)["key"].to_pylist()
        == table["key"].to_pylist()
    )
    assert (
        sadcl("export", "select val_mAP, status from trials where val_mAP > 1")
        == '"val_mAP","status"\n52,"complete"\n'
    )
    assert '"[""c""]"' in sadcl("export", "predictions", "--csv")
    with pytest.raises(UserError, match="--csv and --latex"):
        sadcl("export", "trials", "--csv", "--latex")
    with pytest.raises(UserError, match="does not say what kind of file"):
        sadcl("export", "trials", "-o", "x.xlsx")
    with pytest.raises(UserError, match="no table 'trails'; did you mean 'trials'"):
        sadcl("export", "trails")
    assert export.file_kind([], "s3://a/b.PARQUET") == "parquet"


def test_lists_and_spans_of_time_can_be_printed_and_exported(sadcl, tmp_path):
    run(tmp_path, "k")
    assert "datasets" in sadcl("sql", "select study, datasets from studies", "--csv")
    query = "select key, interval 90 second as took, [started] as at from trials"
    assert '"k",90,' in sadcl("export", query, "--csv")
    sadcl("export", query, "-o", str(tmp_path / "x.parquet"))
    assert pq.read_table(tmp_path / "x.parquet")["took_seconds"].to_pylist() == [90.0]


def test_cells_that_a_spreadsheet_computes_are_named_and_stay_as_they_are():
    table = pa.table({"n": [-1.5], "label": ["=cmd|' /C calc'!A0"], "text": ["-2e-3"]})
    assert "=cmd|' /C calc'!A0" in export.encode(table, "csv").decode()
    assert "A spreadsheet takes cells such as \"=cmd|' /C calc'!A0\" for" in export.formula_note(
        table
    )
    for cell in ("@SUM(1,1)", "-2+3", "+a", "\tx"):
        assert export.formula_note(pa.table({"label": ["a", None, cell]})), cell
    for cell in ("a=b", "-2", "+.5e3", "", None):
        assert not export.formula_note(pa.table({"label": ["a", cell]})), cell
