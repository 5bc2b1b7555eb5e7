"""The one command runs benchmarks, writes their rows and reports failures."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from sadcl import results
from tests.experiments.benchmarks.conftest import FOLDER


def run(script, *words):
    return subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True)


def test_run_writes_rows_that_sql_reads(tmp_path):
    done = run(FOLDER / "run.py", "--quick", "--only", "metrics", "--storage", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "mAP and F1" in done.stdout
    (row,) = results.sql(str(tmp_path), "from benchmarks").to_pylist()
    assert (row["benchmark"], row["unit"], row["quick"]) == ("metrics", "ms", True)
    assert row["command"] == "python experiments/benchmarks/metrics.py"
    assert row["low"] == row["ratio"] == row["high"] == row["reference"] / row["ours"] > 0
    assert row["share"] == pytest.approx(row["bound"] / row["ours"])
    assert row["goal"] is row["reached"] is None  # of the full size alone
    assert None not in [
        row[name] for name in ("measured", "code", "cpu", "device", "threads", "cores", "torch")
    ]


def test_one_that_fails_does_not_keep_the_others(tmp_path):
    for name in ("run.py", "rows.py", "metrics.py"):
        shutil.copy(FOLDER / name, tmp_path)
    (tmp_path / "losses.py").write_text(
        "def benchmark(quick):\n    raise ValueError('no reference')\n"
    )
    (tmp_path / "startup.py").write_text("import os\n\ndef benchmark(quick):\n    os._exit(3)\n")
    store = str(tmp_path / "runs")
    done = run(
        tmp_path / "run.py", "--quick", "--only", "losses, startup,metrics", "--storage", store
    )
    assert done.returncode == 1
    assert "losses FAILED: ValueError: no reference" in done.stdout
    assert "startup FAILED: BrokenProcessPool" in done.stdout
    assert "2 of 3 failed: startup, losses" in done.stdout
    assert [row["benchmark"] for row in results.sql(store, "from benchmarks").to_pylist()] == [
        "metrics"
    ]


def test_an_unknown_name_is_an_error_with_the_nearest(tmp_path):
    done = run(FOLDER / "run.py", "--only", "metrics,loses", "--storage", str(tmp_path))
    assert (done.returncode, done.stderr) == (
        2,
        "error: There is no benchmark 'loses'; did you mean 'losses'?\n",
    )
    assert not list(tmp_path.iterdir())


SHARED = (
    "rows",
    "run",
    "scaling_model",
    "scaling_processes",
    "scaling_projection",
    "step_measurements",
)
"""Files that are no benchmark."""


def test_every_benchmark_gives_rows(load):
    assert {f"{name}.py" for name in (*load("run").NAMES, *SHARED)} == {
        path.name for path in FOLDER.glob("*.py")
    }


@pytest.mark.parametrize("name", ["step", "memory"])
def test_rows_of_a_benchmark_that_needs_torch_alone(load, monkeypatch, name):
    run, module = load("run"), load(name)
    made = {
        "step": lambda repeats=5: [module.row("a", "GB", [1.0], [2.0])],
        "memory": lambda repeats=3: [
            module.row("a", "GB", 1.0, state=0.5, how="computed", reference=2.0, ratio=2.0)
        ],
    }
    monkeypatch.setattr(module, "measure", made[name])
    monkeypatch.setattr(run.importlib, "import_module", lambda _: module)
    for quick in (False, True):
        (row,), _ = run.measure(name, {"quick": quick})
        assert (row.name, row.ours, row.reference, row.ratio, row.limit) == (
            "a",
            1.0,
            2.0,
            2.0,
            None,
        )
