"""What happens before a study starts: its data is read, its plan shown, its size looked at, its place claimed."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sadcl import build, data, runner, sizing, study
from sadcl import storage as storage_of
from sadcl.config import Config
from sadcl.console import bar, console, in_bytes
from sadcl.data import checks
from sadcl.errors import UserError
from sadcl.results import store
from sadcl.runner import Where
from sadcl.search import Comparison, Plan
from sadcl.search.trial import Ground
from sadcl.training import checkpoint


@dataclass(frozen=True)
class Options:
    """Where and how much, as :func:`run` takes it."""

    storage: str = "runs"
    address: str | None = None
    workers: int = 1
    gpus_per_trial: float | None = None
    max_concurrent: int | None = None
    trials: int | None = None
    max_epochs: int | None = None
    max_hours: float | None = None
    max_disk: float | None = None
    retry_failed: bool = False
    fresh: bool = False
    dry_run: bool = False
    yes: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.workers, str):
            raise UserError(
                f"--workers {self.workers} is not possible here: the runs of a study have one fixed number of workers, as in "
                "--workers 2. Ranges are for single runs (experiments/train_coco.py, sadcl.train)."
            )
        for name in ("workers", "max_concurrent", "trials", "max_epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} {value} is not possible: at least 1.")
        for name in ("max_hours", "max_disk"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"--{name.replace('_', '-')} {value:g} is not possible: more than 0.")


@dataclass(frozen=True)
class Laid:
    """A data set that was read and looked at, and what runs on it."""

    ground: Ground
    where: Where
    images: data.MultiLabelData
    witnesses: Sequence[str]
    """Files that every node must have below the data root."""

    @functools.cached_property
    def checkpoint_bytes(self) -> tuple[int, int]:
        """Of :func:`sadcl.sizing.checkpoint_bytes`, which builds a network for it."""
        return sizing.checkpoint_bytes(self.ground.base, len(self.images.labels))


def lay(name: str, base: Config, known: str, root: str | None, scale: str, options: Options) -> Laid:
    """Read a data set, and find out whether its configuration can be trained here."""
    if root is not None:
        concrete = data.resolve(base.data.model_copy(update={"name": known}), root).name
        base = base.override({"data.name": concrete})
    where = sizing.where(options.storage, root, scale, options.workers, options.gpus_per_trial, options.address)
    images = load(base, root)
    whole = runner.load(base.data.model_copy(update={"holdout": 0.0}), root)
    build.check_model(base)
    base, start = started_from(base, images.labels)
    ground = Ground(name, base, images.digest, whole.digest, start)
    return Laid(ground, where, images, data.witnesses(images, base.data, root))


def show(question: str, plan: Plan | Comparison, laid: Mapping[str, Laid], options: Options) -> None:
    """The plan in words, what of it is left, and what that takes; asks before hours on a CPU, refuses what has no room."""
    console.print(f"[bold]{question or plan.study}[/bold]", highlight=False)
    for part in laid.values():
        images = part.images
        counts = f"{len(images.train):,} train, {len(images.val):,} held out to select, {len(images.test):,} test images"
        text = f"study {plan.study}: {images.name} ({counts}, {len(images.labels)} labels{left_out(images)})"
        console.print(text, highlight=False)
    for text in plan.lines():
        console.print(text, highlight=False)
    where = next(iter(laid.values())).where
    console.print(
        f"  each run: {where.workers} worker(s) of {where.cpus} CPU(s) and {where.gpus:g} GPU(s); results in {where.storage}",
        highlight=False,
    )
    rows = study.rows(options.storage, plan)
    if options.retry_failed:
        rows = [{**row, "status": "running"} if row["status"] == "failed" else row for row in rows]
    mine = [row for row in rows if row["study"] == plan.study]
    if not options.fresh:
        study.check_same(options.storage, plan.identity())
    if options.fresh and mine:
        console.print(f"  --fresh removes the {len(mine)} runs that are there", highlight=False)
        rows = []
    elif isinstance(plan, Plan) and (there := sum(row["phase"] == "search" for row in mine)) > plan.total:
        console.print(f"  {there} trials are there already, and stay", highlight=False)
    runs, epochs = plan.left(rows)
    if runs:
        searched = plan.left_to_try(rows) if isinstance(plan, Plan) else 0
        freed = sum(study.freed(options.storage, plan.study)) if options.fresh else 0
        _estimate(runs, epochs, searched, freed, list(laid.values()), options)


def _estimate(runs: int, epochs: int, searched: int, freed: int, laid: list[Laid], options: Options) -> None:
    """Say what so many runs, some of them trials of a search, take; ``freed`` bytes are removed before."""
    part = max(laid, key=lambda p: len(p.images.train) * p.ground.base.data.image_size**2)  # the dearest speaks for all
    where, base, labels = part.where, part.ground.base, len(part.images.labels)
    hours, on = sizing.hours(base, labels, epochs * len(part.images.train), where)
    hours /= where.workers
    at_once = sizing.at_once(where, options.address)
    at_once = min(at_once or options.max_concurrent or 1, options.max_concurrent or at_once or 1)
    kept, state = part.checkpoint_bytes
    total = runs * kept + at_once * state
    spare = max(searched - at_once, 0)  # of a search's trials those under way keep theirs, and the best may be among them
    least = total - spare * kept
    gpus = where.gpus * where.workers * at_once
    text = f"  to run: {runs} runs, {epochs} epochs, on {f'{gpus:g} GPU(s)' if gpus else 'CPUs'}"
    hint = "; none of its GPUs is here to time" if gpus and "CPU" in on else ""
    console.print(
        f"{text}; about {in_hours(hours / at_once)} with {at_once} at once (by one step, timed on {on}{hint}); up to "
        f"{in_bytes(total)} of checkpoints",
        highlight=False,
    )
    limit = disk_limit(options.storage, options.max_disk)
    if limit is not None:
        room = limit - study.checkpoint_bytes(options.storage)["."] + freed
        if room < least:
            raise UserError(
                f"There is room for {in_bytes(max(room, 0))} of checkpoints in {where.storage!r}, but {in_bytes(least)} are "
                f"needed: {at_once} runs at once take {in_bytes(at_once * state)} while they run, and each of {runs} leaves "
                f"{in_bytes(kept)}{f', which the {spare} worst trials give up' * bool(spare)}. Free some, raise --max-disk, "
                "lower --max-concurrent, or give another --storage."
            )
        if room < total:
            console.print(
                f"  only {in_bytes(room)} of checkpoints fit: those of a search's worst trials are removed on the way",
                highlight=False,
            )
    if not gpus and where.scale == "full" and not options.dry_run:
        ask(f"There is no GPU: this would take about {in_hours(hours / at_once)} on this machine's CPUs.", options.yes)


def in_hours(hours: float) -> str:
    return (
        f"{hours:,.0f} hours" if hours >= 10 else f"{hours:.1f} hours" if hours >= 1 else f"{max(hours * 60, 1):.0f} minutes"
    )


def disk_limit(root: str, given: float | None) -> float | None:
    """Bytes of checkpoints that may lie below a storage: as many GB as were given, and never more than the disk has."""
    free = storage_of.free_bytes(root)
    if free is None:
        return None if given is None else given * 1e9
    most = study.checkpoint_bytes(root)["."] + 0.95 * free
    return most if given is None else min(most, given * 1e9)


def check_room(config: Config, labels: int, root: str, folder: str) -> None:
    """Find out whether one run's checkpoints fit.

    Args:
        folder: of the run, with what it has already.

    Raises:
        UserError: where they do not.
    """
    kept, state = sizing.checkpoint_bytes(config, labels)
    stages = bool(config.stage1.epochs) + bool(config.stage2.epochs)
    whole = kept * stages + 2 * state  # a state is written beside the one before
    needed, free = max(whole - sum(storage_of.sizes(folder).values()), state), storage_of.free_bytes(root)
    if free is not None and free < needed:
        raise UserError(
            f"{in_bytes(free)} are free in {root!r}, but the run's checkpoints take up to {in_bytes(needed)}: make room, or "
            "give another --storage."
        )


@contextlib.contextmanager
def at_work(plan: Plan | Comparison, laid: Mapping[str, Laid], options: Options, about: Mapping[str, Any]) -> Iterator[None]:
    """The study to itself, and known for what it is, for as long as the block runs."""
    root = options.storage
    with study.locked(root, plan.study):
        if options.fresh:
            _remove(root, plan, options.yes)
        study.claim(root, plan.identity(), about)
        rows = study.rows(root, plan)
        if options.retry_failed:
            for row in rows:
                if row["status"] == "failed":
                    store.reopen(root, row["key"])
        mine = [row for row in rows if row["study"] == plan.study]
        if mine:
            count = {s: len([r for r in mine if r["status"] == s]) for s in ("complete", "pruned", "running", "failed")}
            failed = "are tried again" if options.retry_failed else "stay (--retry-failed tries them again)"
            console.print(
                f"Going on with what is there: {count['complete'] + count['pruned']} runs are complete, {count['running']} "
                f"were interrupted{', ' + str(count['failed']) + ' failed and ' + failed if count['failed'] else ''}.",
                highlight=False,
            )
        yield


def scale_of(scale: str | None, data_root: Any) -> str:
    """The scale that was asked for, or that goes with the data.

    Raises:
        UserError: for another word, or full scale without data.
    """
    scale = scale or ("full" if data_root is not None else "demo")
    if scale not in ("demo", "full"):
        raise UserError(f"--scale {scale!r} is not possible: demo or full.")
    if scale == "full" and data_root is None:
        raise UserError("--scale full needs --data-root: say where the data set lies.")
    return scale


def roots_of(known: Sequence[str], given: str | Mapping[str, str] | None) -> dict[str, str]:
    """Where each data set lies, of those that were given a place.

    Raises:
        UserError: for a data set that the study does not have, or one place for several.
    """
    if given is None:
        return {}
    if isinstance(given, str):
        if len(known) > 1:
            example = f"--data-root {known[0]}={given}"
            raise UserError(
                f"This study has {len(known)} data sets ({', '.join(known)}): say whose {given!r} is, as in {example}."
            )
        return {known[0]: given}
    if unknown := [name for name in given if name not in known]:
        raise UserError(f"--data-root names the data set {unknown[0]!r}{store.nearest(unknown[0], known)}")
    return dict(given)


def load(config: Config, root: str | None) -> data.MultiLabelData:
    """Read the data and look at every image file here first, so that what is wrong is said before anything is reserved."""
    with bar("reading the data") as show:
        images = data.load(config.data, root, progress=show("drawing the scenes" if root is None else "fetching annotations"))
        if config.data.prepared is not None or "://" in str(root):
            return images  # decoded when they were made; or so far away that looking takes as long as an epoch
        checks.check_files([images.train, images.val, images.test], progress=show("looking at the image files"))
    return images


def left_out(images: data.MultiLabelData) -> str:
    return f", {images.missing:,} listed images are not on disk and were left out" if images.missing else ""


def started_from(config: Config, labels: tuple[str, ...]) -> tuple[Config, str]:
    """Try the checkpoint that training starts from, where there is one; its absolute place, and its digest."""
    uri = config.model.start
    if uri is None:
        return config, ""
    uri = storage_of.absolute(uri)
    network = build.model(config, len(labels), pretrained=False)
    taken = checkpoint.load_network(network, checkpoint.load(uri), uri, labels, whole=not config.stage1.epochs)
    console.print(f"  starts from {uri}: {taken}", highlight=False)
    return config.override({"model.start": uri}), checkpoint.digest(uri)


def _remove(root: str, plan: Plan | Comparison, yes: bool) -> None:
    count = len([r for r in study.rows(root, plan) if r["status"] in runner.FINISHED and r["study"] == plan.study])
    if count:
        ask(f"--fresh removes {count} finished runs of {plan.study!r} from {root!r}.", yes)
    study.remove(root, plan.study)


def ask(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError(f"{question} Give --yes to go on without being asked.")
    if console.input(f"{question} Go on? \\[y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError("Nothing was done.")
