"""Each fault of a store is named with its file, and a good store has none."""

from __future__ import annotations

import os
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sadcl import recipes, storage
from sadcl.results import RunWriter, compact, files, schema, store, table_file, verify
from tests.results.runs import run


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
    data = schema.to_table(table, [{**row, **columns} for row in rows])
    uri = files.run_uri(str(root), table, key, 0)
    storage.write(uri, table_file.encode(data, uri))


def _rows(root, table, change):
    rows = store.rows_of(str(root), table, "k")
    uri = files.run_uri(str(root), table, "k", 0)
    storage.write(uri, table_file.encode(schema.to_table(table, change(rows)), uri))


FAULTS = {
    "truncated": (
        lambda r: os.truncate(r / "tables/_runs/epochs/k.arrow", 300),
        r"epochs/k.arrow: is damaged",
    ),
    "empty": (
        lambda r: os.truncate(r / "tables/_runs/trials/k.arrow", 0),
        r"trials/k.arrow: is damaged",
    ),
    "another schema": (
        lambda r: pq.write_table(pa.table({"a": [1]}), r / "tables/labels/z.parquet"),
        "z.parquet: has no version",
    ),
    "foreign": (
        lambda r: (r / "tables/trials/notes.txt").write_text(""),
        "notes.txt: does not belong to the tables",
    ),
    "killed writer": (
        lambda r: (r / "tables/_runs/trials/.k.arrow.1.part").write_text(""),
        ".k.arrow.1.part: is unfinished: its writer was killed",
    ),
    "killed merging": (
        lambda r: storage.write(f"{r}/tables/_merged/trials/1.parquet", b""),
        "1.parquet: is unfinished: a compaction was killed. `sadcl results compact` deletes it",
    ),
    "another key": (
        lambda r: os.rename(r / "tables/_runs/labels/k.arrow", r / "tables/_runs/labels/o.arrow"),
        "rows of another key, 'k'",
    ),
    "twice": (lambda r: _rows(r, "epochs", lambda rows: [*rows, rows[0]]), "has 1 duplicate rows"),
    "gap": (
        lambda r: _rows(r, "epochs", lambda rows: rows[1:]),
        "lacks epoch 1 of 2 in stage 2 of 'k'",
    ),
    "lost epoch": (
        lambda r: _rows(r, "epochs", lambda rows: rows[:1]),
        "epochs_done = 2, but the table epochs has 1 rows of it",
    ),
    "nan epoch": (
        lambda r: _change(r, "epochs", "k", loss=float("nan")),
        "2 epochs whose loss is not a finite number, the first is k stage 2 epoch 1",
    ),
    "nan": (lambda r: _change(r, "trials", "k", val_mAP=float("nan")), "gives 'k' val_mAP = nan"),
    "no figure": (
        lambda r: _change(r, "trials", "k", val_mAP=None),
        "'k' is complete, but without val_mAP",
    ),
    "status": (lambda r: _change(r, "trials", "k", status="done"), "the unknown status 'done'"),
    "digest": (
        lambda r: _change(r, "trials", "k", config_digest="0"),
        "the config_digest '0', but its config has",
    ),
    "orphan": (
        lambda r: os.remove(r / "tables/_runs/trials/k.arrow"),
        "rows of 'k', which has no row in the table trials",
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
    for table in ("trials", "labels"):
        (tmp_path / "tables" / table).mkdir()
    spoil(tmp_path)
    text = sadcl("verify", "--checkpoints", code=1)
    assert re.search(message, text)
    assert "studies delete" not in text
    if "store.delete" in text:  # what it destroys is named
        assert (
            "removes its row, figures, epochs, labels and predictions" in text or "orphan" in what
        )


@pytest.mark.parametrize(
    ("phase", "holdout", "is_fault"),
    [
        ("stage1", 0.0, False),
        ("stage1", 0.1, True),
        ("stage1", None, False),  # of a version that did not say
        ("stage1", "config", False),
        ("train", 0.0, False),  # the labels of the test images may be secret
        ("train", 0.1, True),
        ("train", "labels", True),
    ],
)
def test_a_run_that_nothing_could_measure_needs_no_figures(tmp_path, phase, holdout, is_fault):
    """The stage 1 of a final run trains on all images, so nothing is left to measure it on."""
    row = {"study": "s", "phase": phase, "arm": "tuned", "params": "{}"}
    if holdout == "config":
        config = recipes.demo().override({"data.holdout": 0.0})
        row |= {"config": config.json_text(), "config_digest": config.digest()}
    else:
        row |= {"data_holdout": 0.0 if holdout == "labels" else holdout}
    writer = RunWriter(str(tmp_path), "k", row)
    writer.epoch({"stage": 1, "epoch": 1, "loss": 0.5})
    labels = [{"split": "test", "label": "cat", "AP": 50.0}] * (holdout == "labels")
    writer.finish("complete", labels=labels)
    problems = [fault.problem for fault in verify.verify(str(tmp_path))]
    expected = "says that 'k' is complete, but without val_mAP and test_mAP"
    assert problems == ([expected] if is_fault else [])


@pytest.mark.parametrize("split", ["val", "test"])
def test_no_figure_where_no_label_is_shown_is_a_note(tmp_path, sadcl, split):
    """A competition's test images come without labels, and a small held-out part may show none."""
    storage.write(f"{tmp_path}/studies/s.json", b'{"name": "s"}')
    unknown, known = float("nan"), 50.0
    values = {name: unknown if name == split else known for name in ("val", "test")}
    for key in ("a", "b"):
        writer = RunWriter(str(tmp_path), key, {"study": "s", "phase": "arm", "params": "{}"})
        writer.epoch({"stage": 2, "epoch": 1, "val_mAP": values["val"], "loss": 0.5})
        labels = [
            {"split": name, "label": label, "AP": value}
            for name, value in values.items()
            for label in ("cat", "dog")
        ]
        figures = {f"{name}_mAP": value for name, value in values.items()}
        writer.finish("complete", metrics=figures, labels=labels)
    text = sadcl("verify")
    assert re.search(rf"^Note: .*: gives 'a' \(and 1 more\) {split}_mAP = nan", text)
    assert text.endswith("\nNo fault was found.\n")
    assert text.count("\n") == 2
    rows = store.rows_of(str(tmp_path), "labels", "b")
    rows[0 if split == "val" else 2]["AP"] = known  # one label has a positive: the mean is wrong
    uri = files.run_uri(str(tmp_path), "labels", "b", 0)
    storage.write(uri, table_file.encode(schema.to_table("labels", rows), uri))
    text = sadcl("verify", code=1)
    assert f"gives 'b' {split}_mAP = nan, which is not a percentage" in text
    assert ("1 epochs whose val_mAP is not a finite number" in text) == (split == "val")


def test_a_run_in_progress_whose_held_out_images_show_no_label_has_no_fault(tmp_path):
    """Its labels have no rows before it ends; a NaN beside other figures is a fault."""
    writer = RunWriter(str(tmp_path), "k", {"study": "s", "phase": "train", "params": "{}"})
    for epoch, value in enumerate((float("nan"), float("nan")), 1):
        writer.epoch({"stage": 2, "epoch": epoch, "val_mAP": value, "loss": 0.5})
    assert [fault.is_note for fault in verify.verify(str(tmp_path))] == [True]
    writer.epoch({"stage": 2, "epoch": 3, "val_mAP": 50.0, "loss": 0.5})
    assert [fault.is_note for fault in verify.verify(str(tmp_path))] == [False]
