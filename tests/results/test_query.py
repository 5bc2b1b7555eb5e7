"""Questions to the tables: SQL in bounded memory, files for others, what is wrong with a store."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from sadcl import metrics, recipes, results, storage
from sadcl.cli.app import app
from sadcl.config import Config
from sadcl.errors import UserError
from sadcl.reports import comparison
from sadcl.results import RunWriter, compact, export, predictions, query, schema, store, verify
from sadcl.search.ranking import best_trials
from tests.reports.ablations import EVIL, ablation

NASTY = [EVIL, "it's", 'a "b"', "a/b\\c", "x\ny", "🦆; drop table trials", "-- x", "%s {0}"]


def run(
    root,
    key="k",
    *,
    study="s",
    phase="search",
    epochs=2,
    status="complete",
    figures=None,
    config=None,
    **row,
):
    text = config.json_text() if config is not None else None
    known = {"config": text, "config_digest": config.digest() if config else None} if config else {}
    writer = RunWriter(
        str(root),
        key,
        {"study": study, "phase": phase, "arm": "tuned", "params": "{}", **known, **row},
    )
    for epoch in range(1, epochs + 1):
        writer.epoch({"stage": 2, "epoch": epoch, "val_mAP": 50.0 + epoch})
    if status != "running":
        labels = [{"split": "val", "label": label, "AP": 50.0} for label in ("cat", "dog")]
        writer.finish(status, metrics=figures or {"val_mAP": 52.0}, labels=labels)
    return writer


@pytest.fixture
def sadcl(tmp_path):
    """Runs a command of `sadcl results` in this process; gives exit code and output, a mistake is raised."""

    def command(*words, code=0):
        done = CliRunner().invoke(app, ["results", *map(str, words), "--storage", str(tmp_path)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code
        return done.stdout

    return command


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
        assert [one.study for one in comparison.compare_studies(str(tmp_path), NASTY)] == NASTY
    texed = sadcl("export", "select key, study from trials", "--latex")
    assert r"\textbackslash{}" in texed
    assert texed.count(r" \\") == len(NASTY) + 1
    store.delete(str(tmp_path), NASTY[0])
    assert NASTY[0] not in results.read(tmp_path, "trials")["key"].to_pylist()


def test_columns_are_read_alone_and_a_mistyped_one_is_named(tmp_path):
    run(tmp_path)
    assert results.read(tmp_path, "epochs", ["val_mAP"]).to_pydict() == {"val_mAP": [51.0, 52.0]}
    with pytest.raises(UserError, match="epochs has no column 'val_map'; did you mean 'val_mAP'"):
        results.read(tmp_path, "epochs", ["val_map"])
    with pytest.raises(UserError, match="no table 'epoch'; did you mean 'epochs'"):
        results.sql(tmp_path, "select t.key from trials t join epoch e using (key)")
    with pytest.raises(UserError, match="no table 'trails'; did you mean 'trials'"):
        results.sql(tmp_path, "select * from trails")
    with pytest.raises(UserError, match='Candidate bindings: .*"val_mAP"'):
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
        p for p in tmp_path.glob("tables/trials/merged/*.parquet") if ".index" not in p.name
    )
    before = merged.read_bytes()
    with pytest.raises(UserError):
        results.sql(tmp_path, text.format(merged))
    assert merged.read_bytes() == before
    assert len(found) == 1


def test_a_query_over_more_than_memory_is_answered_in_bounded_memory(tmp_path):
    """800,000 epochs (180 MB) grouped where the process may grow by 250 MB, of which DuckDB takes 120."""
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
        "q = 'select key, avg(val_mAP) as m, max(loss), min(lr) from epochs group by key order by m desc, key'\n"
        "print(len(results.sql(sys.argv[1], q, memory='120MB')))\n"
        "q = 'select * from epochs order by loss desc limit 10'\n"
        "print(len(results.sql(sys.argv[1], q, memory='120MB')))\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert done.stdout.split() == ["8000", "10"], done.stderr[-2000:]


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
        pq.write_table(rows, tmp_path / "tables" / table / "old.parquet", compression="zstd")
    for merged in (False, True):
        if merged:
            compact.compact(str(tmp_path))
            assert not list(tmp_path.glob("tables/*/*.parquet"))
        rows = {row["key"]: row for row in results.read(tmp_path, "trials").to_pylist()}
        assert (rows["old"]["val_mAP"], rows["old"]["weights_digest"]) == (60.0, None)
        ask = "select t.key, count(*) as n from trials t join epochs using (key) group by all order by n"
        assert results.sql(tmp_path, ask).to_pylist() == [
            {"key": "old", "n": 1},
            {"key": "new", "n": 2},
        ]
        assert query.top(str(tmp_path))[0]["key"] == "old"
        assert not list(verify.verify(str(tmp_path)))[1:]  # the study has no file


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
    joined = "select s.kind, count(*) as n from trials t join studies s on t.study = s.study group by all order by n"
    assert results.sql(tmp_path, joined).to_pylist() == [
        {"kind": None, "n": 1},
        {"kind": "ablation", "n": 2},
    ]
    storage.write(f"{tmp_path}/studies/ab2.json", b"{")
    with pytest.raises(UserError, match="ab2.json' is damaged"):
        results.read(tmp_path, "studies")


def test_metrics_are_had_again_from_predictions(tmp_path):
    rng = np.random.default_rng(0)
    targets_NL = (rng.random((500, 20)) < 0.2).astype(np.int8)
    targets_NL[3, 4] = -1
    logits_NL = rng.normal(-2, 2, (500, 20)) + 3 * targets_NL
    logits_NL[0, 0], logits_NL[1, 0] = 1e-4, -1e-4  # scores that would round to 0.5
    labels = [f"label {i}" for i in range(20)]
    recorded = metrics.multilabel_metrics(1 / (1 + np.exp(-logits_NL)), targets_NL)
    images = [f"dir/{i}.jpg" for i in range(500)]
    for key in ("a", "b"):
        writer = RunWriter(str(tmp_path), key, {"study": "s"})
        said = [
            predictions.predictions_table(s, images, labels, logits_NL, targets_NL)
            for s in ("val", "test")
        ]
        writer.finish("complete", predictions=said)
    for merged in (False, True):
        if merged:
            compact.compact(str(tmp_path))
        again = predictions.metrics(str(tmp_path), "a", "test")
        for name in ("CP", "CR", "CF1", "OP", "OR", "OF1", "CF1_macro"):
            assert again[name] == recorded[name]
        for name in ("mAP", "CF1_top3", "OF1_top3"):
            assert again[name] == pytest.approx(recorded[name], abs=0.05)
        higher = predictions.metrics(str(tmp_path), "a", "test", threshold=0.8)
        wanted = metrics.multilabel_metrics(1 / (1 + np.exp(-logits_NL)), targets_NL, threshold=0.8)
        assert higher["OF1"] == pytest.approx(wanted["OF1"], abs=0.1)
        assert higher["OF1"] != again["OF1"]
        ask = """select label, avg(case when (logit > 0) = (target = 1) then 1 else 0 end) as right from (
                   select unnest(labels) as label, unnest(logits) as logit, unnest(targets) as target from predictions
                   where key = 'b' and split = 'val') group by label order by label"""
        right = results.sql(tmp_path, ask).to_pydict()
        assert right["right"][0] == pytest.approx(
            ((logits_NL[:, 0] > 0) == (targets_NL[:, 0] == 1)).mean()
        )
        names, found, scores_NL, read_NL = predictions.load_predictions(str(tmp_path), "b", "val")
        assert (names, found) == (images, tuple(labels))
        assert np.array_equal(read_NL, targets_NL)
        assert np.abs(scores_NL - 1 / (1 + np.exp(-logits_NL))).max() < 5e-4
    size = sum(p.stat().st_size for p in tmp_path.rglob("tables/predictions/**/*.parquet"))
    assert (
        size < 2.6 * logits_NL.size * 4
    )  # bytes for four matrices of float16, names and targets in the rest
    with pytest.raises(UserError, match="no predictions of the split 'train'; there are val, test"):
        predictions.metrics(str(tmp_path), "a", "train")
    with pytest.raises(UserError, match="no trial 'c'"):
        predictions.metrics(str(tmp_path), "c", "val")


@pytest.mark.parametrize(
    "config",
    [
        recipes.coco14().override(
            {"data.name": "coco14", "loss.tau": 0.123456789, "loss.prototype_tau": None, "seed": 3}
        ),
        recipes.voc2012("paper").override(
            {"model.frozen": (), "model.start": 'it\'s/"x".pt', "optim.ema_warmup": True}
        ),
        recipes.demo("nuswide").override({"stage2.augmentation.multiscale": (1.0, 0.5)}),
        recipes.vg500(),
    ],
)
def test_a_recipe_pasted_is_the_same_configuration(tmp_path, sadcl, config):
    run(tmp_path, config=config)
    pasted = {}
    text = sadcl("recipe", "k")
    exec(text, pasted)
    assert pasted["config"].digest() == config.digest()
    assert text.count("\n") <= 12
    assert "# The run was made" not in text


def test_a_recipe_of_an_older_configuration_says_so(tmp_path, sadcl):
    tree = recipes.demo().model_dump(mode="json")
    del tree["loss"]["anchor_mask"]
    run(tmp_path, config=recipes.demo())
    store.amend(str(tmp_path), "k", config=json.dumps(tree), config_digest="000000000000")
    text = sadcl("recipe", "k")
    assert "another version of the package: its configuration had the digest 000000000000" in text
    assert Config.parse(tree).digest() in text


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
    assert export.kind_of([], "s3://a/b.PARQUET") == "parquet"


def test_a_store_without_faults(tmp_path, sadcl):
    storage.write(f"{tmp_path}/studies/s.json", b'{"name": "s"}')
    config = recipes.demo()
    storage.write(f"{tmp_path}/checkpoints/k/best.pt", b"x")
    digest = "2d711642b726"  # sha256 of x
    run(
        tmp_path,
        config=config,
        checkpoint=f"{tmp_path}/checkpoints/k/best.pt",
        weights_digest=digest,
    )
    run(tmp_path, "going", status="running")
    run(tmp_path, "failed", status="failed", figures={"cause": "NaN"})
    assert sadcl("verify", "--checkpoints") == "No fault was found.\n"
    compact.compact(str(tmp_path))
    store.amend(str(tmp_path), "k", cause=None)
    assert sadcl("verify", "--checkpoints") == "No fault was found.\n"


def _change(root, table, key, **columns):
    rows = store.rows_of(str(root), table, key)
    data = schema.table(table, [{**row, **columns} for row in rows])
    storage.write(f"{root}/tables/{table}/{key}.parquet", _bytes(data))


def _bytes(rows):
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    return sink.getvalue().to_pybytes()


def _rows(root, table, change):
    rows = store.rows_of(str(root), table, "k")
    storage.write(f"{root}/tables/{table}/k.parquet", _bytes(schema.table(table, change(rows))))


FAULTS = {
    "truncated": (
        lambda r: os.truncate(r / "tables/epochs/k.parquet", 300),
        r"epochs/k.parquet: is damaged",
    ),
    "empty": (
        lambda r: os.truncate(r / "tables/trials/k.parquet", 0),
        r"trials/k.parquet: is damaged",
    ),
    "another schema": (
        lambda r: pq.write_table(pa.table({"a": [1]}), r / "tables/labels/z.parquet"),
        "z.parquet: has no version",
    ),
    "foreign": (
        lambda r: (r / "tables/trials/notes.txt").write_text(""),
        "notes.txt: is no file of the tables",
    ),
    "killed writer": (
        lambda r: (r / "tables/trials/.k.parquet.1.part").write_text(""),
        "left by a writer that was killed",
    ),
    "killed merging": (
        lambda r: storage.write(f"{r}/tables/trials/merged/1.parquet", b""),
        "1.parquet: was left by a merging that was killed. `sadcl results compact` removes it",
    ),
    "another key": (
        lambda r: os.rename(r / "tables/labels/k.parquet", r / "tables/labels/o.parquet"),
        "rows of another key, 'k'",
    ),
    "twice": (lambda r: _rows(r, "epochs", lambda rows: [*rows, rows[0]]), "1 rows twice"),
    "gap": (lambda r: _rows(r, "epochs", lambda rows: rows[1:]), "lacks epoch 1 of 2 in stage 2"),
    "lost epoch": (
        lambda r: _rows(r, "epochs", lambda rows: rows[:1]),
        "epochs_done = 2, but 1 rows of epochs",
    ),
    "nan epoch": (
        lambda r: _change(r, "epochs", "k", loss=float("nan")),
        "2 epochs whose loss is no number, first k stage 2 epoch 1",
    ),
    "nan": (lambda r: _change(r, "trials", "k", val_mAP=float("nan")), "has val_mAP = nan"),
    "no figure": (lambda r: _change(r, "trials", "k", val_mAP=None), "complete without val_mAP"),
    "status": (lambda r: _change(r, "trials", "k", status="done"), "has the status 'done'"),
    "digest": (
        lambda r: _change(r, "trials", "k", config_digest="0"),
        "has config_digest '0', but its config gives",
    ),
    "orphan": (
        lambda r: os.remove(r / "tables/trials/k.parquet"),
        "rows of 'k', which the table trials does not have",
    ),
    "no stage 1": (
        lambda r: _change(r, "trials", "k", stage1_key="none"),
        "starts from the stage 1 'none', which has no row",
    ),
    "no study": (
        lambda r: os.remove(r / "studies/s.json"),
        "studies/s.json: is missing, but the study 's' has 1 rows",
    ),
    "bad study": (lambda r: (r / "studies/s.json").write_text("{"), "studies/s.json: is damaged"),
    "weights": (
        lambda r: (r / "checkpoints/k/best.pt").write_text("y"),
        "best.pt: has the digest .* but 'k' was recorded with",
    ),
    "no weights": (
        lambda r: os.remove(r / "checkpoints/k/best.pt"),
        "best.pt: is missing, but 'k' names it",
    ),
}


@pytest.mark.parametrize("what", FAULTS)
def test_each_fault_is_named_with_its_file(tmp_path, sadcl, what):
    spoil, message = FAULTS[what]
    storage.write(f"{tmp_path}/studies/s.json", b'{"name": "s"}')
    storage.write(f"{tmp_path}/checkpoints/k/best.pt", b"x")
    run(
        tmp_path,
        config=recipes.demo(),
        checkpoint=f"{tmp_path}/checkpoints/k/best.pt",
        weights_digest="2d711642b726",
    )
    spoil(tmp_path)
    import re

    assert re.search(message, sadcl("verify", "--checkpoints", code=1))


def test_damage_in_a_merged_file_is_named_and_nothing_is_lost_by_merging(tmp_path, sadcl):
    run(tmp_path, "a")
    run(tmp_path, "b")
    (tmp_path / "tables" / "labels" / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="labels/b.parquet' is damaged"):
        sadcl("compact")
    assert (tmp_path / "tables" / "labels" / "a.parquet").exists()
    os.remove(tmp_path / "tables" / "labels" / "b.parquet")
    sadcl("compact")
    (merged,) = (
        p for p in tmp_path.glob("tables/trials/merged/*.parquet") if ".index" not in p.name
    )
    os.truncate(merged, 100)
    for ask in (
        lambda: results.read(tmp_path, "trials"),
        lambda: results.sql(tmp_path, "from trials"),
        lambda: sadcl("compact"),
    ):
        with pytest.raises(UserError, match="is damaged"):
            ask()


def test_a_row_with_a_nan_metric_is_last_and_compares_as_nothing(tmp_path):
    run(tmp_path, "nan", figures={"val_mAP": float("nan")})
    run(tmp_path, "one", figures={"val_mAP": 1.0})
    assert [row["key"] for row in query.top(str(tmp_path))] == ["one"]
    assert comparison.compare_studies(str(tmp_path))[0].num_seeds == 0


@pytest.mark.parametrize(
    "what",
    [
        "top",
        "studies",
        "compare",
        "verify",
        "compact",
        "export trials",
        "sql 1",
        "show k",
        "recipe k",
    ],
)
def test_a_folder_that_is_no_store(sadcl, what):
    words = ["sql", "select 1 from trials"] if what == "sql 1" else what.split()
    with pytest.raises(UserError, match="holds no results: it has no folder 'tables'"):
        sadcl(*words)


@pytest.mark.parametrize(
    "words",
    [
        ("top",),
        ("compare",),
        ("sql", "select count(*) from trials"),
        ("export", "trials", "--latex"),
        ("recipe", "k"),
        ("verify",),
        ("compact",),
    ],
)
def test_commands_import_nothing_heavy(tmp_path, words):
    """That is what makes them start in half a second: no torch, Ray, Optuna, pandas, matplotlib or scipy.stats."""
    run(tmp_path, config=recipes.demo())
    heavy = {
        "torch",
        "ray",
        "optuna",
        "pandas",
        "matplotlib",
        "scipy.stats",
        "sklearn",
        "pyarrow.dataset",
    }
    code = (
        "import atexit, sys; from sadcl.cli import main\n"
        f"atexit.register(lambda: print({heavy} & sys.modules.keys(), file=sys.stderr))\n"
        "main()"
    )
    storage.write(f"{tmp_path}/studies/s.json", b'{"name": "s"}')
    words = [sys.executable, "-c", code, "results", *words, "--storage", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "set()\n")
    assert done.stdout


def test_columns_of_one_name_are_told_apart(sadcl, tmp_path):
    run(tmp_path, "k")
    query = "select a.val_mAP, b.val_mAP from (select 1.0 as val_mAP) a, (select 2.0 as val_mAP) b"
    assert sadcl("sql", query).splitlines() == ["val_mAP\tval_mAP_1", "1.0\t2.0"]


def test_lists_and_spans_of_time_can_be_printed_and_exported(sadcl, tmp_path):
    run(tmp_path, "k")
    assert "datasets" in sadcl("sql", "select study, datasets from studies", "--csv")
    query = "select key, interval 90 second as took, [started] as at from trials"
    assert '"k",90,' in sadcl("export", query, "--csv")
    sadcl("export", query, "-o", str(tmp_path / "x.parquet"))
    assert pq.read_table(tmp_path / "x.parquet")["took_seconds"].to_pylist() == [90.0]


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
