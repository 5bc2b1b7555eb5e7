"""What happens before a study starts: its plan is printed and checked, and its name is claimed."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sadcl import storage
from sadcl.config import Config
from sadcl.console import (
    bytes_text,
    confirm,
    console,
    count_text,
    print_text,
    resumable,
    working,
)
from sadcl.errors import UserError
from sadcl.launch.datasets import PreparedData
from sadcl.launch.estimate import checkpoint_bytes, hours_text
from sadcl.launch.features import check_feature_disk, warn_of_plain_view
from sadcl.launch.needed_seeds import needed_seeds_lines
from sadcl.launch.options import Options
from sadcl.launch.study_estimate import (
    RemainingRuns,
    check_disk,
    confirm_without_gpu,
    estimate_study,
    planned_configs,
)
from sadcl.results import store
from sadcl.search import AblationPlan, Plan
from sadcl.search.plan_text import image_warnings, plan_lines
from sadcl.study import execute
from sadcl.study.placement import Placement
from sadcl.study.record import PlanT, StudyRecord


def show_plan(
    question: str,
    plan: Plan | AblationPlan,
    prepared: Sequence[PreparedData],
    options: Options,
    changes: Sequence[str] = (),
) -> None:
    """Print a study's plan, what is left of it, and what that takes.

    Args:
        question: What the study answers.
        plan: Of the study.
        prepared: Its data sets.
        options: Those of the start.
        changes: What the start changes in the study's base, in words.

    Raises:
        UserError: For a study of the same name that is another one, for checkpoints that do not fit
            on the disk, or where hours on CPUs are declined.
    """
    console.print(f"[bold]{question or plan.study}[/bold]", highlight=False)
    show = functools.partial(print_text, wrap_piped=True)
    for part in prepared:
        show(f"study {plan.study}: {part.description()}")
    for line in (*changes, *plan_lines(plan)):
        show(line)
    num_images = {part.images.name: part.context.num_images for part in prepared}
    for line in image_warnings(num_images):
        show(f"  {line}")
    placement = prepared[0].placement
    show(f"  each run: {_resources_text(placement)}; results in {placement.storage}")
    study = StudyRecord(options.storage, plan)
    if not options.fresh:
        study.check_same()
    if isinstance(plan, AblationPlan):
        for line in needed_seeds_lines(plan, options.storage, [] if options.fresh else study.rows):
            show(line)
    remaining, freed = _remaining_runs(study, options)
    if not remaining.runs:
        return
    configs = planned_configs(plan, study.rows)
    warn_of_plain_view(configs)
    confirmed = _confirmed(plan, study.rows)
    with working("measuring the time of a step"):
        estimate = estimate_study(remaining, prepared, options, configs, confirmed)
    for line in estimate.text().splitlines():
        show(line)
    check_feature_disk(estimate.maps, placement)
    check_disk(estimate, options, placement, freed)
    if not estimate.gpus and placement.scale == "full" and not options.dry_run:
        confirm_without_gpu(estimate.hours, estimate.timed, options.yes)


def together_text(plans: Iterable[tuple[Plan, PreparedData]], options: Options) -> str:
    """What several searches still take, in one line; empty where nothing is left.

    Args:
        plans: Each search's plan with its data.
        options: Those of the start.
    """
    estimates = []
    for plan, prepared in plans:
        remaining, _ = _remaining_runs(StudyRecord(options.storage, plan), options)
        if remaining.runs:
            estimates.append(estimate_study(remaining, [prepared], options))
    if not estimates:
        return ""
    runs = sum(estimate.remaining.runs for estimate in estimates)
    epochs = sum(estimate.remaining.epochs for estimate in estimates)
    hours = sum(estimate.hours for estimate in estimates)
    return (
        f"All {count_text(len(estimates), 'search', 'searches')} together: "
        f"{count_text(runs, 'run')}, {count_text(epochs, 'epoch')}, about {hours_text(hours)}, one "
        "search after the other."
    )


def _confirmed(
    plan: Plan | AblationPlan, rows: Sequence[Mapping[str, Any]]
) -> tuple[int, Config] | None:
    """Epochs of a confirmation that trains another configuration, and that configuration."""
    if not isinstance(plan, Plan) or not plan.search.confirm_with:
        return None
    return plan.confirmation_epochs(rows), plan.base.override(plan.search.confirm_with)


def _resources_text(placement: Placement) -> str:
    workers = count_text(placement.workers, "worker")
    each = "" if placement.workers == 1 else " each"
    gpus = "1 GPU" if placement.gpus == 1 else f"{placement.gpus:g} GPUs"
    return f"{workers} with {count_text(placement.cpus, 'CPU')} and {gpus}{each}"


def _remaining_runs(study: StudyRecord[Any], options: Options) -> tuple[RemainingRuns, int]:
    """What a study still has to run, and the bytes of checkpoints that --fresh frees before."""
    plan: Plan | AblationPlan = study.plan
    rows = study.rows
    if options.retry_failed:
        rows = [{**row, "status": "running"} if row["status"] == "failed" else row for row in rows]
    study_rows = [row for row in rows if row["study"] == plan.study]
    freed = 0
    if options.fresh:
        freed = sum(study.freeable_bytes())
        if study_rows:
            print_text(f"  --fresh removes {count_text(len(study_rows), 'existing run')}")
            rows = []
    elif isinstance(plan, Plan):
        trials = sum(row["phase"] == "search" for row in study_rows)
        if trials > plan.n_trials:
            print_text(f"  the study already has {trials} trials, which all stay")
    work = plan.remaining_work(rows)
    if isinstance(plan, Plan):
        return RemainingRuns(*work, plan.remaining_trials(rows)), freed
    least = plan.least_runs(rows) if plan.ablation.until is not None else None
    return RemainingRuns(*work, 0, least), freed


@contextlib.contextmanager
def claim_study(plan: PlanT, options: Options) -> Iterator[StudyRecord[PlanT]]:
    """Keep other drivers off a study while the block runs, and record what the study is.

    Before that, ``--fresh`` removes what the study has, and ``--retry-failed`` makes its failed
    runs interrupted ones.

    Yields:
        The study, with its rows as they are then.

    Raises:
        UserError: Where another driver runs the study, where its name is that of another study, or
            where the removal of finished runs is declined.
    """
    study = StudyRecord(options.storage, plan)
    with study.locked():
        if options.fresh:
            _remove_study(study, options.yes)
        study.claim()
        if study_rows := study.study_rows:
            print_text(_resume_text(study_rows, options.retry_failed))
        if options.retry_failed:
            for row in study.rows:
                if row["status"] == "failed":
                    store.reopen(study.root, row["key"])
            study.refresh()
        with resumable(lambda: f"Stopping the study {study.name}."):
            yield study


def _resume_text(rows: Iterable[Mapping[str, Any]], retry_failed: bool) -> str:
    counts = Counter(row["status"] for row in rows)
    complete = counts["complete"] + counts["pruned"]
    parts = [f"{count_text(complete, 'run')} {'is' if complete == 1 else 'are'} complete"]
    if interrupted := counts["running"]:
        parts.append(f"{interrupted} {'was' if interrupted == 1 else 'were'} interrupted")
    if failed := counts["failed"]:
        again = "will run again" if retry_failed else "will not run again without --retry-failed"
        parts.append(f"{failed} failed and {again}")
    return f"Resuming: {', '.join(parts)}."


def _remove_study(study: StudyRecord[Any], yes: bool) -> None:
    finished = [row for row in study.study_rows if row["status"] in execute.FINISHED]
    if finished:
        runs = count_text(len(finished), "finished run")
        confirm(f"--fresh removes {runs} of the study {study.name!r} from {study.root!r}.", yes)
    study.remove()


def check_room(config: Config, num_labels: int, root: str, folder: str) -> None:
    """Check that the checkpoints of a single run fit on the disk.

    Args:
        config: What is trained.
        num_labels: Of the data set.
        root: The storage.
        folder: The run's checkpoint folder; what it already has counts as room.

    Raises:
        UserError: Where they do not fit.
    """
    checkpoint, state = checkpoint_bytes(config, num_labels)
    stages = bool(config.stage1.epochs) + bool(config.stage2.epochs)
    whole = checkpoint * stages + 2 * state  # a new state is written before the old one is removed
    needed = max(whole - sum(storage.sizes(folder).values()), state)
    free = storage.free_bytes(root)
    if free is not None and free < needed:
        raise UserError(
            f"The disk of {root!r} has {bytes_text(free)} free, but the run's checkpoints take up "
            f"to {bytes_text(needed)}. Free some space, or choose another --storage."
        )
