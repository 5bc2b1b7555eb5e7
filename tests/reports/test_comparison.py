"""Studies side by side."""

from __future__ import annotations

import json
import sys
import types

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from sadcl import results, storage
from sadcl.cli.app import app
from sadcl.errors import UserError
from sadcl.reports import comparison
from sadcl.results import RunWriter, store
from tests.reports.ablations import ablation
from tests.results.runs import run


@pytest.fixture
def sadcl(tmp_path):
    """Runs a command of `sadcl results` in this process; a mistake is raised."""

    def command(*words):
        done = CliRunner().invoke(app, ["results", *words, "--storage", str(tmp_path)])
        if done.exception is not None:
            raise done.exception
        return done.stdout

    return command


def test_studies_side_by_side(tmp_path, sadcl, monkeypatch):
    published = types.ModuleType("published")
    cell = {
        "dataset": "coco14",
        "metric": "mAP",
        "is_ours": True,
        "arm": None,
        "test_px": 448,
        "value": 85.6,
    }
    cells = [cell | {"test_px": 576, "value": 1.0}, cell, cell | {"arm": "both", "value": 86.0}]
    published.table = lambda: pa.Table.from_pylist(cells)
    monkeypatch.setattr(results, "published", published, raising=False)
    monkeypatch.setitem(sys.modules, "sadcl.results.published", published)
    about = {"name": "s", "kind": "search", "scale": "full"}
    storage.write(f"{tmp_path}/studies/s.json", json.dumps(about).encode())
    cost = {"data_image_size": 448, "scale": "full", "dataset": "coco14", "workers": 2, "gpus": 0.5}
    for seed, (test, params) in enumerate([(80.0, 0.1), (82.0, 0.1), (90.0, 0.2)]):
        figures = {"val_mAP": 70.0 - 10 * params, "test_mAP": test, "seconds": 1800.0}
        run(
            tmp_path,
            f"c{seed}",
            phase="confirm",
            figures=figures,
            **cost | {"params": json.dumps({"loss.tau": params})},
        )
    chosen = {
        "study": "s",
        "phase": "search",
        "arm": "tuned",
        "params": '{"loss.tau": 0.1}',
    }  # the other is not among the best
    lucky = RunWriter(str(tmp_path), "lucky", {**chosen, **cost})
    for epoch, value in enumerate([60.0, 99.0, 61.0, float("nan")], 1):
        lucky.epoch({"stage": 2, "epoch": epoch, "val_mAP": value})
    lucky.finish("complete", metrics={"val_mAP": 99.0, "seconds": 3600.0})
    ablation(tmp_path, {"stage2": [50.0], "both": [51.0]})
    store.amend(str(tmp_path), "ab-both-coco14-s0", data_image_size=448)
    (search, arms) = comparison.compare_studies(str(tmp_path), ["s", "ab"])
    assert (search["setting"], search["seeds"], search["test mAP"]) == ("tau=0.1", 2, 81.0)
    assert search["± 95 %"] == pytest.approx(12.706, abs=1e-3)
    assert (search["best-ever, optimistic"], search["its last epoch"]) == (99.0, 61.0)
    assert (search["paper"], search["trials"], search["hours"], search["GPU hours"]) == (
        85.6,
        4,
        2.5,
        2.5,
    )
    assert (arms["setting"], arms["test mAP"], arms["± 95 %"], arms["paper"]) == (
        "both",
        51.0,
        None,
        86.0,
    )
    lines = sadcl("compare").splitlines()
    assert [line.split("\t")[0] for line in lines] == ["study", "ab", "s"]
    with pytest.raises(UserError, match="no study 'a'.*did you mean 'ab'"):
        sadcl("compare", "a")
