"""Epochs that a search needs until it equals random search: TPE, early stopping, warm start.

python experiments/benchmarks/search_efficiency.py --out curves.png    # half an hour on two cores

The networks are small, on drawn scenes. The space is that of both contrasts and, so that there is
something to find, the learning rate of stage 2 over four decades. Every method searches the same
space from nothing (the recipe is not tried first), over the same seeds, one trial after the other,
and starts no further trial once it has trained as many epochs as random search. What counts is
epochs of stage 2 that trials have trained, including those of trials that were stopped early. The
shared stage 1 does not count, nor does the search on other scenes from which a warm start takes its
first setting: its cost is paid once for all later searches. The level of a seed is the best
held-out mAP that random search reaches with that seed in its whole budget. A method that does not
reach it counts as later than all others, not as its budget. The same ``--storage`` resumes.
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
from rows import Row, compare

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
"""The best held-out mAP so far, after each trained epoch."""


def trial_rows(study: str, placement: Placement) -> list[dict[str, Any]]:
    """Return the rows of a search's trials in the order of their start."""
    rows = record.all_rows(placement.storage)
    rows = [row for row in rows if (row["study"], row["phase"]) == (study, "search")]
    return sorted(rows, key=lambda row: row["started"])


def run_search(
    name: str, base: Config, trials: int, placement: Placement, **options: Any
) -> list[dict[str, Any]]:
    """Run a search, or what is missing of it, and return the rows of its trials.

    Args:
        name: of the search.
        base: its base configuration.
        trials: its budget, in trials that train all their epochs.
        placement: where it runs.
        options: more arguments of :class:`sadcl.search.Search`.
    """
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

    rows = trial_rows(plan.study, placement)
    history = [
        (row["key"], row["status"], store.curve(placement.storage, row["key"])) for row in rows
    ]
    folder = Path(placement.storage)
    with record.locked(placement.storage, plan.study):
        tuner.run_trials(
            plan,
            rows,
            placement,
            journal=folder / "optuna" / f"{plan.study}.journal",
            scratch=str(folder / ".ray" / name),
            max_concurrent=1,
            channel=event_channel.open_channel(search.pruner, history),
            quota=CheckpointQuota(placement.storage, None),
        )
    storage.delete(storage.join(placement.storage, ".ray", name))
    return trial_rows(plan.study, placement)


def best_so_far(rows: Sequence[Mapping[str, Any]], placement: Placement) -> Curve:
    """Return the curve of a search from the rows of its trials."""
    curve: Curve = []
    for row in rows:
        for value in store.curve(placement.storage, row["key"]).values():
            curve.append(max([value, *curve[-1:]]))
    return curve


def measure(seeds: int, trials: int, root: str) -> dict[str, list[Curve]]:
    """Run all searches, and return a curve for each method and seed.

    Args:
        seeds: of searches.
        trials: of a random search; its epochs are the budget of all methods.
        root: storage of the runs.

    Raises:
        ValueError: for no seed, or fewer than two trials.
    """
    if seeds < 1 or trials < 2:
        raise ValueError(f"seeds >= 1 and trials >= 2 must hold, but got {seeds} and {trials}")
    environment.prepare(None)
    from sadcl.ray_backend import cluster

    curves: dict[str, list[Curve]] = {name: [] for name in METHODS}
    placement = Placement(storage.absolute(root), None, scale="demo")
    with cluster.connected(None), progress_bar("searching") as progress:
        show_progress = progress("searches")
        for seed in range(seeds):
            base = BASE.override({"seed": seed})
            other_scenes = base.override({"data.scene_seed": 1, "seed": seed + 100})
            donor_rows = run_search(
                f"donor-s{seed}", other_scenes, trials, placement, pruner=HALVING
            )
            donor = best_trials(donor_rows, 1)[0]["settings"]
            for number, (name, options) in enumerate(METHODS.items()):
                start = {"start_with": (donor,)} if "warm" in name else {}
                search = f"{name.replace(' ', '').replace('+', '-')}-s{seed}"
                rows = run_search(search, base, trials, placement, **options, **start)
                curves[name].append(best_so_far(rows, placement))
                show_progress(seed * len(METHODS) + number + 1, seeds * len(METHODS))
    return curves


def epochs_until(curve: Curve, level: float) -> int | None:
    """Return the epoch after which a curve has reached a level; None if it never does."""
    return next((epoch for epoch, value in enumerate(curve, 1) if value >= level), None)


def benchmark(quick: bool = False) -> list[Row]:
    """Return a row for each method against random search, in epochs.

    They are infinitely many if the median seed does not reach its level. ``quick`` runs one seed of
    two trials.
    """
    with tempfile.TemporaryDirectory() as folder:
        curves = measure(*((1, 2) if quick else (5, 16)), folder)
    levels = [curve[-1] for curve in curves["random"]]
    epochs = {
        name: [
            epochs_until(curve, level) or math.inf
            for curve, level in zip(method_curves, levels, strict=True)
        ]
        for name, method_curves in curves.items()
    }
    return [
        compare(f"as good as random search, {name}", "epochs", values, epochs["random"])
        for name, values in epochs.items()
        if name != "random"
    ]


def print_curves(curves: dict[str, list[Curve]]) -> None:
    """Print a line for each method."""
    table = Table(
        "method",
        "reached it",
        "epochs until then (median, range)",
        "times fewer",
        "best mAP",
        box=box.SIMPLE_HEAD,
    )
    levels = [curve[-1] for curve in curves["random"]]
    random_epochs = statistics.median(
        epochs_until(c, level) or 0 for c, level in zip(curves["random"], levels, strict=True)
    )
    for name, method_curves in curves.items():
        pairs = zip(method_curves, levels, strict=True)
        epochs = [epochs_until(curve, level) for curve, level in pairs]
        reached = [epoch for epoch in epochs if epoch is not None]
        # a seed that did not reach its level is later than all others
        median = statistics.median(epoch or math.inf for epoch in epochs)
        summary = "never"
        if reached:
            last = max(reached) if len(reached) == len(epochs) else "never"
            summary = f"{median:g} ({min(reached)}..{last})"
        table.add_row(
            name,
            f"{len(reached)} of {len(epochs)} seeds",
            summary,
            f"{random_epochs / median:.1f}x" if median < math.inf else "",
            f"{statistics.mean(curve[-1] for curve in method_curves):.2f}",
        )
    console.print(table)


def plot(curves: dict[str, list[Curve]], path: str) -> None:
    """Draw the best mAP so far, less the seed's level, against the epochs trained.

    Lines are means over seeds, bands go from the lowest to the highest seed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.4), layout="constrained")
    axes = figure.add_subplot()
    levels = [curve[-1] for curve in curves["random"]]
    styles = (":", "--", "-.", "-")
    for (name, method_curves), style in zip(curves.items(), styles, strict=True):
        length = max(map(len, method_curves))
        gaps = [
            [value - level for value in (curve + curve[-1:] * (length - len(curve)))]
            for curve, level in zip(method_curves, levels, strict=True)
        ]
        epochs = range(1, length + 1)
        means = [statistics.mean(column) for column in zip(*gaps, strict=True)]
        (line,) = axes.plot(epochs, means, style, label=name, linewidth=1.8)
        low, high = ([pick(column) for column in zip(*gaps, strict=True)] for pick in (min, max))
        axes.fill_between(epochs, low, high, color=line.get_color(), alpha=0.10, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_ylim(bottom=-8)
    axes.set_xlabel("epochs of stage 2 trained by all trials")
    axes.set_ylabel(
        "best held-out mAP so far, less what random search\n"
        "reaches with this seed (percentage points)"
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
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each method (default: 5)")
    parser.add_argument(
        "--trials",
        type=int,
        default=16,
        help="trials of random search, whose epochs are the budget (default: 16)",
    )
    parser.add_argument(
        "--storage", default="runs-efficiency", help="storage root (default: runs-efficiency)"
    )
    parser.add_argument(
        "--out",
        default="search_efficiency.png",
        help="picture to write (default: search_efficiency.png)",
    )
    options = parser.parse_args()
    storage.check_new(options.out)
    curves = measure(options.seeds, options.trials, options.storage)
    print_curves(curves)
    plot(curves, options.out)
    console.print(f"The curves are in {options.out}.", highlight=False)
