"""Run every benchmark in turn: print a table of goals and results, and write rows to the store.

python experiments/benchmarks/run.py                          # two hours on two cores
python experiments/benchmarks/run.py --only losses,metrics    # some of them
python experiments/benchmarks/run.py --quick                  # small sizes: no figures to quote
sadcl results sql "from benchmarks where not reached"         # afterwards, from anywhere

Each benchmark runs in a process of its own, so that memory and threads of one do not disturb the
next, and its rows are in the store when it ends. If one fails, that is reported and the others
still run; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from rows import Row, print_rows

from sadcl import storage
from sadcl.console import clock_text, console, guarded
from sadcl.errors import UserError, did_you_mean
from sadcl.results import benchmarks, files, schema
from sadcl.results.provenance import provenance

NAMES = (
    "metrics",
    "startup",
    "losses",
    "input",
    "synchronisation",
    "scaling",
    "saving",
    "step",
    "features",
    "memory",
    "results",
    "trial_overhead",
    "trial_growth",
    "search_efficiency",
)
"""The benchmarks in the order in which they run, quick ones first."""


def select_names(only: str | None) -> list[str]:
    """Return the names of the benchmarks to run, in the order of :data:`NAMES`.

    Args:
        only: names with commas between them; None selects all.

    Raises:
        UserError: for an unknown name.
    """
    names = NAMES if only is None else [name.strip() for name in only.split(",")]
    for name in names:
        if name not in NAMES:
            raise UserError(f"There is no benchmark {name!r}{did_you_mean(name, NAMES)}")
    return [name for name in NAMES if name in names]


def measure(name: str, options: dict[str, Any]) -> tuple[list[Row], dict[str, Any]]:
    """Run a benchmark in this process, and return its rows and the machine's columns."""
    module = importlib.import_module(name)
    rows = module.benchmark(**options)
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    cores = len(os.sched_getaffinity(0))
    return rows, {"device": device, "threads": torch.get_num_threads(), "cores": cores}


def table_rows(name: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a benchmark in a fresh process, print it, and return rows of the benchmarks table."""
    measured, load = datetime.now(UTC), os.getloadavg()[0]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        rows, machine = process.submit(measure, name, options).result()
    if options["quick"]:  # goals are for the real sizes
        rows = [replace(row, goal=None, at_most=None) for row in rows]
    print_rows(rows, title=name)
    versions = {key: text for key, text in provenance().items() if key in schema.BENCHMARKS}
    flag = f" --data-root {options['data_root']}" if options.get("data_root") else ""
    shared = {
        **versions,
        "benchmark": name,
        "measured": measured,
        "quick": options["quick"],
        "load": load,
        "command": f"python experiments/benchmarks/{name}.py{flag}",
        **machine,
    }
    table = []
    for row in rows:
        figures = asdict(row)
        figures["what"], figures["bound"] = figures.pop("name"), figures.pop("limit")
        table.append({**shared, **figures, "reached": row.reached})
    return table


def main() -> None:
    """Run the benchmarks that the command line selects."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="NAME,...", help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="use small sizes, to see that all run")
    parser.add_argument("--storage", default="runs", help="storage root for rows (default: runs)")
    parser.add_argument("--data-root", help="a copy of COCO for input (default: drawn scenes)")
    options = parser.parse_args()
    names = select_names(options.only)
    storage.check_new(storage.join(files.table_folder(options.storage, "benchmarks"), "x.parquet"))
    failures = []
    for number, name in enumerate(names, 1):
        title, start = f"{number} of {len(names)}: {name}", time.monotonic()
        console.print(f"{title} ...", highlight=False)
        try:
            more = {"data_root": options.data_root} if name == "input" else {}
            rows = table_rows(name, {"quick": options.quick, **more})
            benchmarks.write_benchmarks(options.storage, rows)
        except Exception as error:
            traceback.print_exception(error)
            cause = f"{type(error).__name__}: {error}"
            console.print(f"{title} FAILED: {cause}", highlight=False, markup=False)
            failures.append(name)
        else:
            console.print(f"{title} took {clock_text(time.monotonic() - start)}", highlight=False)
    if failures:
        summary = f"{len(failures)} of {len(names)} failed: {', '.join(failures)}"
        console.print(summary, highlight=False)
        sys.exit(1)


if __name__ == "__main__":
    with guarded():
        main()
