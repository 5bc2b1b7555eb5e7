"""What a query of the tables costs, against the same query of Ray Tune's trial folders.

python experiments/benchmarks/results.py                  # minutes on two cores; 1 GB in --scratch
python experiments/benchmarks/results.py --trials 1000    # a tenth of it

The store has 10,000 trials of 100 epochs, in the files that RunWriter writes, byte for byte. They
are made without its calls, whose rate is measured on a sample. The queries are the ten best trials
(whole rows), and means by group over the trials and over the 1,000,000 rows of epochs. "Warm" is
the median of five after the first query. "First" includes the copy of the small files to the user's
cache (an empty one here), which is made once on a machine. As Tune writes them, the folders have a
line of JSON for each epoch, with the configuration in it. A sample of them is read, and the time
scaled to all.

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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rows import Row, compare, print_rows, seconds

from sadcl import recipes, results
from sadcl.console import console, progress_bar
from sadcl.reports.page.html import study_page
from sadcl.results import compact, files, query, schema, table_file
from sadcl.results.provenance import provenance
from sadcl.results.published_tables import publish

EPOCHS = 100
STUDIES = 10
"""The trials are dealt to so many studies."""
BASE = recipes.coco14()
FLAT = {
    n.replace(".", "_"): json.dumps(v) if isinstance(v, (list, tuple)) else v
    for n, v in BASE.flat().items()
}
METRICS = [
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
BY_ARM = (
    "select arm, seed, count(*) as n, avg(val_mAP) as mAP, max(seconds) from trials "
    "group by all order by mAP"
)
BY_EPOCH = (
    "select stage, epoch, avg(val_mAP) as mAP, stddev(loss) from epochs group by all order by all"
)


def trial_row(number: int, value: float) -> dict[str, Any]:
    """Make a row of the trials table.

    Args:
        number: of the trial; it decides key, study, arm and seed.
        value: its held-out mAP in percent.
    """
    tau = 0.05 + value / 1000
    return {
        **FLAT,
        **provenance(),
        **{f"val_{name}": value * 0.9 for name in METRICS},
        "loss_tau": tau,
        "params": json.dumps({"loss.tau": tau}),
        "config": BASE.json_text(),
        "config_digest": BASE.digest(),
        "key": f"coco14-tune-tuned-s0-{number:05d}abcdef0",
        "study": f"study{number % STUDIES}",
        "phase": "search",
        "arm": f"arm{number % 7}",
        "seed": number % 5,
        "dataset": "coco14",
        "scale": "full",
        "status": "complete",
        "val_mAP": value,
        "weights": "ema",
        "epoch": EPOCHS,
        "epochs_done": EPOCHS,
        "seconds": 3600.0 + number,
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
    """Draw the columns of a trial in the epochs table, except key and study."""
    columns: dict[str, Any] = {
        n: rng.normal(60, 5, EPOCHS)
        for n, (kind, _) in schema.EPOCHS.items()
        if kind == pa.float64()
    }
    return columns | {"stage": np.full(EPOCHS, 2), "epoch": np.arange(1, EPOCHS + 1)}


def write_store(root: Path, trials: int) -> None:
    """Write the files of a store as RunWriter leaves them."""
    values_T = np.random.default_rng(0).normal(70, 5, trials)
    for table in ("trials", "epochs"):
        (root / "tables" / files.RUNS_FOLDER / table).mkdir(parents=True)

    def write_trial(number: int) -> None:
        row = trial_row(number, float(values_T[number]))
        columns = epoch_columns(np.random.default_rng(number))
        columns |= {"key": [row["key"]] * EPOCHS, "study": [row["study"]] * EPOCHS}
        arrays = [pa.array(columns[name], kind) for name, (kind, _) in schema.EPOCHS.items()]
        epochs = pa.table(arrays, names=list(schema.EPOCHS)).replace_schema_metadata(
            {"sadcl": str(schema.VERSION)}
        )
        minute_ago = time.time() - 60
        for table, rows in (("trials", schema.to_table("trials", [row])), ("epochs", epochs)):
            path = Path(files.run_uri(str(root), table, row["key"], 0))
            path.write_bytes(table_file.encode(rows, str(path)))
            os.utime(path, (minute_ago, minute_ago))

    with progress_bar("writing") as progress, ThreadPoolExecutor(2) as pool:
        for count, _ in enumerate(pool.map(write_trial, range(trials)), 1):
            progress("writing the store")(count, trials)


def write_tune_folders(root: Path, trials: int) -> None:
    """Write trial folders as Ray Tune does: params.json, and result.json with a line an epoch."""
    config = {name: list(v) if isinstance(v, tuple) else v for name, v in BASE.flat().items()}
    for number in range(trials):
        folder = root / f"train_{number:05d}_{number}_tau=0.1_2026-01-01_00-00-00"
        folder.mkdir(parents=True)
        columns = epoch_columns(np.random.default_rng(number))
        with open(folder / "result.json", "w") as file:
            for e in range(EPOCHS):
                metrics = {name: float(values[e]) for name, values in columns.items()}
                tune = {
                    "timestamp": 1767225600 + e,
                    "checkpoint_dir_name": None,
                    "should_checkpoint": True,
                    "done": e == 99,
                    "training_iteration": e + 1,
                    "trial_id": f"{number:05d}",
                    "date": "2026-01-01_00-00-00",
                    "pid": 12345,
                    "time_this_iter_s": 36.5,
                    "time_total_s": 36.5 * e,
                    "hostname": "node",
                    "node_ip": "10.0.0.1",
                    "config": config | {"arm": f"arm{number % 7}"},
                    "time_since_restore": 36.5 * e,
                    "iterations_since_restore": e,
                }
                file.write(json.dumps(metrics | tune) + "\n")
        (folder / "params.json").write_text(json.dumps(config))


def query_tune_folders(root: Path) -> dict[str, Any]:
    """Answer both queries from Tune's folders, in one pass over their files."""
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


def write_times(root: Path) -> tuple[float, float]:
    """Measure the ms that RunWriter takes for an epoch, and for the start and end of a trial."""
    start, epochs, count = time.perf_counter(), 0.0, 10
    for number in range(count):
        row = trial_row(number, 70.0)
        columns = epoch_columns(np.random.default_rng(number))
        writer = results.RunWriter(str(root), row["key"], row)
        for e in range(EPOCHS):
            metrics = {name: values[e].item() for name, values in columns.items()}
            epochs += seconds(partial(writer.epoch, metrics))
        writer.finish("complete")
    total = time.perf_counter() - start
    return 1e3 * epochs / count / EPOCHS, 1e3 * (total - epochs) / count


LIMITED = """
import resource, sys
from sadcl import results
results.sql(sys.argv[1], "select 1 from epochs limit 1", memory=sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
query = "select key, avg(val_mAP) as m, max(loss), min(lr) from epochs group by key order by m"
rows = results.sql(sys.argv[1], query, memory=sys.argv[2])
print(len(rows), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def report(rows: list[Row], row: Row, more: str = "") -> None:
    """Print a row as soon as it is known, with ``more`` after it, and add it to ``rows``."""
    console.print(f"{row.name}: {row.ours:,.4g} {row.unit}{more}", highlight=False)
    rows.append(row)


def measure_queries(rows: list[Row], root: str, tune_seconds: float) -> None:
    """Measure each query as written and after compaction, and add its rows to ``rows``.

    Args:
        root: of the store.
        tune_seconds: that the same queries of Tune's folders take.
    """
    queries: dict[str, Callable[[], Any]] = {
        "ten best trials": lambda: query.top(root),
        "trials by arm and seed": lambda: results.sql(root, BY_ARM),
        "epochs by epoch": lambda: results.sql(root, BY_EPOCH),
    }
    slowest = 0.0
    for state, most in (("as written", 1000), ("compacted", 200)):
        if state == "compacted":
            duration = seconds(lambda: compact.compact(root))
            sizes = [path.stat().st_size for path in Path(root).glob("tables/_*/*/*.*")]
            more = f", {sum(sizes) / 1e6:.0f} MB in {len(sizes)} files"
            report(rows, Row("compaction", duration, "s"), more)
        for name, run in queries.items():
            first = seconds(run)
            warm = [1e3 * seconds(run) for _ in range(5)]
            reference = [1e3 * tune_seconds] * 5
            row = compare(f"{state}: {name}", "ms", warm, reference, goal=100, at_most=most)
            row = replace(row, low=None, high=None)  # the reference was measured once
            more = f" ({min(warm):.0f} to {max(warm):.0f}), first {first:.2f} s; {row.ratio:,.0f}x"
            report(rows, row, more)
            if state == "as written":
                slowest = max(slowest, first)
    report(rows, Row("as written: slowest first query", slowest, "s", at_most=5))
    report(rows, Row("publication of all studies", seconds(lambda: publish(root)), "s"))
    page = seconds(lambda: study_page(root, "study0"))
    trials = len(results.read(root, "trials", columns=["study"])) // STUDIES
    report(rows, Row(f"report of a study of {trials:,} trials", page, "s", at_most=5))


def measure_memory(rows: list[Row], root: str, trials: int) -> None:
    """Measure the growth of a process that groups all epochs while DuckDB's memory is limited."""
    limit = "100MB"
    command = [sys.executable, "-c", LIMITED, root, limit]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    groups, growth = process.stdout.split()
    kinds = [kind for kind, _ in schema.EPOCHS.values() if kind != pa.string()]
    table_MiB = trials * EPOCHS * sum(kind.bit_width // 8 for kind in kinds) / 2**20
    name = f"epochs by trial, DuckDB limited to {limit}: growth of the process"
    more = f" for {groups} groups; the numbers of the table are {table_MiB:.0f} MB"
    report(rows, Row(name, float(growth), "MB"), more)


def measure(trials: int, folder_count: int, scratch: Path) -> list[Row]:
    """Measure writing, each query before and after compaction, and the memory of a query.

    Args:
        trials: of the store.
        folder_count: trial folders of Tune that are read; their time is scaled to ``trials``.
        scratch: an empty folder to work in.
    """
    os.environ["XDG_CACHE_HOME"] = str(scratch / "cache")
    root, rows = str(scratch / "runs"), list[Row]()
    epoch_ms, trial_ms = write_times(scratch / "sample")
    rate = f", {1e3 / epoch_ms:,.0f} rows/s"
    report(rows, Row("RunWriter: an epoch, on disk", epoch_ms, "ms"), rate)
    report(rows, Row("RunWriter: a trial's beginning and end", trial_ms, "ms"))
    write_store(Path(root), trials)
    write_tune_folders(scratch / "ray", folder_count)
    times = [seconds(lambda: query_tune_folders(scratch / "ray")) for _ in range(3)]
    tune_seconds = statistics.median(times) * trials / folder_count
    console.print(
        f"Ray's folders (read {folder_count} of {trials:,}, scaled): {tune_seconds:.1f} s",
        highlight=False,
    )
    measure_queries(rows, root, tune_seconds)
    measure_memory(rows, root, trials)
    return rows


def benchmark(quick: bool = False) -> list[Row]:
    """Return the rows at full size (``quick``: tiny), in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="sadcl-results-") as scratch:
        return measure(*((20, 5) if quick else (10_000, 300)), Path(scratch))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=10_000, help="default: 10,000")
    parser.add_argument(
        "--folders", type=int, default=300, help="trial folders of Tune to read (default: 300)"
    )
    parser.add_argument("--scratch", default=None, help="an empty folder to work in, which is kept")
    options = parser.parse_args()
    scratch = Path(options.scratch or tempfile.mkdtemp(prefix="sadcl-results-"))
    rows = measure(options.trials, options.folders, scratch)
    load = f"{os.cpu_count()} cores, load {os.getloadavg()[1]:.1f}"
    size = f"{options.trials:,} trials, {options.trials * EPOCHS:,} rows of epochs"
    print_rows(rows, title=f"{size}; {load}")
    if options.scratch is None:
        shutil.rmtree(scratch)
