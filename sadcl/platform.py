"""Puts the parts together: a study from its plan to its summary, and one training run."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from pyarrow import fs
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from sadcl import build, data, runner, storage, study
from sadcl.config import Config
from sadcl.console import Watch, console, settings, shout
from sadcl.errors import UserError
from sadcl.ray_backend import environment, preflight
from sadcl.results import store
from sadcl.runner import TrialFailed, Where
from sadcl.search.plan import Search, Trial
from sadcl.search.space import describe
from sadcl.training.loop import pick_device


def run(
    search: Search,
    *,
    data_root: str | None = None,
    storage: str = "runs",
    address: str | None = None,
    workers: int = 1,
    gpus_per_trial: float | None = None,
    max_concurrent: int | None = None,
    trials: int | None = None,
    scale: str | None = None,
    fresh: bool = False,
    dry_run: bool = False,
    yes: bool = False,
) -> pa.Table | None:
    """Run a study, or what is left of it: the same call goes on where an interrupted one stopped.

    Args:
        search: what to find out.
        data_root: where the data lies; None runs at demo scale on the embedded scenes.
        storage: root of tables and checkpoints: a folder, s3://... or gs://...
        address: of a Ray cluster; None takes RAY_ADDRESS, else starts a private one on this machine.
        workers: training processes of a trial.
        gpus_per_trial: GPUs of each worker, also a part of one; None takes one where there is any.
        max_concurrent: trials at once; None as many as fit.
        trials: settings that the whole study tries; None takes the search's own number.
        scale: ``demo`` or ``full``; None is full where there is a data root.
        fresh: remove what the study has and start anew.
        dry_run: say what would be done, and stop.
        yes: ask nothing.

    Returns:
        The study's rows of the trials table; None after a dry run.

    Raises:
        UserError: for whatever can be known to be wrong before trials start, and where no trial succeeds.
    """
    scale = scale or ("full" if data_root is not None else "demo")
    if scale not in ("demo", "full"):
        raise UserError(f"--scale {scale!r} is not possible: demo or full.")
    if scale == "full" and data_root is None:
        raise UserError("--scale full needs --data-root: say where the data set lies.")
    if workers < 1 or (trials is not None and trials < search.confirm_top) or (max_concurrent or 1) < 1:
        raise UserError(
            f"workers >= 1, max-concurrent >= 1 and trials >= {search.confirm_top} must hold, but got workers={workers}, "
            f"max-concurrent={max_concurrent}, trials={trials}."
        )
    total = trials or (search.trials if scale == "full" else search.demo_trials)
    name = search.study(scale)
    base = search.config(scale)
    if data_root is not None:
        concrete = data.resolve(base.data.model_copy(update={"name": search.base.data.name}), data_root).name
        base = base.override({"data.name": concrete})
    where = _where(storage, data_root, scale, workers, gpus_per_trial, address)
    if data_root is None:
        shout(
            f"no --data-root was given, so {name} runs a small network on embedded scenes. Its figures prove the path, "
            "not the science. Give --data-root for the real thing.",
            "DEMO SCALE",
        )
    preflight.check_storage(storage)
    images = _load(base, data_root)
    build.check_model(base)
    plan = _Plan(search, scale, base, images.digest, total)
    console.print(f"[bold]{search.question}[/bold]", highlight=False)
    for text in plan.lines(images, where):
        console.print(text, highlight=False)
    if dry_run:
        return None
    if scale == "full" and not where.gpus:
        _warn_of_hours(plan, base, images, yes)
    with study.locked(storage, name):
        if fresh:
            _remove(storage, name, yes)
        study.claim(storage, search.identity(scale, base, images.digest))
        _run(plan, where, address, max_concurrent)
    found = study.rows(storage, name)
    shared = plan.stage1(base).key
    stage1 = [row for row in store.read(storage, "trials").to_pylist() if row["key"] == shared and row["study"] != name]
    table, sentences = study.summary(_with_admitted(storage, found + stage1), search.published)
    console.print(table)
    for text in sentences:
        console.print(text, highlight=False)
    console.print(f"Ask the tables: sadcl results top --study {name} --storage {storage}", highlight=False)
    return store.read(storage, "trials").filter(pa.compute.field("study") == name)


class _Plan:
    """The trials of a study, as far as they are known before it runs."""

    def __init__(self, search: Search, scale: str, base: Config, digest: str, total: int) -> None:
        self.search, self.scale, self.base, self.digest, self.total = search, scale, base, digest, total
        self.study = search.study(scale)
        self.space = search.space_at(scale)

    def stage1(self, config: Config) -> Trial:
        return self.search.stage1_trial(self.scale, config, self.digest)

    def baselines(self) -> list[Trial]:
        return self.search.baseline_trials(self.scale, self.base)

    def seeds(self) -> list[Config]:
        return [self.base.override({"seed": seed}) for seed in self.search.confirm_seeds]

    def epochs(self, ended: set[str]) -> int:
        """Epochs that are still to be trained."""
        s1, s2 = self.base.stage1.epochs, self.base.stage2.epochs
        known = [self.stage1(self.base), *self.baselines(), *(self.stage1(config) for config in self.seeds())]
        count = sum(runner.epochs_of(t.config, with_stage1=False) for t in known if t.key not in ended)
        count += (self.total - len([key for key in ended if key.startswith(f"{self.study}-tuned-s{self.base.seed}-")])) * s2
        arms = self.search.confirm_top + ("stage2" in self.search.baselines)
        return max(count, 0) + len(self.search.confirm_seeds) * arms * s2 + s1 + s2

    def lines(self, images: data.MultiLabelData, where: Where) -> Iterator[str]:
        counts = f"{len(images.train):,} train, {len(images.val):,} held out to select, {len(images.test):,} test"
        yield f"study {self.study}: {images.name} ({counts} images, {len(images.labels)} labels, digest {images.digest})"
        for field, text in describe(self.space).items():
            yield f"  {field}: {text}"
        stages = f"{self.base.stage1.epochs} + {self.base.stage2.epochs} epochs"
        seeds = ", ".join(map(str, self.search.confirm_seeds))
        yield (
            f"  one shared stage 1, {' and '.join(self.search.baselines)}, {self.total} trials, the best {self.search.confirm_top} "
            f"again over seeds {seeds}, one final run; {stages}"
        )
        yield f"  each trial: {where.workers} worker(s) of {where.cpus} CPU(s) and {where.gpus:g} GPU(s); results in {where.storage}"


def _run(plan: _Plan, where: Where, address: str | None, max_concurrent: int | None) -> None:
    address = environment.prepare(address)
    from sadcl.ray_backend import board as boards
    from sadcl.ray_backend import cluster, jobs, tuner

    search, base = plan.search, plan.base
    before = study.rows(where.storage, plan.study)
    ended = {row["key"] for row in before if row["status"] in runner.FINISHED}
    if before:
        left = len([row for row in before if row["status"] == "running"])
        console.print(f"Going on: {len(ended)} runs have ended, {left} were interrupted.", highlight=False)
    scores = [row["val_mAP"] for row in before if row["phase"] == "search" and row["val_mAP"] is not None]
    with tempfile.TemporaryDirectory(prefix="sadcl-") as scratch, cluster.connected(address) as available:
        fit_at_once = preflight.check_resources(available, workers=where.workers, cpus=where.cpus, gpus=where.gpus)
        board = boards.open_board()
        title = f"{plan.study}: {search.question}"
        with Watch(title, lambda: boards.drain(board), plan.epochs(ended), max(scores, default=None)) as watch:
            pool = jobs.Jobs(where, scratch, board)

            def start(trial: Trial) -> Trial:
                watch.name(trial.key, _what(trial), trial.params)
                pool.start(trial)
                return trial

            stage1 = start(plan.stage1(base))
            baselines = plan.baselines()
            alone = [start(trial) for trial in baselines if not trial.config.stage2.epochs]
            shared = pool.result(stage1)
            if shared["status"] != "complete":
                raise UserError(f"Stage 1, which all trials start from, has failed: {shared['cause']}")
            others = [start(trial) for trial in baselines if trial.config.stage2.epochs]
            fresh = [start(plan.stage1(config)) for config in plan.seeds()]

            def make(params: dict[str, Any]) -> Trial:
                return search.search_trial(plan.scale, base, params)

            tuner.search(
                plan.space,
                plan.total,
                [row for row in before if row["phase"] == "search"],
                make,
                where,
                study=plan.study,
                journal=_journal(where.storage, plan.study, scratch),
                seed=base.seed,
                concurrent=max_concurrent or fit_at_once,
                scratch=scratch,
                board=board,
            )
            best = _best(where.storage, plan.study, search.confirm_top)
            for trial in fresh:
                pool.result(trial)
            final = _final(plan, best[0], shared)
            final_stage1 = start(plan.stage1(final.config))
            confirm = [start(t) for t in search.confirm_trials(plan.scale, base, [b["settings"] for b in best])]
            results = [(trial, pool.result(trial)) for trial in confirm]
            winner = _winner(best, results)
            if winner is not best[0]:
                final = _final(plan, winner, shared)
                final_stage1 = start(plan.stage1(final.config))
            pool.result(final_stage1)
            pool.result(start(final))
            for trial in (*alone, *others):
                pool.result(trial)


def _what(trial: Trial) -> str:
    return {"search": f"search {trial.key[-4:]}", "confirm": f"confirm {trial.arm} s{trial.config.seed}"}.get(
        trial.phase,
        f"{trial.phase} {trial.arm} s{trial.config.seed}"
        if trial.phase != trial.arm
        else f"{trial.arm} s{trial.config.seed}",
    )


def _best(root: str, name: str, count: int) -> list[dict[str, Any]]:
    """The best settings of the search, by the held-out images."""
    import json

    trials = [row for row in study.rows(root, name) if row["phase"] == "search"]
    complete = [row for row in trials if row["status"] == "complete" and row["val_mAP"] is not None]
    if not complete:
        cause = next((row["cause"] for row in trials if row["cause"]), "none was run")
        raise UserError(f"None of the {len(trials)} trials of {name!r} succeeded; the first cause: {cause}")
    ranked = sorted(complete, key=lambda row: (-row["val_mAP"], row["key"]))[:count]
    return [{**row, "settings": json.loads(row["params"])} for row in ranked]


def _final(plan: _Plan, row: dict[str, Any], stage1: dict[str, Any]) -> Trial:
    """The final run's trial: epochs and weights as the held-out images chose them, on the same schedule."""
    base = plan.base
    chosen = {
        "stage1.epochs": stage1["epoch"],
        "stage1.planned_epochs": base.stage1.planned_epochs or base.stage1.epochs,
        "stage1.patience": None,
        "stage2.epochs": row["epoch"],
        "stage2.planned_epochs": base.stage2.planned_epochs or base.stage2.epochs,
        "stage2.patience": None,
        "optim.report": row["weights"],
    }
    return plan.search.final_trial(plan.scale, base, row["settings"], chosen)


def _winner(best: list[dict[str, Any]], results: list[tuple[Trial, dict[str, Any]]]) -> dict[str, Any]:
    """The setting with the best confirmed mean; the search's best where nothing was confirmed."""
    means = []
    for row in best:
        values = [r["val_mAP"] for t, r in results if dict(t.params) == row["settings"] and r["status"] == "complete"]
        means.append(sum(values) / len(values) if values else float("-inf"))
    return best[means.index(max(means))]


def _where(root: str, data_root: str | None, scale: str, workers: int, gpus: float | None, address: str | None) -> Where:
    """What a trial runs on; on a private cluster a GPU that is not there is found out now."""
    remote = bool(address or os.environ.get("RAY_ADDRESS"))
    here = torch.cuda.device_count()
    if gpus is None:
        gpus = 1.0 if here or (remote and scale == "full") else 0.0
    if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
        raise UserError(f"--gpus-per-trial {gpus:g} is not possible: 0, a part of one such as 0.25, or a whole number.")
    if gpus and not here and not remote:
        raise UserError(
            f"--gpus-per-trial {gpus:g} was asked for, but this machine shows no GPU to PyTorch {torch.__version__}. Check the "
            "driver and CUDA_VISIBLE_DEVICES, give --gpus-per-trial 0 to train on the CPU, or join a cluster with --address."
        )
    cpus = 1
    if scale == "full":
        share = int(here / gpus) if gpus and here else 1
        cpus = max(1, min(8, (os.cpu_count() or 1) // max(share * workers, 1)))
    absolute = root if "://" in root else str(Path(root).expanduser().resolve())
    place = str(Path(data_root).expanduser().resolve()) if data_root is not None and "://" not in data_root else data_root
    return Where(absolute, place, scale, workers, cpus, gpus)


def _load(config: Config, root: str | None) -> data.MultiLabelData:
    """Read the data here first, so that what is wrong with it is said before anything is reserved."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=console, transient=True
    ) as bar:
        task = bar.add_task("reading the data", total=None)
        return data.load(config.data, root, progress=lambda done, all_: bar.update(task, completed=done, total=all_))


def _journal(root: str, name: str, scratch: str) -> Path:
    """Optuna's journal lies beside the tables where that is a disk; a copy of the truth, made anew at every start."""
    system, path = storage.resolve(root)
    folder = Path(path) if isinstance(system, fs.LocalFileSystem) else Path(scratch)
    return folder / "optuna" / f"{name}.journal"


def _with_admitted(root: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each row with the rows a label that its last epoch admitted to the bank."""
    last: dict[str, Any] = {}
    for epoch in store.read(root, "epochs").sort_by([("stage", "ascending"), ("epoch", "ascending")]).to_pylist():
        last[epoch["key"]] = epoch["admitted"]
    return [{**row, "admitted": last.get(row["key"])} for row in rows]


def _remove(root: str, name: str, yes: bool) -> None:
    count = len([row for row in study.rows(root, name) if row["status"] in runner.FINISHED])
    if count:
        _ask(f"--fresh removes {count} finished runs of {name!r} from {root!r}.", yes)
    study.remove(root, name)


def _ask(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError(f"{question} Give --yes to go on without being asked.")
    if console.input(f"{question} Go on? \\[y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError("Nothing was done.")


def _warn_of_hours(plan: _Plan, config: Config, images: data.MultiLabelData, yes: bool) -> None:
    """Full scale without a GPU: say how long it would take, by a timed step of two images."""
    network = build.model(config, len(images.labels), pretrained=False)
    side = config.data.image_size
    began = time.monotonic()
    network(torch.zeros(2, 3, side, side)).logits_BL.sum().backward()
    per_image = (time.monotonic() - began) / 2
    hours = plan.epochs(set()) * len(images.train) * per_image / 3600
    _ask(f"There is no GPU: the study would take about {hours:,.0f} hours on this machine's CPUs.", yes)


def train(
    config: Config,
    *,
    data_root: str | None = None,
    storage: str = "runs",
    workers: int = 1,
    gpus_per_worker: float | None = None,
    address: str | None = None,
    name: str = "train",
    scale: str | None = None,
) -> dict[str, Any]:
    """Train one configuration, or what is left of it, and evaluate it on the test images once.

    One worker is this process; two or more run under Ray Train, with the same figures whatever their number.

    Args:
        config: what to train.
        data_root: where the data lies; None for the embedded scenes.
        storage, workers, address: as for :func:`run`.
        gpus_per_worker: None takes one where there is any.
        name: of the study that the row belongs to.
        scale: written into the row; None is full where there is a data root.

    Returns:
        The row of the trials table, ``checkpoint`` among its columns.

    Raises:
        UserError: for whatever can be known to be wrong beforehand.
        TrialFailed: where training fails; the row has the cause.
    """
    if workers < 1:
        raise UserError(f"--workers {workers} is not possible: at least 1.")
    preflight.check_storage(storage)
    config = config.model_copy(update={"data": data.resolve(config.data, data_root)})
    scale = scale or ("full" if data_root is not None else "demo")
    where = _where(storage, data_root, scale, workers, gpus_per_worker, address)
    images = _load(config, data_root)
    build.check_model(config)
    pick_device("cuda" if where.gpus and workers == 1 else "cpu")
    trial = Trial(name, "train", "train", config)
    if (row := runner.finished(trial, where)) is not None and row["status"] == "complete":
        return row
    store.delete(where.storage, trial.key) if row is not None else None
    epochs = runner.epochs_of(config, with_stage1=True)
    counts = f"{len(images.train):,} train, {len(images.val):,} held out, {len(images.test):,} test images"
    console.print(f"{trial.key}: {images.name}, {counts}, {workers} worker(s)", highlight=False)
    if workers == 1:
        events: list[dict[str, Any]] = []
        with Watch(name, lambda: [events.pop(0) for _ in range(len(events))], epochs) as watch:
            watch.name(trial.key, "train", {})
            return runner.execute(trial, where, events.append)
    address = environment.prepare(address)
    from sadcl.ray_backend import board as boards
    from sadcl.ray_backend import cluster, trainer

    with tempfile.TemporaryDirectory(prefix="sadcl-") as scratch, cluster.connected(address) as available:
        preflight.check_resources(available, workers=workers, cpus=where.cpus, gpus=where.gpus)
        board = boards.open_board()
        with Watch(name, lambda: boards.drain(board), epochs) as watch:
            watch.name(trial.key, "train", {})
            return trainer.train(trial, where, scratch, board)


def main(search: Search, arguments: Sequence[str] | None = None) -> None:
    """Run a study from the command line; flags only say where and how much."""
    parser = argparse.ArgumentParser(description=search.question)
    _common(parser)
    parser.add_argument(
        "--gpus-per-trial", type=float, metavar="G", help="GPUs of each worker, also a part of one; 0 is the CPU"
    )
    parser.add_argument("--max-concurrent", type=int, metavar="N", help="trials at once (default: as many as fit)")
    parser.add_argument("--trials", type=int, metavar="N", help="settings that the whole study tries")
    parser.add_argument("--scale", choices=("demo", "full"), help="default: full with --data-root, else demo")
    parser.add_argument("--fresh", action="store_true", help="remove what the study has and start anew")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and stop")
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    options = vars(parser.parse_args(arguments))
    with guarded():
        run(search, **options)


def main_train(config: Config, demo: Config, name: str, arguments: Sequence[str] | None = None) -> None:
    """Train one configuration from the command line; without data the demo's, on the embedded scenes."""
    parser = argparse.ArgumentParser(description=f"Train {name}.")
    _common(parser)
    parser.add_argument("--gpus-per-worker", type=float, metavar="G", help="0 is the CPU")
    parser.add_argument("--seed", type=int, default=0, help="of the run (default: 0)")
    parser.add_argument("--scale", choices=("demo", "full"), help="default: full with --data-root, else demo")
    options = vars(parser.parse_args(arguments))
    seed = options.pop("seed")
    with guarded():
        scale = options["scale"] or ("full" if options["data_root"] is not None else "demo")
        if options["data_root"] is None:
            shout("no --data-root was given: a small network on embedded scenes.", "DEMO SCALE")
        chosen = config if scale == "full" else demo
        if options["data_root"] is not None:
            chosen = chosen.override({"data.name": config.data.name})
        row = train(chosen.override({"seed": seed}), name=name if scale == "full" else f"{name}-demo", **options)
        console.print(f"held-out mAP {row['val_mAP']:.2f}, test mAP {row['test_mAP']:.2f} ({row['weights']} weights)")
        console.print(f"checkpoint: {row['checkpoint']}", highlight=False)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-root", metavar="DIR", help="where the data set lies (default: embedded scenes, at demo scale)"
    )
    parser.add_argument("--storage", default="runs", metavar="ROOT", help="of tables and checkpoints (default: runs)")
    parser.add_argument("--address", help="of a Ray cluster (default: RAY_ADDRESS, else a private one on this machine)")
    parser.add_argument("--workers", type=int, default=1, metavar="W", help="training processes (default: 1)")


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """One paragraph for a user's mistake (exit 2) or a failed run (exit 1), a hint after Ctrl-C (exit 130)."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with contextlib.suppress(ValueError):  # signals belong to the main thread
        signal.signal(signal.SIGTERM, stop)  # what `ray job stop` sends
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except TrialFailed as error:
        print(f"failed: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nstopped; nothing is lost: the same command goes on from here.", file=sys.stderr)
        sys.exit(130)


__all__ = ["main", "main_train", "run", "settings", "train"]
