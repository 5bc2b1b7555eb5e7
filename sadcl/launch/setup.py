"""What is shown and checked before a study starts: its plan, what it takes, whether it may have its name."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from sadcl import storage as storage_of
from sadcl.config import Config
from sadcl.console import bytes_text, console
from sadcl.errors import UserError
from sadcl.launch import resources
from sadcl.launch.datasets import PreparedData, missing_note
from sadcl.launch.estimate import checkpoint_bytes, disk_limit, in_hours, training_hours
from sadcl.launch.options import Options
from sadcl.results import store
from sadcl.search import AblationPlan, Plan
from sadcl.search.plan_text import plan_lines
from sadcl.study import execute, record
from sadcl.study.record import PlanT, StudyRecord


def show_plan(
    question: str, plan: Plan | AblationPlan, prepared: Mapping[str, PreparedData], options: Options
) -> None:
    """The plan in words, what of it is left, and what that takes; asks before hours on a CPU, refuses what has no room."""
    console.print(f"[bold]{question or plan.study}[/bold]", highlight=False)
    for part in prepared.values():
        images = part.images
        counts = f"{len(images.train):,} train, {len(images.val):,} held out to select, {len(images.test):,} test images"
        text = f"study {plan.study}: {images.name} ({counts}, {len(images.labels)} labels{missing_note(images)})"
        console.print(text, highlight=False)
    for text in plan_lines(plan):
        console.print(text, highlight=False)
    placement = next(iter(prepared.values())).placement
    console.print(
        f"  each run: {placement.workers} worker(s) of {placement.cpus} CPU(s) and {placement.gpus:g} GPU(s); results in {placement.storage}",
        highlight=False,
    )
    study = StudyRecord(options.storage, plan)
    rows = study.rows
    if options.retry_failed:
        rows = [{**row, "status": "running"} if row["status"] == "failed" else row for row in rows]
    mine = [row for row in rows if row["study"] == plan.study]
    if not options.fresh:
        study.check_same()
    if options.fresh and mine:
        console.print(f"  --fresh removes the {len(mine)} runs that are there", highlight=False)
        rows = []
    elif (
        isinstance(plan, Plan)
        and (there := sum(row["phase"] == "search" for row in mine)) > plan.n_trials
    ):
        console.print(f"  {there} trials are there already, and stay", highlight=False)
    runs, epochs = plan.remaining_work(rows)
    if runs:
        searched = plan.remaining_trials(rows) if isinstance(plan, Plan) else 0
        freed = sum(study.freeable_bytes()) if options.fresh else 0
        _show_estimate(runs, epochs, searched, freed, list(prepared.values()), options)


@contextlib.contextmanager
def claimed(
    plan: PlanT,
    prepared: Mapping[str, PreparedData],
    options: Options,
) -> Iterator[StudyRecord[PlanT]]:
    """The study to itself, and known for what it is, for as long as the block runs."""
    root = options.storage
    study = StudyRecord(root, plan)
    with study.locked():
        if options.fresh:
            _remove_study(study, options.yes)
        study.claim()
        mine = study.study_rows
        if options.retry_failed:
            for row in study.rows:
                if row["status"] == "failed":
                    store.reopen(root, row["key"])
            study.refresh()
        if mine:
            count = {
                s: len([r for r in mine if r["status"] == s])
                for s in ("complete", "pruned", "running", "failed")
            }
            failed = (
                "are tried again"
                if options.retry_failed
                else "stay (--retry-failed tries them again)"
            )
            console.print(
                f"Going on with what is there: {count['complete'] + count['pruned']} runs are complete, {count['running']} "
                f"were interrupted{', ' + str(count['failed']) + ' failed and ' + failed if count['failed'] else ''}.",
                highlight=False,
            )
        yield study


def _remove_study(study: StudyRecord[Any], yes: bool) -> None:
    count = len([r for r in study.study_rows if r["status"] in execute.FINISHED])
    if count:
        ask_to_continue(
            f"--fresh removes {count} finished runs of {study.name!r} from {study.root!r}.", yes
        )
    study.remove()


def ask_to_continue(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError(f"{question} Give --yes to go on without being asked.")
    if console.input(f"{question} Go on? \\[y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError("Nothing was done.")


def _show_estimate(
    runs: int,
    epochs: int,
    searched: int,
    freed: int,
    prepared: list[PreparedData],
    options: Options,
) -> None:
    """Say what so many runs, some of them trials of a search, take; ``freed`` bytes are removed before."""
    part = max(
        prepared, key=lambda p: len(p.images.train) * p.context.base.data.image_size**2
    )  # the dearest speaks for all
    placement, base, labels = part.placement, part.context.base, len(part.images.labels)
    hours, on = training_hours(base, labels, epochs * len(part.images.train), placement)
    hours /= placement.workers
    at_once = resources.trials_at_once(placement, options.address)
    at_once = min(at_once or options.max_concurrent or 1, options.max_concurrent or at_once or 1)
    kept, state = part.checkpoint_bytes
    total = runs * kept + at_once * state
    spare = max(
        searched - at_once, 0
    )  # of a search's trials those under way keep theirs, and the best may be among them
    least = total - spare * kept
    gpus = placement.gpus * placement.workers * at_once
    text = f"  to run: {runs} runs, {epochs} epochs, on {f'{gpus:g} GPU(s)' if gpus else 'CPUs'}"
    hint = "; none of its GPUs is here to time" if gpus and "CPU" in on else ""
    console.print(
        f"{text}; about {in_hours(hours / at_once)} with {at_once} at once (by one step, timed on {on}{hint}); up to "
        f"{bytes_text(total)} of checkpoints",
        highlight=False,
    )
    limit = disk_limit(options.storage, options.max_disk)
    if limit is not None:
        room = limit - record.checkpoint_bytes(options.storage)["."] + freed
        if room < least:
            raise UserError(
                f"There is room for {bytes_text(max(room, 0))} of checkpoints in {placement.storage!r}, but {bytes_text(least)} are "
                f"needed: {at_once} runs at once take {bytes_text(at_once * state)} while they run, and each of {runs} leaves "
                f"{bytes_text(kept)}{f', which the {spare} worst trials give up' * bool(spare)}. Free some, raise --max-disk, "
                "lower --max-concurrent, or give another --storage."
            )
        if room < total:
            console.print(
                f"  only {bytes_text(room)} of checkpoints fit: those of a search's worst trials are removed on the way",
                highlight=False,
            )
    if not gpus and placement.scale == "full" and not options.dry_run:
        ask_to_continue(
            f"There is no GPU: this would take about {in_hours(hours / at_once)} on this machine's CPUs.",
            options.yes,
        )


def check_room(config: Config, labels: int, root: str, folder: str) -> None:
    """Find out whether one run's checkpoints fit.

    Args:
        folder: of the run, with what it has already.

    Raises:
        UserError: where they do not.
    """
    kept, state = checkpoint_bytes(config, labels)
    stages = bool(config.stage1.epochs) + bool(config.stage2.epochs)
    whole = kept * stages + 2 * state  # a state is written beside the one before
    needed, free = (
        max(whole - sum(storage_of.sizes(folder).values()), state),
        storage_of.free_bytes(root),
    )
    if free is not None and free < needed:
        raise UserError(
            f"{bytes_text(free)} are free in {root!r}, but the run's checkpoints take up to {bytes_text(needed)}: make room, or "
            "give another --storage."
        )
