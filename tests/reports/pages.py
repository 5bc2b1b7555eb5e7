"""Storages for the tests of the page: the rows of a search, of any size, one file a table."""

from __future__ import annotations

import json
import random
import re
from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq

from sadcl import recipes, storage
from sadcl.results import schema
from sadcl.search import ASHA, Float, Plan, Search

EVIL = "</style><script>alert(1)</script>&\"'/\\🦆 $x$\x07"
"""A name that would break out of HTML, of SVG, of a shell and of matplotlib's mathematics."""
SPACE = {
    "loss.tau": Float(0.05, 0.5, log=True),
    "bank.epsilon": Float(0.3, 0.7),
    "prototypes.epsilon": Float(0.3, 0.7),
}


def search(
    root,
    trials=12,
    *,
    name="s",
    question="Which tau?",
    labels=("cat", "dog", "duck"),
    pruned=3,
    failed=1,
    confirmed=True,
):
    """Write a search whose ``pruned`` and ``failed`` trials come last.

    It has its baselines, and if ``confirmed``, the confirmation and the final run.
    """
    dice = random.Random(0)
    base, now = recipes.demo(), datetime(2026, 1, 2, tzinfo=UTC)
    rows, epochs, aps = [], [], []

    def run(
        phase, arm, seed, stage, count, level, params=None, test=None, status="complete", cause=None
    ):
        key = f"{name}-{len(rows)}"
        config = base.override({"seed": seed, **(params or {})})
        curve = (
            [level - 20 / (e + 1) + dice.gauss(0, 0.3) for e in range(1, count + 1)]
            if status != "failed"
            else []
        )
        val = {} if status != "complete" or phase == "final" else {"val_mAP": max(curve)}
        more = {
            "seconds": 12.5 * count,
            "images": 1800 * count,
            "memory_mb": 900.0,
            "checkpoint": f"{key}/best.pt",
        }
        tested = {} if test is None else {"test_mAP": test}
        rows.append(
            {
                "key": key,
                "study": name,
                "phase": phase,
                "arm": arm,
                "seed": seed,
                "dataset": "scenes",
                "scale": "demo",
                "status": status,
                "cause": cause,
                "params": json.dumps(params or {}),
                "config": config.json_text(),
                "config_digest": config.digest(),
                "data_digest": "d1",
                "sadcl": "0.1.0",
                "torch": "2.14.1",
                "code": "abc",
                "revision": "f00+",
                "started": now + timedelta(minutes=len(rows)),
                "ended": now + timedelta(minutes=len(rows) + 2),
                "stage1_key": f"{name}-0" if stage == 2 else None,
                "epochs_done": len(curve),
                "workers": 1,
                "gpus": 0.0,
                **(more if status != "failed" else {}),
                **val,
                **tested,
            }
        )
        figures = [] if phase == "final" else curve
        epochs.extend(
            {"key": key, "study": name, "stage": stage, "epoch": e, "val_mAP": v}
            for e, v in enumerate(figures, 1)
        )
        split = "val" if test is None else "test"
        for i, label in enumerate(labels if status == "complete" else ()):
            figure = {"AP": 60 + i + dice.gauss(0, 3), "support": 100.0 - i}
            aps.append({"key": key, "study": name, "split": split, "label": label, **figure})

    run("stage1", "stage1", 0, 1, 6, 70)
    run("baseline", "baseline", 0, 1, 8, 64)
    run("baseline", "stage2", 0, 2, 4, 72)
    params = {}
    for n in range(trials):
        params = {
            "loss.tau": 0.05 * 10 ** dice.random(),
            "bank.epsilon": 0.3 + 0.4 * dice.random(),
            "prototypes.epsilon": 0.5,
        }
        if n >= trials - failed:
            run(
                "search",
                "tuned",
                0,
                2,
                4,
                0,
                params,
                status="failed",
                cause="ValueError: the loss is not finite",
            )
        elif n >= trials - failed - pruned:
            run(
                "search",
                "tuned",
                0,
                2,
                2,
                70,
                params,
                status="pruned",
                cause="stopped after epoch 2 at 65.00 held-out mAP: ASHA from epoch 2, reduction 3",
            )
        else:
            run("search", "tuned", 0, 2, 4, 71 + 2 * dice.random(), params)
    best = max(
        (row for row in rows if row["phase"] == "search"), key=lambda row: row.get("val_mAP", 0)
    )
    for seed in (7, 8) if confirmed else ():
        run("confirm", "stage2", seed, 2, 4, 71, test=70.0 + seed)
        run("confirm", "tuned", seed, 2, 4, 72, json.loads(best["params"]), test=70.5 + 1.1 * seed)
    if confirmed:
        run("final", "tuned", 0, 2, 4, 73, json.loads(best["params"]), test=75.25)
    value = Search(
        name=file_name(name),
        question=question,
        base=recipes.coco14(),
        demo=base,
        space=SPACE,
        stopping=ASHA(2, 3),
        confirm_seeds=(7, 8),
    )
    plan = Plan(value, "demo", base, trials, "d1", "d2")
    about = {**plan.identity(), **plan.about()}
    write(root, {"trials": rows, "epochs": epochs, "labels": aps}, name, about)
    return rows


def file_name(name):
    """Return a file name: a study's own name has no slash, but rows of other programs may."""
    return re.sub(r"[/\\]", "_", name)


def write(root, tables, name, about):
    """Write rows in one file for each table, and the description of the study."""
    for table, table_rows in tables.items():
        folder = root / "tables" / table
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(schema.table(table, table_rows), folder / "all.parquet")
    storage.write(f"{root}/studies/{file_name(name)}.json", json.dumps(about).encode())
