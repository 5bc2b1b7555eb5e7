"""Processor seconds of commands and of a trial's process before they do anything.

python experiments/benchmarks/startup.py    # two minutes on two cores

Each runs in a process of its own, in turn with the others, on a store of a few trials. The first
round, which fills the page cache and writes byte code, does not count. Times are user and system
seconds of that process, as medians. The reference of a command is ``import torch``, with which a
command that loads the network would start, and its limit is Python that does nothing. The imports
of a trial's process have no reference; their limit is the import of the libraries that training
needs.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from typing import NamedTuple

from rows import Row, compare, print_rows

from sadcl import results

SADCL = "from sadcl.cli.app import main; main()"
BARE, TORCH = "pass", "import torch"
LIBRARIES = "import torch, torchvision.transforms.v2, timm, ray, pyarrow.parquet, pydantic"


class Way(NamedTuple):
    """Code to time.

    Attributes:
        name: for the table.
        words: the code, and the arguments of its process.
        limit: the code whose time is the limit.
        at_most: seconds that it must not exceed.
    """

    name: str
    words: tuple[str, ...]
    limit: str
    at_most: float | None = None


def make_ways(root: str) -> list[Way]:
    """Return what is timed, on the store below ``root``."""
    storage = ("--storage", root)
    return [
        Way("import sadcl", ("import sadcl",), BARE),
        Way("sadcl --help", (SADCL, "--help"), BARE, 0.3),
        Way("sadcl results top", (SADCL, "results", "top", *storage), BARE, 0.5),
        Way("sadcl results show", (SADCL, "results", "show", "k0", *storage), BARE, 0.5),
        Way("sadcl results sql", (SADCL, "results", "sql", "from trials", *storage), BARE, 0.5),
        Way("imports of a trial's process", ("import sadcl.ray_backend.tasks",), LIBRARIES),
    ]


def process_seconds(words: tuple[str, ...]) -> float:
    """Run code in a process of its own, and return its processor seconds."""

    def children_seconds() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = children_seconds()
    subprocess.run([sys.executable, "-c", *words], stdout=subprocess.DEVNULL, check=True)
    return children_seconds() - before


def write_store(root: str) -> None:
    """Write a store of five trials."""
    for number in range(5):
        row = {
            "study": "s",
            "phase": "search",
            "arm": "tuned",
            "seed": 0,
            "params": '{"loss.tau": 0.1}',
        }
        writer = results.RunWriter(root, f"k{number}", row)
        writer.epoch({"stage": 2, "epoch": 1, "val_mAP": 50.0 + number})
        writer.finish(
            "complete",
            metrics={"val_mAP": 50.0 + number},
            labels=[{"split": "val", "label": "a", "AP": 50.0}],
        )


def benchmark(quick: bool = False, repeats: int = 7) -> list[Row]:
    """Return a row for each way, in seconds.

    Args:
        quick: measure one round only.
        repeats: timed rounds.

    Raises:
        ValueError: for fewer than one round.
    """
    if repeats < 1:
        raise ValueError(f"repeats >= 1 must hold, but got {repeats}")
    with tempfile.TemporaryDirectory() as root:
        write_store(root)
        ways = make_ways(root)
        codes = {way.name: way.words for way in ways}
        codes |= {code: (code,) for code in (BARE, TORCH, LIBRARIES)}
        rounds = [
            {name: process_seconds(words) for name, words in codes.items()}
            for _ in range(1 + (1 if quick else repeats))
        ][1:]
    times = {name: [each[name] for each in rounds] for name in codes}
    return [
        compare(
            way.name,
            "s",
            times[way.name],
            times[TORCH] if way.limit == BARE else (),
            limit=min(times[way.limit]),
            at_most=way.at_most,
        )
        for way in ways
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7, help="timed rounds (default: 7)")
    parser.add_argument("--quick", action="store_true", help="measure one round only")
    print_rows(benchmark(**vars(parser.parse_args())))
