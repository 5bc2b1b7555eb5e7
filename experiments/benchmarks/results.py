"""What a question to the tables costs, beside the same question to the trial folders that Ray Tune leaves behind.

python experiments/benchmarks/results.py                  # some minutes on two cores; about 1 GB below --scratch
python experiments/benchmarks/results.py --trials 1000    # a tenth of it

The store has 10,000 trials of 100 epochs, in the files that RunWriter writes, byte for byte; they are made without its calls,
whose rate is measured on a sample. The questions are the ten best trials (whole rows), and means by group over the trials and
over the 1,000,000 rows of epochs. Warm is the median of five after the first; `first` includes copying the small files to the
user's cache (an empty one here), which is done once on a machine. As Tune writes them, the folders have a line of JSON for
each epoch, with the configuration in it; a sample of them is read and the time scaled to all.

Axes: T trials, E epochs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rows import Row, compared, seconds, show

from sadcl import recipes, results
from sadcl.console import console, progress_bar
from sadcl.results import compact, files, query, schema, table_file
from sadcl.results.provenance import provenance

EPOCHS = 100
BASE = recipes.coco14()
FLAT = {
    n.replace(".", "_"): json.dumps(v) if isinstance(v, (list, tuple)) else v
    for n, v in BASE.flat().items()
}
FIGURES = [
    "CP",
    "CR",
    "CF1",
    "CF1_macro",
    "OP",
    "OR",
    "OF1",
    "CP_top3",
    "CR_top3",
    "CF1_top3",
    "OF1_top3",
    "mAP_step",
    "mAP_11pt",
]
BY_ARM = "select arm, seed, count(*) as n, avg(val_mAP) as mAP, max(seconds) from trials group by all order by mAP"
BY_EPOCH = (
    "select stage, epoch, avg(val_mAP) as mAP, stddev(loss) from epochs group by all order by all"
)


def trial_row(at: int, value: float) -> dict[str, Any]:
    tau = 0.05 + value / 1000
    return {
        **FLAT,
        **provenance(),
        **{f"val_{name}": value * 0.9 for name in FIGURES},
        "loss_tau": tau,
        "params": json.dumps({"loss.tau": tau}),
        "config": BASE.json_text(),
        "config_digest": BASE.digest(),
        "key": f"coco14-tune-tuned-s0-{at:05d}abcdef0",
        "study": f"study{at % 20}",
        "phase": "search",
        "arm": f"arm{at % 7}",
        "seed": at % 5,
        "dataset": "coco14",
        "scale": "full",
        "status": "complete",
        "val_mAP": value,
        "weights": "ema",
        "epoch": EPOCHS,
        "epochs_done": EPOCHS,
        "seconds": 3600.0 + at,
        "images": 7_000_000,
        "images_per_second": 180.0,
        "memory_mb": 20_000.0,
        "workers": 1,
        "schema_version": schema.VERSION,
        "device": "NVIDIA H200",
        "gpus": 1.0,
        "gpu_hours": 1.0,
    }


def epoch_columns(rng: np.random.Generator) -> dict[str, Any]:
    columns: dict[str, Any] = {
        n: rng.normal(60, 5, EPOCHS)
        for n, (kind, _) in schema.EPOCHS.items()
        if kind == pa.float64()
    }
    return columns | {"stage": np.full(EPOCHS, 2), "epoch": np.arange(1, EPOCHS + 1)}


def make(root: Path, trials: int) -> None:
    """The files of a store, as RunWriter leaves them."""
    values_T = np.random.default_rng(0).normal(70, 5, trials)
    for table in ("trials", "epochs"):
        (root / "tables" / table).mkdir(parents=True)

    def one(at: int) -> None:
        row = trial_row(at, float(values_T[at]))
        columns = epoch_columns(np.random.default_rng(at))
        columns |= {"key": [row["key"]] * EPOCHS, "study": [row["study"]] * EPOCHS}
        arrays = [pa.array(columns[name], kind) for name, (kind, _) in schema.EPOCHS.items()]
        epochs = pa.table(arrays, names=list(schema.EPOCHS)).replace_schema_metadata(
            {"sadcl": str(schema.VERSION)}
        )
        file = files.file_name(files.file_stem(row["key"]), 0)
        for table, rows in (("trials", schema.to_table("trials", [row])), ("epochs", epochs)):
            (root / "tables" / table / file).write_bytes(table_file.encode_parquet(rows))
        old = time.time() - 60
        for table in ("trials", "epochs"):
            os.utime(root / "tables" / table / file, (old, old))

    with progress_bar("writing") as show, ThreadPoolExecutor(2) as pool:
        for done, _ in enumerate(pool.map(one, range(trials)), 1):
            show("writing the store")(done, trials)


def folders(root: Path, trials: int) -> None:
    """Trial folders as Ray Tune writes them: result.json with a line an epoch, and params.json."""
    config = {name: list(v) if isinstance(v, tuple) else v for name, v in BASE.flat().items()}
    for at in range(trials):
        folder = root / f"train_{at:05d}_{at}_tau=0.1_2026-01-01_00-00-00"
        folder.mkdir(parents=True)
        columns = epoch_columns(np.random.default_rng(at))
        with open(folder / "result.json", "w") as file:
            for e in range(EPOCHS):
                own = {name: float(values[e]) for name, values in columns.items()}
                tune = {
                    "timestamp": 1767225600 + e,
                    "checkpoint_dir_name": None,
                    "should_checkpoint": True,
                    "done": e == 99,
                    "training_iteration": e + 1,
                    "trial_id": f"{at:05d}",
                    "date": "2026-01-01_00-00-00",
                    "pid": 12345,
                    "time_this_iter_s": 36.5,
                    "time_total_s": 36.5 * e,
                    "hostname": "node",
                    "node_ip": "10.0.0.1",
                    "config": config | {"arm": f"arm{at % 7}"},
                    "time_since_restore": 36.5 * e,
                    "iterations_since_restore": e,
                }
                file.write(json.dumps(own | tune) + "\n")
        (folder / "params.json").write_text(json.dumps(config))


def ask_folders(root: Path) -> dict[str, Any]:
    """Both questions to the folders, in one pass over their files."""
    best: list[tuple[float, str]] = []
    arms: dict[str, list[float]] = defaultdict(list)
    epochs: dict[int, list[float]] = defaultdict(list)
    for folder in root.iterdir():
        lines = [json.loads(line) for line in (folder / "result.json").read_text().splitlines()]
        best.append((max(line["val_mAP"] for line in lines), folder.name))
        arms[lines[-1]["config"]["arm"]].append(lines[-1]["val_mAP"])
        for line in lines:
            epochs[line["training_iteration"]].append(line["val_mAP"])
    means = (
        {arm: sum(v) / len(v) for arm, v in arms.items()},
        {e: sum(v) / len(v) for e, v in epochs.items()},
    )
    return {"top": sorted(best, reverse=True)[:10], "means": means}


def writing(root: Path) -> tuple[float, float]:
    """Milliseconds that RunWriter takes for an epoch, and for a trial's beginning and end, on a sample."""
    began, epochs, count = time.perf_counter(), 0.0, 10
    for at in range(count):
        row = trial_row(at, 70.0)
        columns = epoch_columns(np.random.default_rng(at))
        writer = results.RunWriter(str(root), row["key"], row)
        for e in range(EPOCHS):
            own = {name: values[e].item() for name, values in columns.items()}
            epochs += seconds(lambda own=own, writer=writer: writer.epoch(own))  # type: ignore[misc]
        writer.finish("complete")
    whole = time.perf_counter() - began
    return 1e3 * epochs / count / EPOCHS, 1e3 * (whole - epochs) / count


LIMITED = """
import resource, sys
from sadcl import results
results.sql(sys.argv[1], "select 1 from epochs limit 1", memory=sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
query = "select key, avg(val_mAP) as m, max(loss), min(lr) from epochs group by key order by m"
rows = results.sql(sys.argv[1], query, memory=sys.argv[2])
print(len(rows), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def measure(trials: int, folder_count: int, scratch: Path) -> list[Row]:
    """A row for each question, before and after compaction, and for what writing costs."""
    os.environ["XDG_CACHE_HOME"] = str(scratch / "cache")
    root, rows = str(scratch / "runs"), []

    def line(row: Row, more: str = "") -> None:
        """A line as soon as it is known, and in the table at the end."""
        console.print(f"{row.name}: {row.ours:,.4g} {row.unit}{more}", highlight=False)
        rows.append(row)

    epoch_ms, trial_ms = writing(scratch / "sample")
    line(Row("RunWriter: an epoch, on disk", epoch_ms, "ms"), f", {1e3 / epoch_ms:,.0f} rows/s")
    line(Row("RunWriter: a trial's beginning and end", trial_ms, "ms"))
    make(Path(root), trials)
    folders(scratch / "ray", folder_count)
    ray = (
        statistics.median(seconds(lambda: ask_folders(scratch / "ray")) for _ in range(3))
        * trials
        / folder_count
    )
    console.print(
        f"Ray's folders (read {folder_count} of {trials:,}, scaled): {ray:.1f} s", highlight=False
    )
    questions: dict[str, Callable[[], Any]] = {
        "ten best trials": lambda: query.top(root),
        "trials by arm and seed": lambda: results.sql(root, BY_ARM),
        "epochs by epoch": lambda: results.sql(root, BY_EPOCH),
    }
    for state, most in (("as written", 1000), ("compacted", 200)):
        if state == "compacted":
            took = seconds(lambda: compact.compact(root))
            size = sum(path.stat().st_size for path in Path(root).rglob("*.parquet"))
            line(
                Row("compaction", took, "s"),
                f", {size / 1e6:.0f} MB in {len(list(Path(root).rglob('*.parquet')))} files",
            )
        for what, ask in questions.items():
            first = seconds(ask)
            warm = [1e3 * seconds(ask) for _ in range(5)]
            row = compared(f"{state}: {what}", "ms", warm, [1e3 * ray] * 5, goal=100, at_most=most)
            row = replace(row, low=None, high=None)  # the reference was measured once
            line(
                row,
                f" ({min(warm):.0f} to {max(warm):.0f}), first {first:.2f} s; {row.ratio:,.0f}x",
            )
    limit = "100MB"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, root, limit], capture_output=True, text=True, check=True
    )
    groups, grown = done.stdout.split()
    held = (
        trials
        * EPOCHS
        * sum(kind.bit_width // 8 for kind, _ in schema.EPOCHS.values() if kind != pa.string())
        / 2**20
    )
    name = f"epochs by trial, DuckDB limited to {limit}: growth of the process"
    line(
        Row(name, float(grown), "MB"),
        f" for {groups} groups; the numbers of the table are {held:.0f} MB",
    )
    return rows


def benchmark(quick: bool = False) -> list[Row]:
    """The rows at full size, made and removed again."""
    with tempfile.TemporaryDirectory(prefix="sadcl-results-") as scratch:
        return measure(*((20, 5) if quick else (10_000, 300)), Path(scratch))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument(
        "--folders", type=int, default=300, help="trial folders of Ray Tune that are read"
    )
    parser.add_argument("--scratch", default=None, help="an empty folder to work in, which stays")
    options = parser.parse_args()
    scratch = Path(options.scratch or tempfile.mkdtemp(prefix="sadcl-results-"))
    found = measure(options.trials, options.folders, scratch)
    load = f"{os.cpu_count()} cores, load {os.getloadavg()[1]:.1f}"
    show(
        found,
        title=f"{options.trials:,} trials, {options.trials * EPOCHS:,} rows of epochs; {load}",
    )
    if options.scratch is None:
        shutil.rmtree(scratch)
