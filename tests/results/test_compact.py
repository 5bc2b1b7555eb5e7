"""Merging: nobody sees too much or too little, whoever reads, writes, deletes or dies meanwhile."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import duckdb
import pytest

from sadcl import results
from sadcl.errors import UserError
from sadcl.results import RunWriter, compact, files, schema, store
from tests.results.crashes import dies_after
from tests.results.runs import run, trial


def content(root):
    """All rows of all tables, in an order that does not depend on the files."""
    return {
        table: sorted(
            json.dumps(row, default=str, sort_keys=True)
            for row in results.read(root, table).to_pylist()
        )
        for table in ("trials", "epochs", "labels")
    }


def names(root, table="trials"):
    tables = root / "tables"
    return (
        len(list(tables.glob(f"_runs/{table}/*.arrow"))),
        len(list(tables.glob(f"_merged/{table}/*.index.parquet"))),
    )


def test_merged_rows_are_the_rows_and_what_runs_keeps_its_files(tmp_path):
    for i in range(5):
        trial(
            tmp_path,
            f"k/{i} ä",
            x_choice="a" if i else 3,
            status="failed" if i == 1 else "complete",
        )
    going = trial(tmp_path, "going", status="running")
    before = content(tmp_path)
    done = {d.table: (d.before, d.after) for d in compact.compact(str(tmp_path))}
    assert done == {"trials": (6, 2), "epochs": (6, 2), "labels": (5, 1), "predictions": (0, 0)}
    assert content(tmp_path) == before
    assert names(tmp_path) == (1, 1)
    going.epoch({"stage": 2, "epoch": 4, "val_mAP": 51.0})
    going.finish("complete", metrics={"val_mAP": 51.0})
    assert len(results.read(tmp_path, "epochs")) == 6 * 3 + 1
    compact.compact(str(tmp_path))
    assert names(tmp_path) == (0, 1)
    assert results.sql(
        tmp_path, "select count(*) as n, max(val_mAP) as best from trials"
    ).to_pylist() == [{"n": 6, "best": 51.0}]
    compact.compact(str(tmp_path))  # again changes nothing
    assert names(tmp_path) == (0, 1)


def test_what_changes_after_merging_wins(tmp_path):
    for key in ("a", "b", "c", "d"):
        trial(tmp_path, key)
    compact.compact(str(tmp_path))
    store.amend(str(tmp_path), "a", checkpoint="x")
    store.reopen(str(tmp_path), "b")
    store.delete(str(tmp_path), "c")

    def check():
        rows = {r["key"]: r for r in results.read(tmp_path, "trials").to_pylist()}
        assert set(rows) == {"a", "b", "d"}
        assert rows["a"]["checkpoint"] == "x"
        assert (
            len(results.read(tmp_path, "epochs")) == len(results.sql(tmp_path, "from epochs")) == 9
        )
        assert {r["key"] for r in results.read(tmp_path, "labels").to_pylist()} == {"a", "b", "d"}
        assert store.row_of(str(tmp_path), "c") is None
        assert store.row_of(str(tmp_path), "a")["checkpoint"] == "x"
        assert [e["epoch"] for e in store.epochs_of(str(tmp_path), "b")] == [1, 2, 3]
        return rows

    assert check()["b"]["status"] == "running"
    compact.compact(str(tmp_path))
    assert check()["b"]["status"] == "running"
    again = RunWriter(str(tmp_path), "b", {"study": "s"})
    again.epoch({"stage": 2, "epoch": 3, "val_mAP": 60.0})  # reported again
    again.finish("complete", metrics={"val_mAP": 60.0})
    trial(tmp_path, "c", epochs=1)  # the removed key is trained again
    compact.compact(str(tmp_path))
    assert {e["val_mAP"] for e in store.epochs_of(str(tmp_path), "b")} == {50.0, 60.0}
    assert [len(store.epochs_of(str(tmp_path), key)) for key in "abcd"] == [3, 3, 1, 3]
    assert names(tmp_path) == names(tmp_path, "epochs") == names(tmp_path, "labels") == (0, 1)


def test_a_crash_after_any_step_harms_nothing(tmp_path, monkeypatch):
    """Each write and each removal in turn is the last thing that happens."""
    made, at, crashes = tmp_path / "made", 0, 0
    trial(made, "a", epochs=1)
    trial(made, "b", epochs=1)
    compact.compact(str(made))
    store.amend(str(made), "a", checkpoint="x")
    store.delete(str(made), "b")
    trial(made, "c", epochs=1)
    old = (made / "tables" / "_runs" / "trials" / "a~1.arrow").read_bytes()
    store.amend(str(made), "a", checkpoint="y")
    (made / "tables" / "_runs" / "trials" / "a~1.arrow").write_bytes(
        old
    )  # as if its removal had not come to be
    while True:
        root = shutil.copytree(made, tmp_path / str(at))
        before = content(root)
        try:
            with dies_after(monkeypatch, at):
                compact.compact(str(root))
        except KeyboardInterrupt:
            crashes += 1
        else:
            break
        assert content(root) == before, f"after {at} steps"
        compact.compact(str(root))
        assert content(root) == before, f"after {at} steps and another run"
        assert names(root) == (0, 1)
        at += 1
    assert crashes > 15


WRITER = """
import random, sys
from sadcl.results import RunWriter, store
root, me, ledger = sys.argv[1:]
log = open(ledger, "a", buffering=1)
rng = random.Random(int(me))
keys, i = [], 0
while True:
    i += 1
    key = f"k{me}-{i}"
    w = RunWriter(root, key, {"study": "s", "version": 0.0})
    for e in (1, 2): w.epoch({"stage": 2, "epoch": e})
    w.finish("complete", labels=[{"split": "val", "label": "x"}])
    print("there", key, 0, file=log); keys.append([key, 0])
    what = rng.random()
    one = rng.choice(keys)
    if what < 0.4:
        one[1] += 1
        store.amend(root, one[0], version=float(one[1]))
        print("there", *one, file=log)
    elif what < 0.6:
        store.reopen(root, one[0])
        w = RunWriter(root, one[0], store.row_of(root, one[0]))
        w.epoch({"stage": 2, "epoch": 2}); w.finish("complete")
    elif what < 0.7 and len(keys) > 3:
        keys.remove(one); print("going", one[0], 0, file=log)
        store.delete(root, one[0]); print("gone", one[0], 0, file=log)
"""
MERGER = """
import sys
from sadcl.results import compact, published_tables
published_tables.publish(sys.argv[1])
print('up', flush=True)
while True:
    compact.compact(sys.argv[1])
    published_tables.publish(sys.argv[1])
"""


def _ledger(paths):
    """What holds by now: the least version by key, keys that may be going, keys that are gone."""
    there, going, gone = {}, set(), set()
    for path in paths:
        for line in path.read_text().split("\n")[:-1] if path.exists() else ():
            what, key, version = line.split()
            if what == "there":
                there[key] = int(version)
            else:
                there.pop(key, None)
                (going if what == "going" else gone).add(key)
    return there, going - gone, gone


@pytest.mark.parametrize("seconds", [pytest.param(4), pytest.param(60, marks=pytest.mark.soak)])
def test_readers_while_others_write_remove_merge_and_are_killed(tmp_path, seconds):
    root, ledgers = tmp_path / "runs", [tmp_path / f"ledger{n}" for n in range(2)]
    RunWriter(str(root), "first", {"study": "s"})
    running = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(root), str(n), str(ledgers[n])])
        for n in range(2)
    ]
    merger, rng = (
        subprocess.Popen([sys.executable, "-c", MERGER, str(root)], stdout=subprocess.PIPE),
        random.Random(1),
    )
    merger.stdout.readline()
    end, kills, looks, next_kill = time.monotonic() + seconds, 0, 0, time.monotonic() + 0.3
    published = set()
    try:
        while time.monotonic() < end or (
            min(looks - 3, kills - 1) <= 0 and time.monotonic() < end + 90
        ):
            promised, _, gone = _ledger(ledgers)
            for ask in (
                lambda t: results.read(root, t).to_pylist(),
                lambda t: results.sql(root, f"from {t}").to_pylist(),
            ):
                rows = ask("trials")
                keys = [row["key"] for row in rows]
                assert len(keys) == len(set(keys)), "a row twice"
                assert not gone & set(keys), "a removed row is there again"
                _, going, gone_now = _ledger(ledgers)
                missing = set(promised) - set(keys) - going - gone_now
                assert not missing, f"rows are missing: {missing}"
                for row in rows:
                    assert (row.get("version") or 0) >= promised.get(row["key"], 0), "an old row"
                epochs = [(row["key"], row["epoch"]) for row in ask("epochs")]
                assert len(epochs) == len(set(epochs)), "an epoch twice"
                _, going, gone_now = _ledger(ledgers)
                assert {(k, e) for k in promised for e in (1, 2)} - set(epochs) <= {
                    (k, e) for k in going | gone_now for e in (1, 2)
                }, "epochs are missing"
                looks += 1
            plain = f"select key from '{root}/tables/trials/*.parquet'"
            keys = [row[0] for row in duckdb.sql(plain).fetchall()]
            assert len(keys) == len(set(keys)), "a row twice, to another program"
            _, going, gone_now = _ledger(ledgers)
            assert published - going - gone_now <= set(keys), "rows vanish from published files"
            published = set(keys)
            if time.monotonic() > next_kill:
                os.kill(merger.pid, signal.SIGKILL)
                merger.wait()
                kills += 1
                merger = subprocess.Popen(
                    [sys.executable, "-c", MERGER, str(root)], stdout=subprocess.PIPE
                )
                merger.stdout.readline()
                next_kill = time.monotonic() + rng.uniform(0.05, 0.6)
            assert all(process.poll() is None for process in [*running, merger])
    finally:
        for process in [*running, merger]:
            process.kill()
            process.wait()
    assert looks > 3
    assert kills > 1
    compact.compact(str(root))
    promised, _, gone = _ledger(ledgers)
    keys = results.read(root, "trials")["key"].to_pylist()
    assert set(promised) <= set(keys)
    assert not gone & set(keys)


def test_large_tables_become_several_files_with_each_run_in_one(tmp_path, monkeypatch):
    monkeypatch.setattr(compact, "PART_BYTES", 10_000)
    for i in range(8):
        trial(tmp_path, f"k{i}", epochs=30)
    before = content(tmp_path)
    compact.compact(str(tmp_path))
    assert content(tmp_path) == before
    assert names(tmp_path, "epochs")[1] > 1
    owners = [
        set(files.read_index(str(uri).replace(".index", ""))["key"].to_pylist())
        for uri in tmp_path.glob("tables/_merged/epochs/*.index.parquet")
    ]
    assert sum(map(len, owners)) == len(set.union(*owners)) == 8
    store.delete(str(tmp_path), "k3")
    compact.compact(str(tmp_path))
    assert "k3" not in results.read(tmp_path, "epochs")["key"].to_pylist()
    assert len(results.read(tmp_path, "trials")) == 7


def test_compact_wants_a_store(tmp_path):
    with pytest.raises(UserError, match="holds no results"):
        compact.compact(str(tmp_path))
    assert schema.VERSION == 3


def test_damage_in_a_merged_file_is_named_and_nothing_is_lost_by_merging(tmp_path, sadcl):
    run(tmp_path, "a")
    run(tmp_path, "b")
    (tmp_path / "tables" / "_runs" / "labels" / "b.arrow").write_bytes(b"ARROW1")
    with pytest.raises(UserError, match="labels/b.arrow' is damaged"):
        sadcl("compact")
    assert (tmp_path / "tables" / "_runs" / "labels" / "a.arrow").exists()
    os.remove(tmp_path / "tables" / "_runs" / "labels" / "b.arrow")
    sadcl("compact")
    (merged,) = (
        p for p in tmp_path.glob("tables/_merged/trials/*.parquet") if ".index" not in p.name
    )
    os.truncate(merged, 100)
    for ask in (
        lambda: results.read(tmp_path, "trials"),
        lambda: results.sql(tmp_path, "from trials"),
        lambda: sadcl("compact"),
    ):
        with pytest.raises(UserError, match="is damaged"):
            ask()
