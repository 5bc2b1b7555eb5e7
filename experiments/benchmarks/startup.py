"""What commands, and the process of a trial, take before they do anything: seconds of the processor.

python experiments/benchmarks/startup.py        # two minutes on two cores

Each runs in a process of its own, in turn with the others, on a store of a few trials; the first round, which fills the page
cache and writes byte code, does not count. Times are user and system seconds of that process, as medians. A command stands
beside ``import torch``, with which one that loads the network would begin, and its limit is Python that does nothing. What
a trial's process imports stands beside nothing, and its limit is the import of the libraries that training needs.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from typing import NamedTuple

from rows import Row, compared, show

from sadcl import results

SADCL = "from sadcl.cli import main; main()"
BARE, TORCH, LIBRARIES = (
    "pass",
    "import torch",
    "import torch, torchvision.transforms.v2, timm, ray, pyarrow.parquet, pydantic",
)


class Way(NamedTuple):
    name: str
    words: tuple[str, ...]
    limit: str
    at_most: float | None = None


def ways(root: str) -> list[Way]:
    at = ("--storage", root)
    return [
        Way("import sadcl", ("import sadcl",), BARE),
        Way("sadcl --help", (SADCL, "--help"), BARE, 0.3),
        Way("sadcl results top", (SADCL, "results", "top", *at), BARE, 0.5),
        Way("sadcl results show", (SADCL, "results", "show", "k0", *at), BARE, 0.5),
        Way("sadcl results sql", (SADCL, "results", "sql", "from trials", *at), BARE, 0.5),
        Way("imports of a trial's process", ("import sadcl.ray_backend.tasks",), LIBRARIES),
    ]


def seconds(words: tuple[str, ...]) -> float:
    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = used()
    subprocess.run([sys.executable, "-c", *words], stdout=subprocess.DEVNULL, check=True)
    return used() - before


def benchmark(quick: bool = False, repeats: int = 7) -> list[Row]:
    """A row for each way, in seconds."""
    if repeats < 1:
        raise ValueError(f"repeats >= 1 must hold, but got {repeats}")
    with tempfile.TemporaryDirectory() as root:
        for at in range(5):
            row = {
                "study": "s",
                "phase": "search",
                "arm": "tuned",
                "seed": 0,
                "params": '{"loss.tau": 0.1}',
            }
            writer = results.RunWriter(root, f"k{at}", row)
            writer.epoch({"stage": 2, "epoch": 1, "val_mAP": 50.0 + at})
            writer.finish(
                "complete",
                metrics={"val_mAP": 50.0 + at},
                labels=[{"split": "val", "label": "a", "AP": 50.0}],
            )
        every = {way.name: way.words for way in ways(root)} | {
            code: (code,) for code in (BARE, TORCH, LIBRARIES)
        }
        rounds = [
            {name: seconds(words) for name, words in every.items()}
            for _ in range(1 + (1 if quick else repeats))
        ][1:]
    took = {name: [each[name] for each in rounds] for name in every}
    return [
        compared(
            way.name,
            "s",
            took[way.name],
            took[TORCH] if way.limit == BARE else (),
            limit=min(took[way.limit]),
            at_most=way.at_most,
        )
        for way in ways("")
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7, help="timed rounds (default 7)")
    parser.add_argument("--quick", action="store_true", help="one round")
    show(benchmark(**vars(parser.parse_args())))
