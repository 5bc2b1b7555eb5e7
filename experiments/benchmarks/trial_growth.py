"""Whether a trial costs more the more trials a search has had: tiny trials, settings from TPE.

python experiments/benchmarks/trial_growth.py                  # half an hour or more on two cores
python experiments/benchmarks/trial_growth.py --trials 200

A search of stage 2 on a few drawn scenes, one trial after the other, is run as by a user: rows and
checkpoints are written, Optuna is asked and told. The cost of a trial is the time from the end of
the one before to its own end, less the seconds of its training. The row is the mean cost in the
last quarter of the trials divided by that in the first; the first ten trials, which start processes
and are drawn at random, are left out.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import warnings
from collections.abc import Sequence

from rows import Row, print_rows
from trial_overhead import BASE, platform_overheads

from sadcl.console import console
from sadcl.ray_backend import environment
from sadcl.study.placement import Placement

TINY = BASE.override(
    {
        "data.scene_train": 24,
        "data.scene_test": 8,
        "data.limit_train": 24,
        "data.limit_test": 8,
        "stage2.epochs": 1,
    }
)
STARTING = 10
"""Trials that are left out at the beginning."""
AT_MOST = 1.25


def quarters(seconds: Sequence[float]) -> tuple[float, float]:
    """Return the mean cost of a trial in the first and in the last quarter, in seconds."""
    size = max(len(seconds) // 4, 1)
    return statistics.fmean(seconds[:size]), statistics.fmean(seconds[-size:])


def measure(trials: int) -> list[float]:
    """Return the cost in seconds of each trial of one search, without the first ten.

    Raises:
        ValueError: for fewer than 14 trials.
    """
    if trials < STARTING + 4:
        raise ValueError(f"trials >= {STARTING + 4} must hold, but got {trials}")
    environment.prepare(None)
    from sadcl.ray_backend import cluster
    from sadcl.results import published_tables

    with tempfile.TemporaryDirectory() as folder, cluster.connected(None):
        placement = Placement(f"{folder}/runs", None, scale="demo")
        with published_tables.kept_up_to_date(placement.storage, "growth"):
            costs = platform_overheads("growth", trials, placement, folder, base=TINY)
    return costs[STARTING:]


def benchmark(quick: bool = False) -> list[Row]:
    """Return the row; ``quick`` runs 18 trials instead of 2,000."""
    first, last = quarters(measure(18 if quick else 2000))
    name = "cost of a trial of a search with TPE, last quarter of the trials against the first"
    console.print(f"first quarter {first:.3f} s, last quarter {last:.3f} s", highlight=False)
    return [Row(name, last / first, "x", at_most=AT_MOST)]


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "The image decoding and encoding", DeprecationWarning)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=2000, help="default: 2,000")
    first, last = quarters(measure(parser.parse_args().trials))
    text = f"first quarter {first:.3f} s, last quarter {last:.3f} s a trial"
    print_rows([Row(text, last / first, "x", at_most=AT_MOST)])
