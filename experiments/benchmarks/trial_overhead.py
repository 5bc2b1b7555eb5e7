"""What the platform adds to a trial on one worker, beside the nested trial that Ray's documentation recommends.

python experiments/benchmarks/trial_overhead.py        # nine minutes on two cores

Both train the same: stage 2 of a small network on embedded scenes, from the same stage 1, one trial after the other on one
private cluster. Ours is a search as a user runs it: trials in Tune's own process, rows and checkpoints written, each epoch
told to the board, which is asked whether to stop. The stock one is a Tune function that builds a TorchTrainer with one worker
and ``TuneReportCallback``; it writes the same checkpoints, and no rows.

Overhead is what a trial takes from the end of the one before to its own end, less the seconds of its training loop. The first
of a block, which starts processes, is shown apart. Blocks of both alternate, so that what else the machine does meets both; a
ratio is of two trials at the same place of one round.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rows import Row, compared

from sadcl import data, recipes
from sadcl.console import console
from sadcl.ray_backend import environment
from sadcl.results import store
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


def ours(name: str, trials: int, placement: Placement, folder: str) -> list[float]:
    """Overhead of each trial of a search."""
    from sadcl.ray_backend import event_channel, tuner
    from sadcl.study.checkpoint_quota import CheckpointQuota

    stopping = ASHA(
        min_epochs=BASE.stage2.epochs
    )  # asked after each epoch, and stops nobody before the last
    search = Search(
        name=name,
        question="",
        base=BASE,
        demo=BASE,
        space=SPACE,
        n_demo_trials=trials,
        pruner=stopping,
    )
    images = data.load(BASE.data)
    plan = Plan(search, "demo", BASE, trials, images.digest, images.digest)
    stage1 = plan.stage1(BASE)
    assert stage1 is not None
    execute.execute(stage1, placement)
    options: dict[str, Any] = {
        "journal": Path(folder) / f"{name}.journal",
        "scratch": f"{folder}/ray",
        "max_concurrent": 1,
    }
    began = time.time()
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
    return between(
        began,
        [(row["ended"].timestamp(), row["seconds"]) for row in rows if row["phase"] == "search"],
    )


def stock(name: str, trials: int, placement: Placement, folder: str) -> list[float]:
    """Overhead of each nested trial."""
    from ray import tune
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    alone = BASE.override({"stage2.epochs": 0, "seed": BASE.seed})
    images = data.load(BASE.data)
    search = Search(name=name, question="", base=BASE, demo=BASE, space=SPACE)
    stage1 = Plan(search, "demo", BASE, trials, images.digest, images.digest).stage1(alone)
    assert stage1 is not None
    start = execute.execute(stage1, placement)["checkpoint"]

    def work(settings: dict[str, Any]) -> None:
        import ray.train
        import torch

        from sadcl.training import Callbacks, fit

        torch.set_num_threads(placement.threads)
        config = BASE.override({"loss.tau": settings["tau"]})

        def report(epoch: Any) -> None:
            ray.train.report({**epoch.metrics, "ended": time.time(), "trained": 0.0})

        outcome = fit(
            config,
            data.load(config.data),
            settings["folder"],
            stage1=start,
            callbacks=Callbacks(report=report),
            device="cpu",
        )
        ray.train.report({"ended": time.time(), "trained": outcome.seconds})

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

    began = time.time()
    results = tune.Tuner(
        tune.with_resources(driver, {"CPU": 0.1}),
        param_space={"tau": tune.uniform(0.1, 0.3)},
        tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=1),
        run_config=tune.RunConfig(name=name, storage_path=f"{folder}/stock", verbose=0),
    ).fit()
    grid = [results[i] for i in range(len(results))]
    assert not results.errors
    return between(
        began, [(r.metrics["ended"], r.metrics["trained"]) for r in grid if r.metrics is not None]
    )


def between(began: float, trials: list[tuple[float, float]]) -> list[float]:
    """Seconds of each trial that were no training, from when each ended and how long it trained."""
    found = []
    for ended, trained in sorted(trials):
        found.append(ended - began - trained)
        began = ended
    return found


def measure(rounds: int = 3, trials: int = 4) -> dict[str, list[list[float]]]:
    """Overhead of each trial of each block, by kind."""
    if rounds < 1 or trials < 2:
        raise ValueError(f"rounds >= 1 and trials >= 2 must hold, but got {rounds} and {trials}")
    environment.prepare(None)
    from sadcl.ray_backend import cluster

    found: dict[str, list[list[float]]] = {"ours": [], "stock": []}
    with tempfile.TemporaryDirectory() as folder, cluster.connected(None):
        placement = Placement(f"{folder}/runs", None, scale="demo")
        for turn in range(rounds):
            for kind, run in (("ours", ours), ("stock", stock)):
                found[kind].append(run(f"{kind}{turn}", trials, placement, folder))
                console.print(f"round {turn + 1} of {rounds}: {kind} done", highlight=False)
    return found


PARTS: tuple[tuple[str, slice, float | None], ...] = (
    ("first of a search", slice(1), None),
    ("each further one", slice(1, None), GOAL),
)


def of_part(found: dict[str, list[list[float]]], part: slice) -> list[list[float]]:
    """Overheads of ours and of the stock trial, in the same order."""
    return [[each for block in found[kind] for each in block[part]] for kind in ("ours", "stock")]


def benchmark(quick: bool = False) -> list[Row]:
    """A row for the first trial of a search and one for those after it, in seconds."""
    found = measure(1, 2) if quick else measure()
    return [
        compared(f"overhead of a trial, {n}", "s", *of_part(found, part), goal=goal)
        for n, part, goal in PARTS
    ]


def show(found: dict[str, list[list[float]]]) -> None:
    table = Table(
        "overhead of a trial",
        "ours",
        "stock",
        "ratio (median, quartiles)",
        "goal",
        box=box.SIMPLE_HEAD,
    )
    for name, part, goal in PARTS:
        mine, other = of_part(found, part)
        ratios = [b / a for a, b in zip(mine, other, strict=True)]
        table.add_row(
            name,
            quartiles(mine, "{:.2f}", " s"),
            quartiles(other, "{:.1f}", " s"),
            quartiles(ratios, "{:.1f}", "x"),
            f"{goal}x" if goal else "",
        )
    console.print(table)


def quartiles(values: list[float], form: str, unit: str) -> str:
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 4], ordered[-1 - len(ordered) // 4]
    return (
        f"{form.format(statistics.median(ordered))}{unit} ({form.format(low)}..{form.format(high)})"
    )


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "The image decoding and encoding", DeprecationWarning)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="a block of each kind (default 3)")
    parser.add_argument("--trials", type=int, default=4, help="of a block (default 4)")
    show(measure(**vars(parser.parse_args())))
