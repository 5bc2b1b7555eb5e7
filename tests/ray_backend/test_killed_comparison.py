"""A comparison that is killed in each of its studies ends complete, with nothing done twice."""

from __future__ import annotations

import json
import random

import pytest

from tests.conftest import TINY
from tests.ray_backend.test_driver_search import rows, start
from tests.ray_backend.test_nothing_lost import epochs, kill, until

FILE = f"""
from sadcl import Comparison, main, recipes
from sadcl.search import Float

rate = {{"stage1.lr": Float(1e-4, 1e-2, log=True)}}
main(Comparison(
    name="two",
    base=recipes.coco14(),
    demo=recipes.demo().override({TINY!r}),
    methods={{
        "SADCL": {{}},
        "pooled": {{"model.head": "sadcl.model.heads:Pooled", "stage2.epochs": 0}},
    }},
    spaces={{"SADCL": rate, "pooled": rate}},
    baseline="SADCL",
    seeds=(1, 2, 3),
    n_demo_trials=2,
))
"""
RUNS = {"two-SADCL-demo": 4, "two-pooled-demo": 2, "two-demo": 9}
"""Runs of each study: each trial of SADCL has a stage 1 of its own, each seed of it too."""


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_killed_in_each_of_its_studies(command, tmp_path):
    file, root, mark = tmp_path / "two.py", tmp_path / "runs", str(tmp_path)
    file.write_text(FILE)
    command.environment["SADCL_MARK"] = mark
    seen: dict = {}
    for kind, study in zip(("driver", "cluster", "driver"), RUNS, strict=True):
        process = start(command, file, tmp_path)
        until(lambda study=study: any(r["study"] == study for r in rows(root)), process, 400)
        kill(kind, process, mark, random.Random(0))
        assert {at: epochs(root).get(at) for at in seen} == seen
        seen = epochs(root)
    text = command("python", file).stdout
    ended = rows(root)
    assert {study: sum(r["study"] == study for r in ended) for study in RUNS} == RUNS
    assert {row["status"] for row in ended} == {"complete"}
    for name in ("SADCL", "pooled"):
        tried = [r for r in ended if r["study"] == f"two-{name}-demo" and r["phase"] == "search"]
        best = json.loads(max(tried, key=lambda row: row["val_mAP"])["params"])
        arms = [r for r in ended if r["study"] == "two-demo" and r["arm"] == name]
        rates = [json.loads(row["config"])["stage1"]["lr"] for row in arms]
        assert rates == [best["stage1.lr"]] * 3
    table = text.partition("# two-demo on scenes")[2]
    arms = [line.partition("\t")[0] for line in table.splitlines() if "\t" in line]
    assert [arms.count(name) for name in ("SADCL", "pooled")] == [1, 1]
    assert command("python", file).stdout.partition("# two-demo on scenes")[2] == table
