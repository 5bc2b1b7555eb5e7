"""What the platform adds to a trial on one worker, against the nested trial of Ray's documentation.

python experiments/benchmarks/trial_overhead.py    # nine minutes on two cores

Both train the same: stage 2 of a small network on drawn scenes, from the same stage 1, one trial
after the other on one private cluster. Ours is a search as a user runs it: trials in Tune's own
process, rows and checkpoints written, and each epoch sent through the event channel, which answers
whether to stop. The stock trial is a Tune function that builds a TorchTrainer with one worker and
``TuneReportCallback``; it writes the same checkpoints, and no rows.

The overhead of a trial is the time from the end of the previous trial to its own end, less the
seconds of its training loop. The first trial of a block, which starts processes, has a row of its
own. Blocks of both alternate, so that other load of the machine affects both. A ratio is of two
trials at the same position of one round.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rows import Row, compare

from sadcl import data, recipes
from sadcl.config import Config
from sadcl.console import console
from sadcl.ray_backend import environment
from sadcl.results import checkpoints, store
from sadcl.search import ASHA, Float, Plan, Search
from sadcl.study import execute, record
from sadcl.study.placement import Placement

BASE = recipes.demo().override(
    {
        "data.scene_train": 240,
        "data.scene_test": 60,
        "data.limit_train": 240,
        "data.limit_test": 60,
        "data.holdout": 0.25,
        "stage1.epochs": 1,
        "stage2.epochs": 3,
        "bank.epsilon": 0.05,
    }
)
SPACE = {"loss.tau": Float(0.1, 0.3)}
GOAL = 20


def platform_overheads(
    name: str, trials: int, placement: Placement, folder: str, base: Config = BASE
) -> list[float]:
    """Run a search, and return the overhead of each trial."""
    from sadcl.ray_backend import event_channel, tuner
    from sadcl.study.checkpoint_quota import CheckpointQuota

    stopping = ASHA(
        min_epochs=base.stage2.epochs
    )  # is asked after each epoch, and stops no trial before the last
    search = Search(
        name=name,
        question="",
        base=base,
        demo=base,
        space=SPACE,
        n_demo_trials=trials,
        pruner=stopping,
    )
    images = data.load(base.data)
    plan = Plan(search, "demo", base, trials, images.digest, images.digest)
    stage1 = plan.stage1(base)
    assert stage1 is not None
    execute.execute(stage1, placement)
    options: dict[str, Any] = {
        "journal": Path(folder) / f"{name}.journal",
        "scratch": f"{folder}/ray",
        "max_concurrent": 1,
    }
    start = time.time()
    with record.locked(placement.storage, plan.study):
        tuner.run_trials(
            plan,
            [],
            placement,
            **options,
            channel=event_channel.open_channel(stopping),
            quota=CheckpointQuota(placement.storage, None),
        )
    rows = [
        row
        for row in store.read(placement.storage, "trials").to_pylist()
        if row["study"] == plan.study
    ]
    assert [row["status"] for row in rows if row["phase"] == "search"] == ["complete"] * trials
    return overheads(
        start,
        [(row["ended"].timestamp(), row["seconds"]) for row in rows if row["phase"] == "search"],
    )


def stage1_checkpoint(name: str, trials: int, placement: Placement) -> str:
    """Train the stage 1 from which the stock trials start, and return its checkpoint."""
    alone = BASE.override({"stage2.epochs": 0, "seed": BASE.seed})
    images = data.load(BASE.data)
    search = Search(name=name, question="", base=BASE, demo=BASE, space=SPACE)
    stage1 = Plan(search, "demo", BASE, trials, images.digest, images.digest).stage1(alone)
    assert stage1 is not None
    uri = checkpoints.checkpoint_uri(placement.storage, execute.execute(stage1, placement))
    assert uri is not None
    return uri


def make_worker(stage1: str, threads: int) -> Callable[[dict[str, Any]], None]:
    """Return what a worker of a stock trial runs.

    It is a nested function, so that Ray pickles it by value: workers cannot import this file.

    Args:
        stage1: the checkpoint to start from.
        threads: of torch.
    """

    def work(settings: dict[str, Any]) -> None:
        import ray.train
        import torch

        from sadcl.training import Callbacks, fit

        torch.set_num_threads(threads)
        config = BASE.override({"loss.tau": settings["tau"]})

        def report(epoch: Any) -> None:
            ray.train.report({**epoch.metrics, "ended": time.time(), "trained": 0.0})

        outcome = fit(
            config,
            data.load(config.data),
            settings["folder"],
            stage1=stage1,
            callbacks=Callbacks(report=report),
            device="cpu",
        )
        ray.train.report({"ended": time.time(), "trained": outcome.seconds})

    return work


def stock_overheads(name: str, trials: int, placement: Placement, folder: str) -> list[float]:
    """Run nested trials as Ray documents them, and return the overhead of each."""
    from ray import tune
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    work = make_worker(
        stage1_checkpoint(name, trials, placement), placement.threads(BASE.stores_features)
    )

    def driver(settings: dict[str, Any]) -> None:
        trial = tune.get_context().get_trial_id()
        callbacks: Any = [TuneReportCallback()]
        TorchTrainer(
            work,
            train_loop_config={**settings, "folder": f"{folder}/checkpoints/{trial}"},
            scaling_config=ScalingConfig(num_workers=1),
            run_config=RunConfig(
                name=f"train-{trial}", storage_path=f"{folder}/stock", callbacks=callbacks
            ),
        ).fit()

    start = time.time()
    results = tune.Tuner(
        tune.with_resources(driver, {"CPU": 0.1}),
        param_space={"tau": tune.uniform(0.1, 0.3)},
        tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=1),
        run_config=tune.RunConfig(name=name, storage_path=f"{folder}/stock", verbose=0),
    ).fit()
    grid = [results[i] for i in range(len(results))]
    assert not results.errors
    return overheads(
        start, [(r.metrics["ended"], r.metrics["trained"]) for r in grid if r.metrics is not None]
    )


def overheads(start: float, trials: list[tuple[float, float]]) -> list[float]:
    """Return the seconds of each trial that were not training.

    Args:
        start: when the first trial started.
        trials: when each trial ended, and the seconds that it trained.
    """
    seconds = []
    for end, training in sorted(trials):
        seconds.append(end - start - training)
        start = end
    return seconds


def measure(rounds: int = 3, trials: int = 4) -> dict[str, list[list[float]]]:
    """Return the overhead of each trial of each block, by kind.

    Args:
        rounds: blocks of each kind.
        trials: of a block.

    Raises:
        ValueError: for no round, or fewer than two trials.
    """
    if rounds < 1 or trials < 2:
        raise ValueError(f"rounds >= 1 and trials >= 2 must hold, but got {rounds} and {trials}")
    environment.prepare(None)
    from sadcl.ray_backend import cluster

    blocks: dict[str, list[list[float]]] = {"ours": [], "stock": []}
    with tempfile.TemporaryDirectory() as folder, cluster.connected(None):
        placement = Placement(f"{folder}/runs", None, scale="demo")
        for number in range(rounds):
            for kind, run in (("ours", platform_overheads), ("stock", stock_overheads)):
                blocks[kind].append(run(f"{kind}{number}", trials, placement, folder))
                console.print(f"round {number + 1} of {rounds}: {kind} done", highlight=False)
    return blocks


PARTS: tuple[tuple[str, slice, float | None], ...] = (
    ("first of a search", slice(1), None),
    ("each further one", slice(1, None), GOAL),
)
"""Name, trials of a block, and goal of each row."""


def select(blocks: dict[str, list[list[float]]], part: slice) -> list[list[float]]:
    """Return the overheads of our trials and of the stock ones, in the same order."""
    return [[each for block in blocks[kind] for each in block[part]] for kind in ("ours", "stock")]


def benchmark(quick: bool = False) -> list[Row]:
    """Return a row for the first trial of a search and one for its other trials, in seconds.

    ``quick`` measures one round of two trials.
    """
    blocks = measure(1, 2) if quick else measure()
    return [
        compare(f"overhead of a trial, {name}", "s", *select(blocks, part), goal=goal)
        for name, part, goal in PARTS
    ]


def print_blocks(blocks: dict[str, list[list[float]]]) -> None:
    """Print medians and quartiles."""
    table = Table(
        "overhead of a trial",
        "ours",
        "stock",
        "ratio (median, quartiles)",
        "goal",
        box=box.SIMPLE_HEAD,
    )
    for name, part, goal in PARTS:
        ours, stock = select(blocks, part)
        ratios = [b / a for a, b in zip(ours, stock, strict=True)]
        table.add_row(
            name,
            quartiles(ours, "{:.2f}", " s"),
            quartiles(stock, "{:.1f}", " s"),
            quartiles(ratios, "{:.1f}", "x"),
            f"{goal}x" if goal else "",
        )
    console.print(table)


def quartiles(values: list[float], form: str, unit: str) -> str:
    """Format the median and the quartiles of values.

    Args:
        values: at least one.
        form: format of a number.
        unit: follows the median.
    """
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 4], ordered[-1 - len(ordered) // 4]
    median = form.format(statistics.median(ordered))
    return f"{median}{unit} ({form.format(low)}..{form.format(high)})"


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "The image decoding and encoding", DeprecationWarning)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="blocks of each kind (default: 3)")
    parser.add_argument("--trials", type=int, default=4, help="trials of a block (default: 4)")
    print_blocks(measure(**vars(parser.parse_args())))
