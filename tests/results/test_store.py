"""Tables and rows: read, changed, reopened and deleted."""

import json
from datetime import UTC, datetime

import pytest

from sadcl import results, storage
from sadcl.errors import UserError
from sadcl.results import RunWriter, compact, read, store, table_file
from tests.reports.ablations import ablation
from tests.results.runs import complete_trial, run


def test_what_is_written_is_read(tmp_path):
    complete_trial(
        tmp_path, loss_tau=0.1, bank_policy="slot", loss_normalize=True, model_weights=None
    )
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


def test_removal_takes_all_rows_of_a_trial(tmp_path):
    complete_trial(tmp_path, "a")
    complete_trial(tmp_path, "b")
    store.delete(str(tmp_path), "a")
    for table in ("trials", "epochs", "labels"):
        assert set(results.read(tmp_path, table)["key"].to_pylist()) == {"b"}
    assert store.row_of(str(tmp_path), "a") is None
    assert store.row_of(str(tmp_path), "b")["status"] == "complete"


def test_a_reopened_trial_keeps_its_epochs(tmp_path):
    complete_trial(tmp_path, "a", status="failed")
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


def test_a_removal_that_is_cut_off_can_begin_again(tmp_path, monkeypatch):
    root = str(tmp_path)
    writer = RunWriter(root, "k", {"study": "s"})
    writer.epoch({"stage": 2, "epoch": 1, "val_mAP": 1.0})
    writer.finish("complete", labels=[{"split": "val", "label": "a"}])
    compact.compact(root)
    with monkeypatch.context() as patch:
        patch.setattr(
            store,
            "write_run_file",
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
    failures, read_local = [5, 116, 5], table_file._read_local

    def failing(path):
        if failures:
            raise OSError(failures.pop(), "the disk fails", path)
        return read_local(path)

    monkeypatch.setattr(table_file, "_read_local", failing)
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


def test_the_studies_are_a_table(tmp_path):
    ablation(tmp_path, {"stage2": [50.0], "both": [51.0]})
    run(tmp_path, study="alone", dataset="voc2007", scale="demo")
    identity = {
        "name": "ab2",
        "scale": "full",
        "base": "b1",
        "data": "d1",
        "kind": "search",
        "space": {},
    }
    storage.write(f"{tmp_path}/studies/ab2.json", json.dumps(identity).encode())
    rows = {row["study"]: row for row in results.read(tmp_path, "studies").to_pylist()}
    assert list(rows) == ["ab", "ab2", "alone"]
    assert (rows["ab"]["kind"], rows["ab"]["question"], rows["ab"]["datasets"]) == (
        "ablation",
        "Why?",
        ["coco14"],
    )
    assert rows["ab"]["created"] == min(
        results.read(tmp_path, "trials", ["started"])["started"].to_pylist()
    )
    assert (rows["ab2"]["base_digest"], rows["ab2"]["data_digest"], rows["ab2"]["datasets"]) == (
        "b1",
        "d1",
        [],
    )
    assert (rows["alone"]["kind"], rows["alone"]["scale"], rows["alone"]["datasets"]) == (
        None,
        "demo",
        ["voc2007"],
    )
    joined = (
        "select s.kind, count(*) as n from trials t join studies s on t.study = s.study "
        "group by all order by n"
    )
    assert results.sql(tmp_path, joined).to_pylist() == [
        {"kind": None, "n": 1},
        {"kind": "ablation", "n": 2},
    ]
    storage.write(f"{tmp_path}/studies/ab2.json", b"{")
    with pytest.raises(UserError, match="ab2.json' is damaged"):
        results.read(tmp_path, "studies")


def test_a_damaged_study_file_is_named(tmp_path, sadcl, capsys):
    run(tmp_path, "k")
    storage.write(f"{tmp_path}/studies/s.json", b"{")
    for words in (
        ["ablation", "--study", "s"],
        ["importance", "--study", "s"],
        ["labels", "--study", "s"],
        ["report", "s"],
    ):
        with pytest.raises(UserError, match=r"studies/s.json' is damaged"):
            sadcl(*words)
