"""SQL in bounded memory, the best trials, one trial, and names of any kind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sadcl import results
from sadcl.errors import UserError
from sadcl.reports import comparison
from sadcl.results import RunWriter, compact, published_tables, query, schema, store
from sadcl.search.ranking import best_trials
from tests.reports.ablations import EVIL
from tests.results.runs import complete_trial, run, trial

NASTY = [EVIL, "it's", 'a "b"', "a/b\\c", "x\ny", "🦆; drop table trials", "-- x", "%s {0}"]


def test_names_of_any_kind_go_through_every_question(tmp_path, sadcl):
    for i, name in enumerate(NASTY):
        run(tmp_path, name, study=name, figures={"val_mAP": float(i)}, dataset=name)
    for merged in (False, True):
        if merged:
            compact.compact(str(tmp_path))
        for i, name in enumerate(NASTY):
            (row,) = query.top(str(tmp_path), name)
            assert (row["key"], row["val_mAP"]) == (name, float(i))
            assert query.show(str(tmp_path), name)["study"] == name
        assert sorted(results.read(tmp_path, "studies")["study"].to_pylist()) == sorted(NASTY)
        assert results.sql(
            tmp_path, "select count(*) as n from trials where study = 'it''s'"
        ).to_pylist() == [{"n": 1}]
        assert [
            result.study for result in comparison.compare_studies(str(tmp_path), NASTY)
        ] == NASTY
    texed = sadcl("export", "select key, study from trials", "--latex")
    assert r"\textbackslash{}" in texed
    assert texed.count(r" \\") == len(NASTY) + 1
    store.delete(str(tmp_path), NASTY[0])
    assert NASTY[0] not in results.read(tmp_path, "trials")["key"].to_pylist()


def test_columns_are_read_alone_and_a_mistyped_one_is_named(tmp_path):
    run(tmp_path)
    assert results.read(tmp_path, "epochs", ["val_mAP"]).to_pydict() == {"val_mAP": [51.0, 52.0]}
    with pytest.raises(
        UserError, match="no column 'val_map' in the table epochs; did you mean 'val_mAP'"
    ):
        results.read(tmp_path, "epochs", ["val_map"])
    with pytest.raises(UserError, match="no table 'epoch'; did you mean 'epochs'"):
        results.sql(tmp_path, "select t.key from trials t join epoch e using (key)")
    with pytest.raises(UserError, match="no table 'trails'; did you mean 'trials'"):
        results.sql(tmp_path, "select * from trails")
    with pytest.raises(
        UserError, match="no column 'val_mpa' in the table trials; did you mean 'val_mAP'"
    ):
        results.sql(tmp_path, "select val_mpa from trials")


@pytest.mark.parametrize(
    "text",
    [
        "explain analyze copy trials to '{}'",
        "copy (select 1) to '{}'",
        "with x as (select 1) select * from x; copy trials to '{}'",
        "create table x as select 1",
        "pragma database_list",
        "set memory_limit = '1GB'",
        "select * from found",
        "select 1; select 2",
    ],
)
def test_only_one_select_is_answered(tmp_path, text):
    run(tmp_path)
    compact.compact(str(tmp_path))
    found = pa.table({"x": [1]})  # a variable of the program is no table
    (merged,) = (
        p for p in tmp_path.glob("tables/_merged/trials/*.parquet") if ".index" not in p.name
    )
    before = merged.read_bytes()
    refused = "The query cannot be answered|There is no table 'found'"
    with pytest.raises(UserError, match=refused):
        results.sql(tmp_path, text.format(merged))
    assert merged.read_bytes() == before
    assert len(found) == 1


def test_a_query_over_more_than_memory_is_answered_in_bounded_memory(tmp_path):
    """800,000 epochs (180 MB) are grouped by a process that may grow by 250 MB, DuckDB by 120."""
    folder = tmp_path / "tables" / "epochs" / "merged"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part in range(2):
        count = 400_000
        columns = {
            name: rng.random(count)
            for name, (kind, _) in schema.EPOCHS.items()
            if pa.types.is_floating(kind)
        }
        columns |= {f"more{i}": rng.random(count) for i in range(8)}
        keys = [f"k{part}-{i}" for i in range(count // 100)]
        rows = pa.table(
            {
                "key": pa.array(keys).take(pa.array(np.arange(count) // 100)),
                "stage": [2] * count,
                **columns,
            }
        )
        rows = rows.append_column("epoch", pa.array(np.arange(count) % 100 + 1))
        pq.write_table(
            rows.replace_schema_metadata({"sadcl": "2"}),
            folder / f"{part}.parquet",
            row_group_size=25_000,
            compression="none",
        )
        index = pa.table({"name": keys, "number": [0] * len(keys), "key": keys})
        pq.write_table(index, folder / f"{part}.index.parquet")
    code = (
        "import resource, sys\n"
        "from sadcl import results\n"
        "results.sql(sys.argv[1], 'select count(*) from epochs where epoch < 0', memory='120MB')\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + (250 << 20),) * 2)\n"
        "q = 'select key, avg(val_mAP) as m, max(loss), min(lr) from epochs '\n"
        "q += 'group by key order by m desc, key'\n"
        "print(len(results.sql(sys.argv[1], q, memory='120MB')))\n"
        "q = 'select * from epochs order by loss desc limit 10'\n"
        "print(len(results.sql(sys.argv[1], q, memory='120MB')))\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert done.stdout.split() == ["8000", "10"], done.stderr[-2000:]


def test_numbers_here_and_words_there_are_words_in_sql_too(tmp_path):
    run(tmp_path, "a", x_choice=3)
    compact.compact(str(tmp_path))
    run(tmp_path, "b", x_choice="many")
    run(tmp_path, "c", x_choice=None)
    table = {
        row["key"]: row["x_choice"]
        for row in results.sql(tmp_path, "select key, x_choice from trials").to_pylist()
    }
    assert table == {
        row["key"]: row["x_choice"] for row in results.read(tmp_path, "trials").to_pylist()
    }
    assert table == {"a": "3", "b": "many", "c": None}


def test_a_row_with_a_nan_metric_is_last_and_compares_as_nothing(tmp_path):
    run(tmp_path, "nan", figures={"val_mAP": float("nan")})
    run(tmp_path, "one", figures={"val_mAP": 1.0})
    assert [row["key"] for row in query.top(str(tmp_path))] == ["one"]
    assert comparison.compare_studies(str(tmp_path))[0].num_seeds == 0


def test_columns_of_one_name_are_told_apart(sadcl, tmp_path):
    run(tmp_path, "k")
    query = "select a.val_mAP, b.val_mAP from (select 1.0 as val_mAP) a, (select 2.0 as val_mAP) b"
    assert sadcl("sql", query).splitlines() == ["val_mAP\tval_mAP_1", "1.0\t2.0"]


def test_a_figure_that_is_no_number_is_nobodys_best(tmp_path, sadcl):
    for key, value in (("a", float("nan")), ("b", 50.0), ("c", 60.0)):
        row = {"study": "s", "phase": "search", "arm": "tuned", "params": f'{{"x": "{key}"}}'}
        RunWriter(str(tmp_path), key, row).finish("complete", metrics={"val_mAP": value})
    assert [row["key"] for row in best_trials(results.read(tmp_path, "trials").to_pylist(), 3)] == [
        "c",
        "b",
    ]
    assert "60" in sadcl("studies")
    assert "nan" not in sadcl("studies")


def test_questions(tmp_path):
    for i, (value, status) in enumerate([(50.0, "complete"), (70.0, "complete"), (60.0, "failed")]):
        complete_trial(tmp_path, f"t{i}", mAP=value, status=status)
    complete_trial(tmp_path, "other", mAP=99.0, study="o")
    complete_trial(tmp_path, "nan", mAP=float("nan"))
    assert [r["key"] for r in query.top(str(tmp_path), "s")] == ["t1", "t2", "t0"]
    assert [r["key"] for r in query.top(str(tmp_path), n=1)] == ["other"]
    answer = results.sql(
        tmp_path,
        "select arm, count(*) as n, max(val_mAP) as best from trials where study = 'o' "
        "group by arm",
    )
    assert answer.to_pylist() == [{"arm": "tuned", "n": 1, "best": 99.0}]
    joined = results.sql(
        tmp_path, "select count(*) as n from trials join epochs using (key) join labels using (key)"
    )
    assert joined.to_pylist() == [{"n": 5 * 2 * 2}]
    shown = query.show(str(tmp_path), "t0")
    assert (len(shown["epochs"]), len(shown["labels"])) == (2, 2)
    overview = query.study_overview(str(tmp_path))
    counts = {row["study"]: (row["trials"], row["failed"]) for row in overview}
    assert counts == {"s": (4, 1), "o": (1, 0)}


def test_a_shared_stage_1_is_not_the_best_of_its_study(tmp_path):
    complete_trial(tmp_path, "t0", mAP=50.0)
    complete_trial(tmp_path, "t1", mAP=60.0, phase="stage1")
    (overview,) = query.study_overview(str(tmp_path))
    assert (overview["trials"], overview["best_val_mAP"]) == (2, 50.0)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda r: results.read(r, "trails"), "no table 'trails'; did you mean 'trials'"),
        (
            lambda r: results.sql(r, "select t.zzz from epochs e join trials t using (key)"),
            "no column 'zzz' in the tables trials, epochs; there are key,",
        ),
        (
            lambda r: results.sql(r, "select * from trial"),
            "no table 'trial'; did you mean 'trials'",
        ),
        (lambda r: results.sql(r, "selec 1"), "cannot be answered"),
        (lambda r: query.top(r, "ss"), "no study 'ss' in '.*'; did you mean 's'"),
        (
            lambda r: query.top(r, "s", "val_map"),
            "no metric 'val_map' in the table trials; did you mean 'val_mAP'",
        ),
        (
            lambda r: query.show(r, "s-tuned-s0-b"),
            "no trial 's-tuned-s0-b' in '.*'; the nearest are 's-tuned-s0-a'. `sadcl results top`",
        ),
        (lambda r: results.read(r + "/nowhere", "trials"), "holds no results: there is no such"),
        (lambda r: results.read("s4://x/y", "trials"), "cannot be opened"),
    ],
)
def test_typos_suggest_the_nearest(tmp_path, ask, message):
    complete_trial(tmp_path)
    with pytest.raises(UserError, match=message):
        ask(str(tmp_path))


@pytest.mark.parametrize(
    "query_text",
    [
        "copy trials to '{0}/out.csv'",
        "select * from read_csv('/etc/passwd')",
        "select * from '{0}/tables/trials/s.rows.parquet'",
        "attach '{0}/x.db'",
        "set enable_external_access = true",
        "install httpfs",
    ],
)
def test_a_query_reaches_no_file(tmp_path, query_text):
    complete_trial(tmp_path)
    published_tables.publish(str(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="The query cannot be answered"):
        results.sql(tmp_path, query_text.format(tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_query_changes_nothing(tmp_path):
    complete_trial(tmp_path)
    with pytest.raises(UserError, match="it must be one SELECT"):
        results.sql(tmp_path, "delete from trials")
    assert len(results.read(tmp_path, "trials")) == 1


def test_two_threads_ask_at_once(tmp_path):
    complete_trial(tmp_path)
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


def test_a_query_whose_files_are_merged_away_meanwhile_looks_again(tmp_path, monkeypatch):
    for i in range(3):
        trial(tmp_path, f"a{i}")
    compact.compact(str(tmp_path))
    trial(tmp_path, "b")
    view, moments = query._create_view, []

    def merged_away(*args):
        found = view(*args)
        if not moments:
            compact.compact(str(tmp_path))
            moments.append(found)
        return found

    monkeypatch.setattr(query, "_create_view", merged_away)
    assert results.sql(tmp_path, "select count(*) as n from trials").to_pylist() == [{"n": 4}]
    assert not any(os.path.exists(path) for path in moments[0])


def test_a_trial_is_known_by_any_unique_end_or_part_of_its_key(tmp_path):
    for key in ("s-tuned-s0-aab1", "s-tuned-s0-aac1", "s-tuned-s1-aad2", "s-stage2-s1-b1"):
        complete_trial(tmp_path, key)
    root = str(tmp_path)
    for text, key in (
        ("s-tuned-s0-aab1", "s-tuned-s0-aab1"),
        ("c1", "s-tuned-s0-aac1"),
        ("tuned-s1", "s-tuned-s1-aad2"),
    ):
        assert query.find_key(root, text) == query.show(root, text)["key"] == key
    with pytest.raises(UserError, match=r"'b1' is a part of 2 keys .* 's-tuned-s0-aab1'\. Give"):
        query.find_key(root, "b1")
    with pytest.raises(UserError) as error:
        query.find_key(root, "tuned-s0-aab2")
    nearest = re.findall(r"'(s-[\w-]+)'", str(error.value))
    assert nearest[0] == "s-tuned-s0-aab1"
    assert len(nearest) == 3
    with pytest.raises(UserError, match="the nearest are"):
        query.find_key(root, "")


def test_of_studies_that_try_the_same_setting_a_trial_is_known_by_its_study_and_an_end(tmp_path):
    for study in ("one", "two"):
        for arm in ("both", "none"):
            complete_trial(tmp_path, f"{study}-{arm}-s0-{arm}1", study=study)
    root = str(tmp_path)
    message = r"'both1' is a part of 2 keys .*\. Give more of the key, or its study: 'one/both1'\."
    with pytest.raises(UserError, match=message):
        query.find_key(root, "both1")
    assert query.find_key(root, "one/both1") == "one-both-s0-both1"
    assert query.find_key(root, "two/both1") == "two-both-s0-both1"
    with pytest.raises(UserError, match=r"'one/s0' is a part of 2 keys .* Give more of the key\.$"):
        query.find_key(root, "one/s0")
    with pytest.raises(UserError, match=r"'s0' is a part of 4 keys .* Give more of the key\.$"):
        query.find_key(root, "s0")
    for text in ("one/both2", "three/both1"):
        with pytest.raises(UserError, match="no trial .* the nearest are 'one-both-s0-both1'"):
            query.find_key(root, text)
