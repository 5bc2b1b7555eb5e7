"""Puts the parts together: a study from its plan to its summary, and one training run."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import torch

from sadcl import build, data, runner, study
from sadcl import storage as storage_of
from sadcl.config import Config
from sadcl.console import Watch, bar, console, guarded, shout
from sadcl.data import checks
from sadcl.errors import UserError
from sadcl.ray_backend import environment, preflight
from sadcl.results import store
from sadcl.runner import Where
from sadcl.search.plan import Plan, Search, Trial
from sadcl.training import checkpoint


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
    scale = _scale(scale, data_root)
    if (
        workers < 1
        or (trials is not None and trials < search.confirm_top)
        or (max_concurrent is not None and max_concurrent < 1)
    ):
        raise UserError(
            f"workers >= 1, max-concurrent >= 1 and trials >= {search.confirm_top} must hold, but got workers={workers}, "
            f"max-concurrent={max_concurrent}, trials={trials}."
        )
    base = search.config(scale)
    if data_root is not None:
        concrete = data.resolve(base.data.model_copy(update={"name": search.base.data.name}), data_root).name
        base = base.override({"data.name": concrete})
    where = _where(storage, data_root, scale, workers, gpus_per_trial, address)
    if data_root is None:
        shout(
            f"no --data-root was given, so {search.name} runs a small network on embedded scenes. Its figures prove the "
            "path, not the science. Give --data-root for the real thing.",
            "DEMO SCALE",
        )
    if not dry_run:
        preflight.check_storage(storage)
    images = _load(base, data_root)
    whole = runner.load(base.data.model_copy(update={"holdout": 0.0}), data_root)
    build.check_model(base)
    base, start = _start(base, images.labels)
    total = trials or (search.trials if scale == "full" else search.demo_trials)
    plan = Plan(search, scale, base, total, images.digest, whole.digest, start)
    console.print(f"[bold]{search.question}[/bold]", highlight=False)
    counts = f"{len(images.train):,} train, {len(images.val):,} held out to select, {len(images.test):,} test images"
    console.print(
        f"study {plan.study}: {images.name} ({counts}, {len(images.labels)} labels{_left_out(images)})", highlight=False
    )
    for text in plan.lines():
        console.print(text, highlight=False)
    console.print(
        f"  each trial: {workers} worker(s) of {where.cpus} CPU(s) and {where.gpus:g} GPU(s); results in {where.storage}",
        highlight=False,
    )
    before = [row for row in study.rows(storage, plan) if row["study"] == plan.study]
    if fresh and before:
        console.print(f"  --fresh removes the {len(before)} runs that are there", highlight=False)
    elif (there := sum(row["phase"] == "search" for row in before)) > total:
        console.print(f"  {there} trials are there already, and stay", highlight=False)
    if dry_run:
        return None
    if scale == "full" and not where.gpus:
        _warn_of_hours(base, len(images.labels), plan.epochs_left(study.rows(storage, plan)) * len(images.train), where, yes)
    with study.locked(storage, plan.study):
        if fresh:
            _remove(storage, plan, yes)
        study.claim(storage, plan.identity())
        before = [row for row in study.rows(storage, plan) if row["study"] == plan.study]
        if before:
            count = {s: len([r for r in before if r["status"] == s]) for s in ("complete", "running", "failed")}
            console.print(
                f"Going on with what is there: {count['complete']} runs are complete, {count['running']} were interrupted, "
                f"{count['failed']} failed and are tried again.",
                highlight=False,
            )
        address = environment.prepare(address)
        from sadcl.ray_backend import driver  # imports Ray, which reads the environment as it is now

        driver.drive(plan, where, address, data.witnesses(images, base.data, data_root), max_concurrent)
    table, sentences = study.summary(study.with_admitted(storage, plan), search)
    console.print(table)
    for text in sentences:
        console.print(text, highlight=False)
    console.print(f"Ask the tables: sadcl results top --study {plan.study} --storage {storage}", highlight=False)
    return store.read(storage, "trials").filter(pa.compute.field("study") == plan.study)


def _scale(scale: str | None, data_root: str | None) -> str:
    scale = scale or ("full" if data_root is not None else "demo")
    if scale not in ("demo", "full"):
        raise UserError(f"--scale {scale!r} is not possible: demo or full.")
    if scale == "full" and data_root is None:
        raise UserError("--scale full needs --data-root: say where the data set lies.")
    return scale


def _where(root: str, data_root: str | None, scale: str, workers: int, gpus: float | None, address: str | None) -> Where:
    """What a trial runs on; on a private cluster a GPU that is not there is found out now."""
    remote = bool(address or os.environ.get("RAY_ADDRESS"))
    here = torch.cuda.device_count()
    if gpus is None:
        gpus = 1.0 if here or (remote and scale == "full") else 0.0
    if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
        raise UserError(f"--gpus-per-trial {gpus:g} is not possible: 0, a part of one such as 0.25, or a whole number.")
    if workers > 1 and 0 < gpus < 1:
        raise UserError(
            f"--gpus-per-trial {gpus:g} with --workers {workers} is not possible: each worker needs a GPU of its own."
        )
    if gpus and not here and not remote:
        raise UserError(
            f"--gpus-per-trial {gpus:g} was asked for, but PyTorch {torch.__version__} sees no GPU on this machine. Check "
            "the driver and CUDA_VISIBLE_DEVICES, give --gpus-per-trial 0 for the CPU, or join a cluster with --address."
        )
    if not remote:
        preflight.place(Where(root, None, scale, workers, 1, gpus), [{"CPU": os.cpu_count() or 1, "GPU": here}])
    cpus = 1
    if scale == "full":
        at_once = max(int(here / gpus), workers) if gpus and here else workers
        cpus = max(1, min(8, (os.cpu_count() or 1) // at_once))
    place = storage_of.absolute(data_root) if data_root is not None else None
    return Where(storage_of.absolute(root), place, scale, workers, cpus, gpus)


def _load(config: Config, root: str | None) -> data.MultiLabelData:
    """Read the data and look at every image file here first, so that what is wrong is said before anything is reserved."""
    with bar("reading the data") as show:
        images = data.load(config.data, root, progress=show("drawing the scenes" if root is None else "fetching annotations"))
        if config.data.prepared is not None or "://" in str(root):
            return images  # decoded when they were made; or so far away that looking takes as long as an epoch
        checks.check_files([images.train, images.val, images.test], progress=show("looking at the image files"))
    return images


def _left_out(images: data.MultiLabelData) -> str:
    return f", {images.missing:,} listed images are not on disk and were left out" if images.missing else ""


def _start(config: Config, labels: tuple[str, ...]) -> tuple[Config, str]:
    """Try the checkpoint that training starts from, where there is one; its absolute place, and its digest."""
    uri = config.model.start
    if uri is None:
        return config, ""
    uri = storage_of.absolute(uri)
    network = build.model(config, len(labels), pretrained=False)
    taken = checkpoint.load_network(network, checkpoint.load(uri), uri, labels, whole=not config.stage1.epochs)
    console.print(f"  starts from {uri}: {taken}", highlight=False)
    return config.override({"model.start": uri}), checkpoint.digest(uri)


def _remove(root: str, plan: Plan, yes: bool) -> None:
    count = len([r for r in study.rows(root, plan) if r["status"] in runner.FINISHED and r["study"] == plan.study])
    if count:
        _ask(f"--fresh removes {count} finished runs of {plan.study!r} from {root!r}.", yes)
    study.remove(root, plan.study)


def _ask(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError(f"{question} Give --yes to go on without being asked.")
    if console.input(f"{question} Go on? \\[y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError("Nothing was done.")


def _warn_of_hours(config: Config, labels: int, images: int, where: Where, yes: bool) -> None:
    """Full scale without a GPU: say how long that many images would take, by a timed step of two on a trial's CPUs."""
    if not images:
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(where.threads)
    network = build.model(config, labels, pretrained=False)
    side = config.data.image_size
    began = time.monotonic()
    network(torch.zeros(2, 3, side, side)).logits_BL.sum().backward()
    hours = images * (time.monotonic() - began) / 2 / 3600
    torch.set_num_threads(threads)
    _ask(f"There is no GPU: this would take about {hours:,.0f} hours on this machine's CPUs.", yes)


def train(
    config: Config,
    *,
    data_root: str | None = None,
    storage: str = "runs",
    workers: int = 1,
    gpus_per_trial: float | None = None,
    address: str | None = None,
    name: str = "train",
    scale: str | None = None,
    yes: bool = False,
) -> dict[str, Any]:
    """Train one configuration, or what is left of it, and evaluate it on the test images once.

    One worker is this process; two or more run under Ray Train. The batch is global, so that their number changes nothing
    but the order of chance: with dropout 0 and frozen BatchNorm not even that (then the figures are equal up to rounding).

    Args:
        config: what to train.
        data_root: where the data lies; None for the embedded scenes.
        storage, workers, address: as for :func:`run`.
        gpus_per_trial: None takes one where there is any.
        name: of the study that the row belongs to.
        scale: written into the row; None is full where there is a data root.
        yes: ask nothing.

    Returns:
        The row of the trials table, ``checkpoint`` among its columns.

    Raises:
        UserError: for whatever can be known to be wrong beforehand.
        TrialFailed: where training fails; the row has the cause.
    """
    if workers < 1:
        raise UserError(f"--workers {workers} is not possible: at least 1.")
    scale = _scale(scale or ("demo" if config.data.name == "scenes" else None), data_root)
    preflight.check_storage(storage)
    config = config.model_copy(update={"data": data.resolve(config.data, data_root)})
    where = _where(storage, data_root, scale, workers, gpus_per_trial, address)
    images = _load(config, data_root)
    build.check_model(config)
    config, start = _start(config, images.labels)
    source = "-".join([images.digest] + [start] * bool(start))
    trial = Trial(name, "train", "train", config, name=f"{name}-s{config.seed}-{config.digest()}-{source}")
    if (row := runner.finished(trial, where)) is not None:
        if row["status"] == "complete":
            console.print(f"{trial.key} is complete already; nothing is trained again.", highlight=False)
            return row
        store.reopen(where.storage, trial.key)
    if scale == "full" and not where.gpus:
        _warn_of_hours(config, len(images.labels), trial.epochs * len(images.train), where, yes)
    counts = f"{len(images.train):,} train, {len(images.val):,} held out, {len(images.test):,} test images"
    console.print(f"{trial.key}: {images.name}, {counts}{_left_out(images)}, {workers} worker(s)", highlight=False)
    with study.locked(storage, trial.key):
        if workers == 1:
            events: list[dict[str, Any]] = []
            with Watch(name, lambda: [events.pop(0) for _ in range(len(events))], trial.epochs):
                return runner.execute(trial, where, events.append)
        address = environment.prepare(address)
        from sadcl.ray_backend import driver  # imports Ray, which reads the environment as it is now

        return driver.train(trial, where, address, data.witnesses(images, config.data, data_root))


def main(search: Search, arguments: Sequence[str] | None = None) -> None:
    """Run a study from the command line; flags only say where and how much."""
    parser = argparse.ArgumentParser(description=search.question)
    _common(parser)
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
    parser.add_argument("--seed", type=int, default=0, help="of the run (default: 0)")
    parser.add_argument("--scale", choices=("demo", "full"), help="default: full with --data-root, else demo")
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    options = vars(parser.parse_args(arguments))
    seed = options.pop("seed")
    with guarded():
        scale = _scale(options.pop("scale"), options["data_root"])
        if options["data_root"] is None:
            shout("no --data-root was given: a small network on embedded scenes.", "DEMO SCALE")
        chosen = config if scale == "full" else demo
        if options["data_root"] is not None:
            chosen = chosen.override({"data.name": config.data.name})
        study_name = name if scale == "full" else f"{name}-demo"
        row = train(chosen.override({"seed": seed}), name=study_name, scale=scale, **options)
        figures = [(n, row.get(f"{split}_mAP")) for split, n in (("val", "held-out"), ("test", "test"))]
        text = ", ".join(f"{name} mAP {value:.2f}" for name, value in figures if value is not None)
        console.print(f"{text} ({row['weights']} weights)", highlight=False)
        console.print(f"checkpoint: {row['checkpoint']}", highlight=False)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-root", metavar="DIR", help="where the data set lies (default: embedded scenes, at demo scale)"
    )
    parser.add_argument("--storage", default="runs", metavar="ROOT", help="of tables and checkpoints (default: runs)")
    parser.add_argument("--address", help="of a Ray cluster (default: RAY_ADDRESS, else a private one on this machine)")
    parser.add_argument("--workers", type=int, default=1, metavar="W", help="training processes (default: 1)")
    parser.add_argument(
        "--gpus-per-trial", type=float, metavar="G", help="GPUs of each worker, also a part of one; 0 is the CPU"
    )
