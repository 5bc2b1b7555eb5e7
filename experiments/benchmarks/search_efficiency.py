"""Epochs that a search needs until it is as good as random search is in the end: random, TPE, early stopping, warm start.

python experiments/benchmarks/search_efficiency.py --out efficiency.png      # about half an hour on two cores

Small networks on embedded scenes; the space is that of both contrasts and, so that there is something to find, the learning
rate of stage 2 over four decades. Every method searches the same space from nothing (the recipe is not tried first), over the
same seeds, one trial after the other, and stops starting trials once it has trained as many epochs as random search. What
counts is epochs of stage 2 that trials have trained, also those of trials that were stopped early; the shared stage 1 is
apart, and so is the search on other scenes that a warm start takes its first setting from (its cost is paid once for all that
come after it). The level of a seed is the best held-out mAP that random search reaches with that seed in its whole budget; a
method that does not reach it is counted as beyond all others, and not as its budget. Running it again with the same
``--storage`` goes on.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rows import Row, compared

from sadcl import data, recipes, storage
from sadcl.config import Config
from sadcl.console import console, progress_bar
from sadcl.ray_backend import environment
from sadcl.results import store
from sadcl.search import ASHA, Float, Plan, Search, contrast_space
from sadcl.search.ranking import best_trials
from sadcl.study import execute, record
from sadcl.study.placement import Placement

EPOCHS = 9
BASE = recipes.demo().override(
    {
        "data.image_size": 48,
        "data.scene_train": 400,
        "data.scene_test": 20,
        "data.limit_train": 400,
        "data.limit_test": 20,
        "data.holdout": 0.4,
        "stage1.epochs": 6,
        "stage2.epochs": EPOCHS,
        "bank.epsilon": 0.3,
    }
)
SPACE = {**contrast_space(BASE, epsilon=(0.1, 0.6)), "stage2.lr": Float(1e-6, 1e-2, log=True)}
HALVING = ASHA(min_epochs=1, reduction=3)
METHODS: dict[str, dict[str, Any]] = {
    "random": {"sampler": "random"},
    "TPE": {},
    "TPE + ASHA": {"pruner": HALVING},
    "TPE + ASHA + warm start": {"pruner": HALVING},
}
Curve = list[float]
"""Best held-out mAP after each epoch that was trained, from the first."""


def searched(
    name: str, base: Config, trials: int, placement: Placement, **options: Any
) -> list[dict[str, Any]]:
    """Rows of a search's trials, run as far as they are not there."""
    from sadcl.ray_backend import event_channel, tuner
    from sadcl.study.checkpoint_quota import CheckpointQuota

    search = Search(
        name=name,
        question="",
        base=base,
        demo=base,
        space=SPACE,
        n_demo_trials=20 * trials,
        max_epochs=trials * EPOCHS,
        recipe_first=False,
        confirm_seeds=(9999,),
        **options,
    )
    images = data.load(base.data)
    plan = Plan(search, "demo", base, 20 * trials, images.digest, images.digest)
    stage1 = plan.stage1(base)
    assert stage1 is not None
    execute.execute(stage1, placement)

    def rows() -> list[dict[str, Any]]:
        mine = [
            r
            for r in record.all_rows(placement.storage)
            if (r["study"], r["phase"]) == (plan.study, "search")
        ]
        return sorted(mine, key=lambda row: row["started"])

    history = [
        (row["key"], row["status"], store.curve(placement.storage, row["key"])) for row in rows()
    ]
    folder = Path(placement.storage)
    with record.locked(placement.storage, plan.study):
        tuner.run_trials(
            plan,
            rows(),
            placement,
            journal=folder / "optuna" / f"{plan.study}.journal",
            scratch=str(folder / ".ray" / name),
            max_concurrent=1,
            channel=event_channel.open_channel(search.pruner, history),
            quota=CheckpointQuota(placement.storage, None),
        )
    storage.delete(storage.join(placement.storage, ".ray", name))
    return rows()


def curve_of(rows: Sequence[Mapping[str, Any]], placement: Placement) -> Curve:
    reached: Curve = []
    for row in rows:
        for value in store.curve(placement.storage, row["key"]).values():
            reached.append(max([value, *reached[-1:]]))
    return reached


def measure(seeds: int, trials: int, root: str) -> dict[str, list[Curve]]:
    """Curves by method, one a seed."""
    if seeds < 1 or trials < 2:
        raise ValueError(f"seeds >= 1 and trials >= 2 must hold, but got {seeds} and {trials}")
    environment.prepare(None)
    from sadcl.ray_backend import cluster

    found: dict[str, list[Curve]] = {name: [] for name in METHODS}
    placement = Placement(storage.absolute(root), None, scale="demo")
    with cluster.connected(None), progress_bar("searching") as progress:
        show = progress("searches")
        for seed in range(seeds):
            base = BASE.override({"seed": seed})
            elsewhere = base.override(
                {"data.scene_seed": 1, "seed": seed + 100}
            )  # other scenes, and other draws
            donor = best_trials(
                searched(f"donor-s{seed}", elsewhere, trials, placement, pruner=HALVING), 1
            )[0]["settings"]
            for number, (name, options) in enumerate(METHODS.items()):
                start = {"start_with": (donor,)} if "warm" in name else {}
                slug = name.replace(" ", "").replace("+", "-")
                found[name].append(
                    curve_of(
                        searched(f"{slug}-s{seed}", base, trials, placement, **options, **start),
                        placement,
                    )
                )
                show(seed * len(METHODS) + number + 1, seeds * len(METHODS))
    return found


def first(curve: Curve, level: float) -> int | None:
    """The epoch after which a curve is at the level; None where it never is."""
    return next((epoch for epoch, value in enumerate(curve, 1) if value >= level), None)


def benchmark(quick: bool = False) -> list[Row]:
    """A row for each method beside random search, in epochs; infinitely many where the median seed is not as good."""
    with tempfile.TemporaryDirectory() as folder:
        found = measure(*((1, 2) if quick else (5, 16)), folder)
    levels = [curve[-1] for curve in found["random"]]
    epochs = {
        name: [first(curve, level) or math.inf for curve, level in zip(curves, levels, strict=True)]
        for name, curves in found.items()
    }
    return [
        compared(f"as good as random search, {n}", "epochs", e, epochs["random"])
        for n, e in epochs.items()
        if n != "random"
    ]


def show(found: dict[str, list[Curve]]) -> None:
    table = Table(
        "method",
        "reached it",
        "epochs until then (median, range)",
        "times fewer",
        "best mAP",
        box=box.SIMPLE_HEAD,
    )
    levels = [curve[-1] for curve in found["random"]]
    usual = statistics.median(
        first(c, level) or 0 for c, level in zip(found["random"], levels, strict=True)
    )
    for name, curves in found.items():
        epochs = [first(curve, level) for curve, level in zip(curves, levels, strict=True)]
        there = [epoch for epoch in epochs if epoch is not None]
        middle = statistics.median(
            epoch or math.inf for epoch in epochs
        )  # a seed that did not reach it is beyond all
        table.add_row(
            name,
            f"{len(there)} of {len(epochs)} seeds",
            f"{middle:g} ({min(there)}..{max(there) if len(there) == len(epochs) else 'never'})"
            if there
            else "never",
            f"{usual / middle:.1f}x" if middle < math.inf else "",
            f"{statistics.mean(curve[-1] for curve in curves):.2f}",
        )
    console.print(table)


def plot(found: dict[str, list[Curve]], path: str) -> None:
    """Best so far against epochs trained: mean over seeds, less the seed's level; the band is its range."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.4), layout="constrained")
    axes = figure.add_subplot()
    levels = [curve[-1] for curve in found["random"]]
    for (name, curves), style in zip(found.items(), (":", "--", "-.", "-"), strict=True):
        length = max(map(len, curves))
        gaps = [
            [value - level for value in (curve + curve[-1:] * (length - len(curve)))]
            for curve, level in zip(curves, levels, strict=True)
        ]
        at = range(1, length + 1)
        middle = [statistics.mean(column) for column in zip(*gaps, strict=True)]
        (line,) = axes.plot(at, middle, style, label=name, linewidth=1.8)
        low, high = ([pick(column) for column in zip(*gaps, strict=True)] for pick in (min, max))
        axes.fill_between(at, low, high, color=line.get_color(), alpha=0.10, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_ylim(bottom=-8)
    axes.set_xlabel("epochs of stage 2 trained by all trials")
    axes.set_ylabel(
        "best held-out mAP so far, less what random search\nreaches with this seed (percentage points)"
    )
    axes.legend(
        title=f"mean of {len(levels)} seeds; bands: lowest to highest",
        loc="lower right",
        frameon=False,
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=160)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "The image decoding and encoding", DeprecationWarning)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="of searches (default 5)")
    parser.add_argument(
        "--trials",
        type=int,
        default=16,
        help="of a random search; its epochs are the budget (default 16)",
    )
    parser.add_argument(
        "--storage", default="runs-efficiency", help="where the runs lie (default: runs-efficiency)"
    )
    parser.add_argument(
        "--out",
        default="search_efficiency.png",
        help="picture to write (default: search_efficiency.png)",
    )
    options = parser.parse_args()
    storage.check_new(options.out)
    curves = measure(options.seeds, options.trials, options.storage)
    show(curves)
    plot(curves, options.out)
    console.print(f"the curves are drawn in {options.out}", highlight=False)
