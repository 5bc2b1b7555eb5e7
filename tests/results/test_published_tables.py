"""The files for other programs: each row once, whatever happens, and typed columns."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from sadcl import results
from sadcl.results import (
    RunWriter,
    compact,
    files,
    predictions,
    published_tables,
    schema,
    store,
    table_file,
    verify,
)
from sadcl.results.errors import FileVanished
from sadcl.study.record import StoredStudy
from tests.results.crashes import dies_after
from tests.results.runs import complete_trial, trial


def plain_keys(root, table="trials"):
    """The keys as three ways to read a folder without any rule give them, which must agree."""
    folder = f"{root}/tables/{table}"
    found = [
        [row[0] for row in duckdb.sql(f"select key from '{folder}/{pattern}'").fetchall()]
        for pattern in ("*.parquet", "**/*.parquet")
    ]
    found.append(ds.dataset(folder, format="parquet").to_table(columns=["key"])["key"].to_pylist())
    assert sorted(found[0]) == sorted(found[1]) == sorted(found[2])
    return sorted(found[0])


def own_keys(root, table="trials"):
    return sorted(results.read(root, table)["key"].to_pylist())


def test_other_programs_count_as_we_do_after_each_change(tmp_path):
    root = str(tmp_path)

    def check(*keys):
        published_tables.publish(root)
        assert plain_keys(root) == own_keys(root) == sorted(keys)
        for table in ("epochs", "labels"):
            assert plain_keys(root, table) == own_keys(root, table)

    for key in ("a", "b/ä"):
        complete_trial(tmp_path, key)
    complete_trial(tmp_path, "c", study="other")
    trial(tmp_path, "going", status="running")
    check("a", "b/ä", "c", "going")
    compact.compact(root)
    check("a", "b/ä", "c", "going")
    store.amend(root, "a", val_mAP=1.0)
    store.reopen(root, "b/ä")
    check("a", "b/ä", "c", "going")
    StoredStudy(root, "other").remove()  # publishes by itself
    assert plain_keys(root) == ["a", "b/ä", "going"]
    assert not list(tmp_path.glob("tables/*/other*"))
    complete_trial(tmp_path, "c", study="other")
    check("a", "b/ä", "c", "going")
    compact.compact(root)
    check("a", "b/ä", "c", "going")
    values = f"select val_mAP from '{root}/tables/trials/*.parquet' where key = 'a'"
    assert duckdb.sql(values).fetchall() == [(1.0,)]
    assert {fault.problem for fault in verify.verify(root)} == {
        "is missing, but the study 's' has 3 rows",
        "is missing, but the study 'other' has 1 rows",
    }


def test_all_files_of_a_table_have_the_columns_of_the_schema_with_types(tmp_path):
    """Values that are null in one study and not in the next, as polars and DuckDB do not like."""
    complete_trial(tmp_path, "a", study="one", bank_epsilon=0.5, cause=None)
    complete_trial(tmp_path, "b", study="two", loss_tau=0.1, model_weights="w.pt", mine=None)
    published_tables.publish(str(tmp_path))
    for table in ("trials", "epochs", "labels"):
        expected = [(name, kind) for name, (kind, _) in schema.columns_of(table).items()]
        paths = list(tmp_path.glob(f"tables/{table}/*.parquet"))
        assert len(paths) == 2
        for path in paths:
            assert [(c.name, c.type) for c in pq.read_schema(path)] == expected


def old_store(root, rows):
    """A store as version 2 wrote it: a merged file, a newer row of one run, and a run's own file.

    Args:
        rows: rows of the trials table with the keys a, b and c.
    """
    folder = root / "tables" / "trials"
    (folder / "merged").mkdir(parents=True)
    tables = {
        row["key"]: schema.to_table("trials", [row]).replace_schema_metadata({"sadcl": "2"})
        for row in rows
    }
    pq.write_table(pa.concat_tables([tables["a"], tables["b"]]), folder / "merged" / "1.parquet")
    index = pa.table({"name": ["a", "b"], "number": [0, 0], "key": ["a", "b"]})
    pq.write_table(index, folder / "merged" / "1.index.parquet")
    newer = schema.to_table("trials", [rows[0] | {"val_mAP": 9.0}])
    pq.write_table(newer.replace_schema_metadata({"sadcl": "2"}), folder / "a~1.parquet")
    pq.write_table(tables["c"], folder / "c.parquet")


def test_an_older_store_is_read_continued_and_published(tmp_path):
    statuses = {"a": "complete", "b": "complete", "c": "running"}
    rows = [
        {"key": key, "study": "s", "status": status, "val_mAP": 1.0}
        for key, status in statuses.items()
    ]
    old_store(tmp_path, rows)
    root = str(tmp_path)

    def values():
        read = results.read(root, "trials", ["key", "val_mAP"]).to_pylist()
        assert read == results.sql(root, "select key, val_mAP from trials order by key").to_pylist()
        return {row["key"]: row["val_mAP"] for row in read}

    assert values() == {"a": 9.0, "b": 1.0, "c": 1.0}
    resumed = RunWriter(root, "c", {"study": "s"})
    resumed.epoch({"stage": 1, "epoch": 1})
    resumed.finish("complete", metrics={"val_mAP": 3.0})
    store.amend(root, "b", val_mAP=2.0)
    assert values() == {"a": 9.0, "b": 2.0, "c": 3.0}
    compact.compact(root)
    assert values() == {"a": 9.0, "b": 2.0, "c": 3.0}
    assert not list(tmp_path.glob("tables/trials/**/*.parquet"))
    published_tables.publish(root)
    assert plain_keys(root) == ["a", "b", "c"]


def test_merged_predictions_of_an_older_store_become_files_of_runs(tmp_path):
    root = str(tmp_path)
    logits_NL = np.array([[1.0, -1.0]], np.float16)
    table = predictions.predictions_table("val", ["x.jpg"], ["a", "b"], logits_NL, [[1, 0]])
    folder = tmp_path / "tables" / "predictions" / "merged"
    folder.mkdir(parents=True)
    parts = []
    for key in ("k", "l"):
        RunWriter(root, key, {"study": "s"}).finish("complete")
        parts.append(table.set_column(0, "key", pa.array([key])))
    pq.write_table(pa.concat_tables(parts), folder / "1.parquet")
    index = pa.table({"name": ["k", "l"], "number": [0, 0], "key": ["k", "l"]})
    pq.write_table(index, folder / "1.index.parquet")
    compact.compact(root)
    published_tables.publish(root)
    assert plain_keys(root, "predictions") == own_keys(root, "predictions") == ["k", "l"]
    assert predictions.load_predictions(root, "l", "val")[0] == ["x.jpg"]
    own = tmp_path / "tables" / "_runs" / "predictions" / "k.parquet"
    published = tmp_path / "tables" / "predictions" / f"k{files.PUBLISHED_SUFFIX}"
    assert own.samefile(published)  # it takes no room


def old_run_files(root):
    """Each run's own files as version 2 wrote them, of the studies s and t; k~1 was changed."""
    table = predictions.predictions_table("val", ["x.jpg"], ["a"], np.array([[1.0]]), [[1]])
    for key, study in (("k", "s"), ("l", "t")):
        writer = RunWriter(str(root), key, {"study": study})
        writer.epoch({"stage": 1, "epoch": 1})
        labels = [{"split": "val", "label": "cat", "AP": 1.0}]
        writer.finish("complete", labels=labels, predictions=[table])
    RunWriter(str(root), "going", {"study": "t"})
    store.amend(str(root), "k", val_mAP=9.0)
    for table in schema.TRIAL_TABLES:
        for path in (root / "tables" / "_runs" / table).iterdir():
            rows = table_file.read_file(str(path)).replace_schema_metadata({"sadcl": "2"})
            (root / "tables" / table).mkdir(exist_ok=True)
            pq.write_table(rows, root / "tables" / table / f"{path.stem}.parquet")
    (root / "tables" / "trials" / "k.parquet").write_bytes(b"")  # outranked by k~1
    removed = schema.empty_table("labels")
    pq.write_table(removed, root / "tables" / "labels" / "k~1.parquet")
    os.remove(root / "tables" / "labels" / "k.parquet")
    shutil.rmtree(root / "tables" / "_runs")


def top_keys(root, table):
    """The keys that ``*.parquet`` gives, whatever columns the files have."""
    paths = root.glob(f"tables/{table}/*.parquet")
    return sorted(
        key for p in paths for key in pq.read_table(p, columns=["key"])["key"].to_pylist()
    )


def test_a_study_that_ends_moves_and_publishes_what_an_older_version_wrote(tmp_path):
    old_run_files(tmp_path)
    before = {table: own_keys(tmp_path, table) for table in schema.TRIAL_TABLES}
    trial(tmp_path, "new", study="u")
    published_tables.finish(str(tmp_path), ["u"])
    for table in schema.TRIAL_TABLES:
        added = ["new"] * {"epochs": 3, "predictions": 0}.get(table, 1)
        assert own_keys(tmp_path, table) == sorted(before[table] + added), table
        assert top_keys(tmp_path, table) == own_keys(tmp_path, table), table
        left = {path.name for path in tmp_path.glob(f"tables/{table}/*.parquet")}
        old = {name for name in left if not name.endswith(files.PUBLISHED_SUFFIX)}
        assert old == ({"going.parquet"} if table == "trials" else set())  # it may be written yet
    assert store.row_of(str(tmp_path), "k")["val_mAP"] == 9.0
    assert predictions.load_predictions(str(tmp_path), "l", "val")[0] == ["x.jpg"]
    RunWriter(str(tmp_path), "going", {"study": "t"}).finish("complete")
    published_tables.finish(str(tmp_path), ["t"])
    assert plain_keys(tmp_path) == own_keys(tmp_path) == ["going", "k", "l", "new"]


def test_files_of_an_older_version_lose_no_row_when_moving_them_dies(tmp_path, monkeypatch):
    made = tmp_path / "made"
    old_run_files(made)
    before = {table: own_keys(made, table) for table in schema.TRIAL_TABLES}
    for at in range(0, 100, 4):
        root, done = shutil.copytree(made, tmp_path / str(at)), False
        with contextlib.suppress(KeyboardInterrupt), dies_after(monkeypatch, at):
            compact.compact(str(root))
            done = True
        for table in schema.TRIAL_TABLES:
            assert own_keys(root, table) == before[table], f"after {at} steps"
        trial(root, "new", study="u")
        published_tables.finish(str(root), ["u"])
        for table in schema.TRIAL_TABLES:
            assert top_keys(root, table) == own_keys(root, table), f"after {at} steps"
        if done:
            break
    assert done
    assert at > 4


def test_rows_appear_while_a_study_runs_and_its_files_are_merged_at_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(published_tables, "INTERVAL", 0.02)
    monkeypatch.setattr(published_tables, "SHARE", 1.0)
    monkeypatch.setattr(published_tables, "LEAST_MERGED", 2)
    root = str(tmp_path)
    trial(tmp_path, "a")
    with published_tables.kept_up_to_date(root, "s"):
        going = trial(tmp_path, "b", status="running")
        until = time.monotonic() + 60
        published = f"{root}/tables/trials/s{files.PUBLISHED_SUFFIX}"
        while time.monotonic() < until:
            keys = pq.read_table(published)["key"].to_pylist() if os.path.exists(published) else []
            if keys == ["a", "b"]:
                break
            time.sleep(0.02)
        assert keys == ["a", "b"]
        going.finish("complete")
    assert plain_keys(root, "epochs") == own_keys(root, "epochs")
    assert len(list(tmp_path.glob("tables/_merged/trials/*.index.parquet"))) == 1
    assert not list(tmp_path.glob("tables/_runs/trials/*"))


def test_publishing_that_dies_after_any_step_harms_nothing(tmp_path, monkeypatch):
    root = str(tmp_path)
    for key in ("a", "b"):
        trial(tmp_path, key, study=key)
    published_tables.publish(root)
    store.amend(root, "a", val_mAP=7.0)
    store.delete(root, "b")
    before = results.read(root, "trials")
    for at in range(10):
        try:
            with dies_after(monkeypatch, at):
                published_tables.publish(root)
        except KeyboardInterrupt:
            assert plain_keys(root) in (["a"], ["a", "b"])
            assert results.read(root, "trials").equals(before)
            continue
        break
    assert at > 3
    assert plain_keys(root) == ["a"]


def test_a_run_that_another_study_takes_over_is_there_once(tmp_path):
    """A stage 1 that has failed is trained again by the study that needs it next."""
    root = str(tmp_path)
    trial(tmp_path, "first", study="a", status="failed")
    trial(tmp_path, "a-1", study="a")
    published_tables.publish(root, ["a"])
    trial(tmp_path, "first", study="b")
    published_tables.publish(root, ["b"])
    for table in ("trials", "epochs"):
        assert plain_keys(root, table) == own_keys(root, table)


def test_a_published_file_is_not_taken_for_rows(tmp_path):
    complete_trial(tmp_path, "k")
    published_tables.publish(str(tmp_path))
    store.delete(str(tmp_path), "k")
    assert len(results.read(tmp_path, "trials")) == 0
    assert plain_keys(tmp_path) == ["k"]  # until it is published again
    published_tables.publish(str(tmp_path))
    assert not list(tmp_path.glob("tables/trials/*"))


def test_every_column_that_a_run_writes_is_in_the_schema(trained):
    root, row = trained
    for table in schema.TRIAL_TABLES:
        read = results.read(root, table)
        assert set(read.column_names) <= set(schema.columns_of(table)), table
        published = ds.dataset(f"{root}/tables/{table}", format="parquet").to_table()
        assert len(published) == len(read) > 0
        own = files.locate(str(root), table, row["key"]).uri  # merged, where other tests did it
        written = table_file.read_file(own).schema
        assert {c.name: c.type for c in written} == {
            name: kind for name, (kind, _) in schema.columns_of(table).items()
        }
        assert not [name for name, (_, meaning) in schema.columns_of(table).items() if not meaning]
    assert json.loads(row["config"])
    assert os.path.exists(f"{root}/tables/trials")


def test_queries_do_not_wait_for_the_configuration(tmp_path):
    """It takes longer to import than the answer takes."""
    complete_trial(tmp_path, "k")
    compact.compact(str(tmp_path))
    code = (
        "import sys; from sadcl.results import query, read; query.top(sys.argv[1]); "
        "read(sys.argv[1], 'trials'); print('pydantic' in sys.modules)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert process.stdout == "False\n"


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("bank_epsilon", pa.float64()),
        ("loss_prototype_tau", pa.float64()),
        ("seed", pa.int64()),
        ("optim_ema_warmup", pa.bool_()),
        ("bank_policy", pa.string()),
        ("data_mean", pa.string()),
        ("model_frozen", pa.string()),
        ("test_CF1_top3", pa.float64()),
    ],
)
def test_types_of_columns_that_follow_from_the_configuration(column, kind):
    assert schema.columns_of("trials")[column][0] == kind


def test_a_file_that_vanishes_while_it_is_published_is_listed_again(tmp_path, monkeypatch):
    trial(tmp_path, "a", study="a")
    trial(tmp_path, "b", study="b")
    published_tables.publish(str(tmp_path))
    read, vanished = table_file.read_file, []

    def once_gone(uri, columns=None):
        if uri.endswith(f"a{files.PUBLISHED_SUFFIX}") and not vanished:
            vanished.append(uri)
            raise FileVanished
        return read(uri, columns)

    monkeypatch.setattr(table_file, "read_file", once_gone)
    published_tables.publish(str(tmp_path), ["b"])
    assert vanished


def test_files_of_other_studies_are_read_again_only_if_they_have_changed(tmp_path, monkeypatch):
    root = str(tmp_path)
    trial(tmp_path, "a", study="a")
    trial(tmp_path, "b", study="b")
    published_tables.publish(root)
    read, uris = table_file.read_file, []

    def counted(uri, columns=None):
        uris.append(uri)
        return read(uri, columns)

    def reads_of_a():
        uris.clear()
        published_tables.publish(root, ["b"])
        return sum(uri.endswith(f"/a{files.PUBLISHED_SUFFIX}") for uri in uris)

    monkeypatch.setattr(table_file, "read_file", counted)
    assert [reads_of_a(), reads_of_a()] == [1, 0]
    trial(tmp_path, "a-2", study="a")
    published_tables.publish(root, ["a"])
    assert reads_of_a() == 1
