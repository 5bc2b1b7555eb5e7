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
IDENTITY = {
    "dataset": "scenes",
    "scale": "demo",
    "data_digest": "d1",
    "sadcl": "0.1.0",
    "torch": "2.14.1",
    "code": "abc",
    "revision": "f00+",
    "workers": 1,
    "gpus": 0.0,
}
FAILURE = "ValueError: the loss is not finite"
STOPPED = "stopped after epoch 2 at 65.00 held-out mAP: ASHA from epoch 2, reduction 3"


class Tables:
    """The rows of a study, as the runner would write them.

    Attributes:
        label_names: the labels that complete runs have an AP of.
        random: draws the curves and APs.
    """

    def __init__(self, study, label_names):
        self.study, self.label_names = study, label_names
        self.random = random.Random(0)
        self.trials, self.epochs, self.labels = [], [], []

    def run(self, phase, arm, seed, stage, epochs, level, params=None, test=None, **row):
        """Add a run whose held-out mAP rises to about ``level``; ``row`` has its status."""
        status = row.get("status", "complete")
        key = f"{self.study}-{len(self.trials)}"
        config = recipes.demo().override({"seed": seed, **(params or {})})
        curve = []
        if status != "failed":
            steps = range(1, epochs + 1)
            curve = [level - 20 / (e + 1) + self.random.gauss(0, 0.3) for e in steps]
            row |= {
                "seconds": 12.5 * epochs,
                "images": 1800 * epochs,
                "memory_mb": 900.0,
                "checkpoint": f"{key}/best.pt",
            }
        if status == "complete" and phase != "final":
            row["val_mAP"] = max(curve)
        if test is not None:
            row["test_mAP"] = test
        started = datetime(2026, 1, 2, tzinfo=UTC) + timedelta(minutes=len(self.trials))
        self.trials.append(
            {
                **IDENTITY,
                "key": key,
                "study": self.study,
                "phase": phase,
                "arm": arm,
                "seed": seed,
                "status": status,
                "params": json.dumps(params or {}),
                "config": config.json_text(),
                "config_digest": config.digest(),
                "started": started,
                "ended": started + timedelta(minutes=2),
                "stage1_key": f"{self.study}-0" if stage == 2 else None,
                "epochs_done": len(curve),
                **row,
            }
        )
        of_run = {"key": key, "study": self.study}
        for epoch, value in enumerate(curve if phase != "final" else [], 1):
            self.epochs.append({**of_run, "stage": stage, "epoch": epoch, "val_mAP": value})
        split = "val" if test is None else "test"
        for i, label in enumerate(self.label_names if status == "complete" else ()):
            AP = 60 + i + self.random.gauss(0, 3)
            row = {"split": split, "label": label, "AP": AP, "support": 100.0 - i}
            self.labels.append({**of_run, **row})

    def add_trials(self, count, pruned, failed):
        """Add the trials of a search, of which the pruned and the failed ones come last."""
        for n in range(count):
            params = {
                "loss.tau": 0.05 * 10 ** self.random.random(),
                "bank.epsilon": 0.3 + 0.4 * self.random.random(),
                "prototypes.epsilon": 0.5,
            }
            trial = ("search", "tuned", 0, 2)
            if n >= count - failed:
                self.run(*trial, 4, 0, params, status="failed", cause=FAILURE)
            elif n >= count - failed - pruned:
                self.run(*trial, 2, 70, params, status="pruned", cause=STOPPED)
            else:
                self.run(*trial, 4, 71 + 2 * self.random.random(), params)

    def add_confirmation(self):
        """Add the runs of the best setting and of the control over seeds 7 and 8, and the final."""
        trials = [row for row in self.trials if row["phase"] == "search"]
        best = max(trials, key=lambda row: row.get("val_mAP", 0))
        params = json.loads(best["params"])
        for seed in (7, 8):
            self.run("confirm", "stage2", seed, 2, 4, 71, test=70.0 + seed)
            self.run("confirm", "tuned", seed, 2, 4, 72, params, test=70.5 + 1.1 * seed)
        self.run("final", "tuned", 0, 2, 4, 73, params, test=75.25)


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

    Returns:
        The rows of the trials table.
    """
    tables = Tables(name, labels)
    tables.run("stage1", "stage1", 0, 1, 6, 70)
    tables.run("baseline", "baseline", 0, 1, 8, 64)
    tables.run("baseline", "stage2", 0, 2, 4, 72)
    tables.add_trials(trials, pruned, failed)
    if confirmed:
        tables.add_confirmation()
    study = Search(
        name=file_name(name),
        question=question,
        base=recipes.coco14(),
        demo=recipes.demo(),
        space=SPACE,
        pruner=ASHA(2, 3),
        confirm_seeds=(7, 8),
    )
    plan = Plan(study, "demo", recipes.demo(), trials, "d1", "d2")
    rows = {"trials": tables.trials, "epochs": tables.epochs, "labels": tables.labels}
    write(root, rows, name, {**plan.identity(), **plan.description()})
    return tables.trials


def file_name(name):
    """Return a file name: a study's own name has no slash, but rows of other programs may."""
    return re.sub(r"[/\\]", "_", name)


def write(root, tables, name, description):
    """Write rows in one file for each table, and the description of the study."""
    for table, table_rows in tables.items():
        folder = root / "tables" / table
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(schema.to_table(table, table_rows), folder / "all.parquet")
    storage.write(f"{root}/studies/{file_name(name)}.json", json.dumps(description).encode())
