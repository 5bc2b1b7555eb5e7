"""Every benchmark, one after the other: a table of what is reached, and rows in the store.

python experiments/benchmarks/run.py                                  # an hour and a half on two cores
python experiments/benchmarks/run.py --only losses,metrics            # some of them
python experiments/benchmarks/run.py --quick                          # small sizes: whether they run, no figures to quote
sadcl results sql "from benchmarks where not reached"                 # afterwards, and from anywhere

Each runs in a process of its own, so that memory and threads of one do not disturb the next, and its rows are in the store
once it ends. One that fails is said, and the others go on; the exit code is 1 then.
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

from rows import Row, show

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
    "step",
    "memory",
    "results",
    "trial_overhead",
    "search_efficiency",
)
"""The quick ones first."""


def chosen(only: str | None) -> list[str]:
    """Names of the benchmarks to run, in the order of ``NAMES``.

    Raises:
        UserError: for a name that is none of them.
    """
    wanted = NAMES if only is None else [name.strip() for name in only.split(",")]
    for name in wanted:
        if name not in NAMES:
            raise UserError(f"There is no benchmark {name!r}{did_you_mean(name, NAMES)}")
    return [name for name in NAMES if name in wanted]


def measured(name: str, options: dict[str, Any]) -> tuple[list[Row], dict[str, Any]]:
    """Rows of a benchmark, and what they were measured on."""
    module = importlib.import_module(name)
    rows = module.benchmark(**options)
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return rows, {
        "device": device,
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)),
    }


def rows_of(name: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the benchmarks table, measured in a fresh process."""
    began, load = datetime.now(UTC), os.getloadavg()[0]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        rows, machine = fresh.submit(measured, name, options).result()
    if options["quick"]:  # goals are for the real sizes
        rows = [replace(row, goal=None, at_most=None) for row in rows]
    show(rows, title=name)
    made = {column: value for column, value in provenance().items() if column in schema.BENCHMARKS}
    given = f" --data-root {options['data_root']}" if options.get("data_root") else ""
    command = f"python experiments/benchmarks/{name}.py{given}"
    about = {
        "benchmark": name,
        "measured": began,
        "quick": options["quick"],
        "load": load,
        "command": command,
        **machine,
    }
    found = []
    for row in rows:
        figures = asdict(row)
        figures |= {
            "what": figures.pop("name"),
            "bound": figures.pop("limit"),
            "reached": row.reached,
        }
        found.append({**made, **about, **figures})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="NAME,...", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that they run")
    parser.add_argument(
        "--storage", default="runs", help="where the rows are written (default: runs)"
    )
    parser.add_argument("--data-root", help="a copy of COCO, for input; default: drawn scenes")
    options = parser.parse_args()
    names = chosen(options.only)
    storage.check_new(storage.join(files.table_folder(options.storage, "benchmarks"), "x.parquet"))
    failed = []
    for at, name in enumerate(names, 1):
        what, began = f"{at} of {len(names)}: {name}", time.monotonic()
        console.print(f"{what} ...", highlight=False)
        try:
            own = {"data_root": options.data_root} if name == "input" else {}
            benchmarks.write_benchmarks(
                options.storage, rows_of(name, {"quick": options.quick, **own})
            )
        except Exception as error:
            traceback.print_exception(error)
            console.print(
                f"{what} FAILED: {type(error).__name__}: {error}", highlight=False, markup=False
            )
            failed.append(name)
        else:
            console.print(f"{what} took {clock_text(time.monotonic() - began)}", highlight=False)
    if failed:
        console.print(f"{len(failed)} of {len(names)} failed: {', '.join(failed)}", highlight=False)
        sys.exit(1)


if __name__ == "__main__":
    with guarded():
        main()
