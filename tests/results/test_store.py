"""The tables: whole files only, one row a key, many writers, older files readable."""

import subprocess
import sys
import threading
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sadcl import results, storage
from sadcl.errors import UserError
from sadcl.results import RunWriter, compact, query, read, schema, sql, store

ROW = {
    "study": "s",
    "phase": "search",
    "arm": "tuned",
    "seed": 0,
    "scale": "demo",
    "params": '{"loss.tau": 0.1}',
}


def trial(root, key="s-tuned-s0-a", *, mAP=50.0, epochs=2, status="complete", **row):
    writer = RunWriter(str(root), key, {**ROW, **row})
    for epoch in range(1, epochs + 1):
        writer.epoch(
            {"stage": 2, "epoch": epoch, "val_mAP": mAP - epochs + epoch, "loss": 1.0 / epoch}
        )
    labels = [{"split": "val", "label": name, "AP": mAP, "support": 3.0} for name in ("cat", "dog")]
    writer.finish(status, metrics={"val_mAP": mAP, "epoch": epochs}, labels=labels)
    return writer


def test_what_is_written_is_read(tmp_path):
    trial(tmp_path, loss_tau=0.1, bank_policy="slot", loss_normalize=True, model_weights=None)
    (row,) = results.read(tmp_path, "trials").to_pylist()
    assert (row["key"], row["status"], row["val_mAP"], row["epochs_done"]) == (
        "s-tuned-s0-a",
        "complete",
        50.0,
        2,
    )
    assert (row["loss_tau"], row["bank_policy"], row["loss_normalize"], row["model_weights"]) == (
        0.1,
        "slot",
        True,
        None,
    )
    ask = "select count(*) as n from trials where loss_normalize and model_weights is null"
    assert results.sql(tmp_path, ask).to_pylist() == [{"n": 1}]
    assert row["started"] <= row["ended"] <= datetime.now(UTC)
    assert [
        (e["epoch"], e["val_mAP"], e["study"]) for e in results.read(tmp_path, "epochs").to_pylist()
    ] == [
        (1, 49.0, "s"),
        (2, 50.0, "s"),
    ]
    assert {r["label"]: r["AP"] for r in results.read(tmp_path, "labels").to_pylist()} == {
        "cat": 50.0,
        "dog": 50.0,
    }


def test_columns_are_documented_and_typed_as_the_schema_says(tmp_path):
    trial(tmp_path)
    for name, columns in schema.TABLES.items():
        table = results.read(tmp_path, name)
        assert table.column_names[: len(columns)] == list(columns)
        for column, (kind, meaning) in columns.items():
            assert table.schema.field(column).type == kind
            assert meaning


def test_an_interrupted_trial_goes_on_with_its_rows_and_a_repeated_report_is_one_row(tmp_path):
    first = RunWriter(str(tmp_path), "k", ROW)
    first.epoch({"stage": 1, "epoch": 1, "val_mAP": 1.0})
    first.epoch({"stage": 1, "epoch": 2, "val_mAP": 2.0})
    (before,) = results.read(tmp_path, "trials").to_pylist()
    assert before["status"] == "running"
    again = RunWriter(str(tmp_path), "k", ROW)
    again.epoch({"stage": 1, "epoch": 2, "val_mAP": 2.5})
    again.epoch({"stage": 2, "epoch": 1, "val_mAP": 3.0})
    again.finish("failed", cause="NaN")
    epochs = results.read(tmp_path, "epochs").to_pylist()
    assert [(e["stage"], e["epoch"], e["val_mAP"]) for e in epochs] == [
        (1, 1, 1.0),
        (1, 2, 2.5),
        (2, 1, 3.0),
    ]
    (row,) = results.read(tmp_path, "trials").to_pylist()
    assert (row["status"], row["cause"], row["started"]) == ("failed", "NaN", before["started"])


def test_readers_see_whole_files_while_many_write(tmp_path):
    """Real processes write; a reader in between never sees a broken table or a row twice."""
    code = (
        "import sys; from sadcl.results import RunWriter\n"
        "for i in range(12):\n"
        "    w = RunWriter(sys.argv[1], f'k{sys.argv[2]}-{i}', {'study': 's'})\n"
        "    for e in range(3): w.epoch({'stage': 1, 'epoch': e, 'loss': 0.5})\n"
        "    w.finish('complete')\n"
    )
    RunWriter(str(tmp_path), "first", ROW)
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n)]) for n in range(3)
    ]
    seen = 0
    while any(w.poll() is None for w in writers):
        keys = results.read(tmp_path, "trials")["key"].to_pylist()
        assert len(keys) == len(set(keys)) >= seen
        seen = len(keys)
        results.read(tmp_path, "epochs")
    assert [w.returncode for w in writers] == [0, 0, 0]
    assert len(results.read(tmp_path, "trials")) == 37
    assert len(results.read(tmp_path, "epochs")) == 3 * 12 * 3
    assert not list(tmp_path.rglob("*.part"))


def test_keys_that_are_no_file_names(tmp_path):
    for key in ("a/b", "a b", "../../x", "ä", "x" * 300, "x" * 300 + "y"):
        trial(tmp_path, key)
    assert len(set(results.read(tmp_path, "trials")["key"].to_pylist())) == 6
    assert not (tmp_path.parent / "x").exists()


def test_a_damaged_a_foreign_and_a_newer_file_are_named(tmp_path):
    trial(tmp_path)
    folder = tmp_path / "tables" / "trials"
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
    trial(tmp_path, data_note="x", bank_size=3)
    old = pa.table(
        {"key": ["old"], "val_mAP": [1.0], "bank_size": ["many"]}
    ).replace_schema_metadata({"sadcl": "1"})
    trial(tmp_path, "other", bank_size=None)
    pq.write_table(old.drop_columns(["bank_size"]), tmp_path / "tables" / "trials" / "old.parquet")
    rows = {r["key"]: r for r in results.read(tmp_path, "trials").to_pylist()}
    assert rows["old"]["study"] is None
    assert rows["s-tuned-s0-a"]["bank_size"] == 3


def test_a_column_of_numbers_here_and_words_there_is_words(tmp_path):
    """A search over a choice of both gives rows of both."""
    trial(tmp_path, "a", x_choice=3)
    trial(tmp_path, "b", x_choice="many")
    assert {r["key"]: r["x_choice"] for r in results.read(tmp_path, "trials").to_pylist()} == {
        "a": "3",
        "b": "many",
    }
    trial(tmp_path, "c", x_choice=None)
    assert len(results.sql(tmp_path, "select * from trials where x_choice is null")) == 1


def test_removal_takes_all_rows_of_a_trial(tmp_path):
    trial(tmp_path, "a")
    trial(tmp_path, "b")
    store.delete(str(tmp_path), "a")
    for table in ("trials", "epochs", "labels"):
        assert set(results.read(tmp_path, table)["key"].to_pylist()) == {"b"}
    assert store.row_of(str(tmp_path), "a") is None
    assert store.row_of(str(tmp_path), "b")["status"] == "complete"


def test_a_reopened_trial_keeps_its_epochs(tmp_path):
    trial(tmp_path, "a", status="failed")
    store.reopen(str(tmp_path), "a")
    store.reopen(str(tmp_path), "none")
    (row,) = results.read(tmp_path, "trials").to_pylist()
    assert (row["status"], row["cause"], row["ended"], row["arm"]) == (
        "running",
        None,
        None,
        "tuned",
    )
    assert len(results.read(tmp_path, "epochs")) == 2


def test_questions(tmp_path):
    for i, (value, status) in enumerate([(50.0, "complete"), (70.0, "complete"), (60.0, "failed")]):
        trial(tmp_path, f"t{i}", mAP=value, status=status)
    trial(tmp_path, "other", mAP=99.0, study="o")
    trial(tmp_path, "nan", mAP=float("nan"))
    assert [r["key"] for r in query.top(str(tmp_path), "s")] == ["t1", "t2", "t0"]
    assert [r["key"] for r in query.top(str(tmp_path), n=1)] == ["other"]
    answer = results.sql(
        tmp_path,
        "select arm, count(*) as n, max(val_mAP) as best from trials where study = 'o' group by arm",
    )
    assert answer.to_pylist() == [{"arm": "tuned", "n": 1, "best": 99.0}]
    joined = results.sql(
        tmp_path, "select count(*) as n from trials join epochs using (key) join labels using (key)"
    )
    assert joined.to_pylist() == [{"n": 5 * 2 * 2}]
    shown = query.show(str(tmp_path), "t0")
    assert (len(shown["epochs"]), len(shown["labels"])) == (2, 2)
    assert {s["study"]: (s["trials"], s["failed"]) for s in query.studies(str(tmp_path))} == {
        "s": (4, 1),
        "o": (1, 0),
    }


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda r: results.read(r, "trails"), "no table 'trails'; did you mean 'trials'"),
        (lambda r: results.sql(r, "select val_mpa from trials"), "val_mAP"),
        (lambda r: results.sql(r, "select * from trial"), "trials"),
        (lambda r: results.sql(r, "selec 1"), "cannot be answered"),
        (lambda r: query.top(r, "ss"), "no study 'ss' here; did you mean 's'"),
        (lambda r: query.top(r, "s", "val_map"), "no metric 'val_map'; did you mean 'val_mAP'"),
        (lambda r: query.show(r, "s-tuned-s0-b"), "did you mean 's-tuned-s0-a'"),
        (lambda r: results.read(r + "/nowhere", "trials"), "holds no results"),
        (lambda r: results.read("s4://x/y", "trials"), "cannot be opened"),
    ],
)
def test_typos_suggest_the_nearest(tmp_path, ask, message):
    trial(tmp_path)
    with pytest.raises(UserError, match=message):
        ask(str(tmp_path))


@pytest.mark.parametrize(
    "query_text",
    [
        "copy trials to '{0}/out.csv'",
        "select * from read_csv('/etc/passwd')",
        "select * from '{0}/tables/trials/s-tuned-s0-a.parquet'",
        "attach '{0}/x.db'",
        "set enable_external_access = true",
        "install httpfs",
    ],
)
def test_a_query_reaches_no_file(tmp_path, query_text):
    trial(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError):
        results.sql(tmp_path, query_text.format(tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_query_changes_nothing(tmp_path):
    trial(tmp_path)
    with pytest.raises(UserError):
        results.sql(tmp_path, "delete from trials")
    assert len(results.read(tmp_path, "trials")) == 1


def test_two_threads_ask_at_once(tmp_path):
    trial(tmp_path)
    found = []
    threads = [
        threading.Thread(
            target=lambda: found.append(results.sql(tmp_path, "select 1 as x").to_pylist())
        )
        for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[{"x": 1}]] * 2


def test_copies_in_the_cache_never_bring_back_what_was_changed_or_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("sadcl.results.cache.SETTLED", -1.0)
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


def test_a_removal_that_is_cut_off_can_begin_again(tmp_path, monkeypatch):
    root = str(tmp_path)
    writer = RunWriter(root, "k", {"study": "s"})
    writer.epoch({"stage": 2, "epoch": 1, "val_mAP": 1.0})
    writer.finish("complete", labels=[{"split": "val", "label": "a"}])
    compact.compact(root)
    with monkeypatch.context() as patch:
        patch.setattr(
            store,
            "_put",
            lambda root, table, *rest: (
                (_ for _ in ()).throw(KeyboardInterrupt) if table == "trials" else None
            ),
        )
        with pytest.raises(KeyboardInterrupt):
            store.delete(root, "k")
    assert store.row_of(root, "k") is not None
    store.delete(root, "k")
    assert [len(read(root, table)) for table in ("trials", "epochs", "labels")] == [0, 0, 0]


def test_a_storage_with_a_password_in_it_is_refused():
    with pytest.raises(UserError, match="which tables would show") as error:
        read("s3://key:secret@bucket/runs", "trials")
    assert "secret" not in str(error.value)


def test_a_disk_that_fails_for_a_while_is_waited_for_and_no_file_is_blamed(tmp_path, monkeypatch):
    RunWriter(str(tmp_path), "k", {"study": "s"}).finish("complete")
    failures, open_file = [5, 116, 5], pa.OSFile

    def failing(path, *mode):
        if failures:
            raise OSError(failures.pop(), "the disk fails", path)
        return open_file(path, *mode)

    monkeypatch.setattr(pa, "OSFile", failing)
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    assert store.row_of(str(tmp_path), "k")["status"] == "complete"
    failures.extend([5] * 10_000)
    monkeypatch.setattr(storage, "PATIENCE", 0.0)
    with pytest.raises(OSError, match="the disk fails"):
        store.row_of(str(tmp_path), "k")


def test_some_trials_of_a_table(tmp_path):
    for key in "abc":
        writer = RunWriter(str(tmp_path), key, {"study": "s"})
        writer.epoch({"stage": 1, "epoch": 1, "loss": 1.0})
        writer.finish("complete")
    compact.compact(str(tmp_path))
    RunWriter(str(tmp_path), "d", {"study": "s"}).epoch({"stage": 1, "epoch": 1, "loss": 2.0})
    assert read(tmp_path, "epochs", ["loss"], keys=["d", "a", "none"]).to_pylist() == [
        {"loss": 2.0},
        {"loss": 1.0},
    ]
    assert len(read(tmp_path, "epochs", keys=[])) == 0
