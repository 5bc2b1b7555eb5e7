"""Run a study from its plan to its summary."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from sadcl import storage as storage_of
from sadcl.console import banner, console, show_table
from sadcl.errors import UserError
from sadcl.launch.datasets import PreparedData, prepare_data, roots_of, scale_of
from sadcl.launch.estimate import disk_limit
from sadcl.launch.options import Options
from sadcl.launch.setup import claimed, show_plan
from sadcl.ray_backend import environment
from sadcl.reports import ablation as ablations
from sadcl.reports import ablation_text, search_summary
from sadcl.results import store
from sadcl.search import Ablation, AblationPlan, Plan, Search
from sadcl.search.ranking import winning_trial
from sadcl.search.settings import check_setting, transfer
from sadcl.search.trial import study_name
from sadcl.study import record
from sadcl.study.checkpoint_quota import CheckpointQuota

Study = Search | Ablation


@storage_of.away_from_start_folder()
def run(
    study: Study | Sequence[Search],
    *,
    data_root: str | Mapping[str, str] | None = None,
    storage: str = "runs",
    address: str | None = None,
    workers: int = 1,
    gpus_per_trial: float | None = None,
    max_concurrent: int | None = None,
    trials: int | None = None,
    max_epochs: int | None = None,
    max_hours: float | None = None,
    max_disk: float | None = None,
    scale: str | None = None,
    retry_failed: bool = False,
    fresh: bool = False,
    dry_run: bool = False,
    yes: bool = False,
) -> pa.Table | None:
    """Run a study, or what is left of it: the same call goes on where an interrupted one stopped.

    Args:
        study: what to find out; of several searches each starts with the best settings of those before it.
        data_root: where the data lies, for several data sets by ``data.name``; those that have no place are left out. None
            runs at demo scale on the embedded scenes.
        storage: root of tables and checkpoints: a folder, s3://... or gs://...
        address: of a Ray cluster; None takes RAY_ADDRESS, else starts a private one on this machine.
        workers: training processes of a trial.
        gpus_per_trial: GPUs of each worker, also a part of one; None takes one where there is any.
        max_concurrent: trials at once; None as many as fit.
        trials, max_epochs, max_hours: budget of the whole search; None takes the search's own.
        max_disk: GB of checkpoints below the storage; a search removes those of its worst trials to stay below.
        scale: ``demo`` or ``full``; None is full where there is a data root.
        retry_failed: run again what failed, with the same settings and keys.
        fresh: remove what the study has and start anew.
        dry_run: say what would be done, and stop.
        yes: ask nothing.

    Returns:
        The rows of the trials table of the study, or of all; None after a dry run.

    Raises:
        UserError: for whatever can be known to be wrong before trials start, and where no trial succeeds.
    """
    options = Options(
        *(
            storage,
            address,
            workers,
            gpus_per_trial,
            max_concurrent,
            trials,
            max_epochs,
            max_hours,
            max_disk,
        ),
        *(retry_failed, fresh, dry_run, yes),
    )
    if not isinstance(study, Search | Ablation):
        return _run_searches(list(study), data_root, scale, options)
    scale = _start(scale, data_root, options, study.name)
    if isinstance(study, Ablation):
        return _run_ablation(study, data_root, scale, options)
    name: str = study.base.data.name
    plan, prepared = _prepared_search(study, roots_of([name], data_root).get(name), scale, options)
    if options.dry_run:
        return None
    table, sentences = _run_search(plan, prepared, options)
    return _print_result(table, sentences, plan.study, options)


def _start(scale: str | None, data_root: Any, options: Options, what: str) -> str:
    """What every run begins with; gives its scale."""
    scale = scale_of(scale, data_root)
    if data_root is None:
        banner(
            f"no --data-root was given, so {what} runs a small network on embedded scenes. Its figures prove the "
            "path, not the science. Give --data-root for the real thing.",
            "DEMO SCALE",
        )
    if not options.dry_run:
        environment.check_storage(options.storage)
    return scale


def _run_searches(
    searches: list[Search], data_root: Any, scale: str | None, options: Options
) -> pa.Table | None:
    """Searches one after the other, each starting with what those before it have found; all are looked at first."""
    scale = _start(scale, data_root, options, "each search")
    roots = roots_of([search.base.data.name for search in searches], data_root)
    ready: list[tuple[Plan, PreparedData]] = []
    for search in searches:
        if roots and search.base.data.name not in roots:
            banner(
                f"{search.name}: no --data-root {search.base.data.name}=DIR was given.", "LEFT OUT"
            )
        else:
            ready.append(_prepared_search(search, roots.get(search.base.data.name), scale, options))
    if options.dry_run:
        return None
    done: list[Search] = []
    failures = []
    for plan, prepared in ready:
        search = plan.search
        found = [_transferable(earlier, search, scale, options.storage) for earlier in done]
        settings = {str(setting): setting for setting in found if setting}
        if settings:
            console.print(
                f"{search.name} first tries the best settings of the studies before it.",
                highlight=False,
            )
        try:
            _run_search(
                dataclasses.replace(plan, warm_start=tuple(settings.values())), prepared, options
            )
        except UserError as error:  # the others do not depend on it
            failures.append(f"{plan.study}: {error}")
            banner(str(error), f"{plan.study} IS NOT DONE")
        done.append(search)
    names = [study_name(search.name, scale) for search in done]
    console.print(
        search_summary.overview(
            record.all_rows(options.storage), dict(zip(names, done, strict=True))
        )
    )
    if failures:
        raise UserError("\n".join(failures))
    rows = store.read(options.storage, "trials")
    return rows.filter(pa.compute.is_in(rows["study"], pa.array(names)))


def _transferable(
    earlier: Search, search: Search, scale: str, storage: str
) -> dict[str, Any] | None:
    """The best setting of an earlier search, in the space of another."""
    rows = record.all_rows(storage)
    mine = [row for row in rows if row["study"] == study_name(earlier.name, scale)]
    chosen = winning_trial(mine, earlier.confirm_top, earlier.confirm_seeds)
    if chosen is None:
        return None
    setting = transfer(chosen["settings"], earlier.space_at(scale), search.space_at(scale))
    try:
        check_setting(search.space_at(scale), setting, search.config(scale))
    except UserError:
        return None
    return setting or None


def _budgeted(search: Search, scale: str, options: Options) -> Search:
    changes: dict[str, Any] = {
        "max_epochs": options.max_epochs or search.max_epochs,
        "max_hours": options.max_hours or search.max_hours,
    }
    total = options.trials or search.trials_at(scale)
    if total < search.confirm_top:
        raise UserError(
            f"trials >= {search.confirm_top} must hold, because so many are confirmed, but got {total}."
        )
    return dataclasses.replace(search, **changes)


def _prepared_search(
    search: Search, root: str | None, scale: str, options: Options
) -> tuple[Plan, PreparedData]:
    """What a search comes to here, shown."""
    search = _budgeted(search, scale, options)
    prepared = prepare_data(
        study_name(search.name, scale),
        search.config(scale),
        search.base.data.name,
        root,
        scale,
        options,
    )
    total = options.trials or search.trials_at(scale)
    context = prepared.context
    plan = Plan(
        search, scale, context.base, total, context.digest, context.whole_digest, context.start
    )
    show_plan(search.question, plan, {prepared.images.name: prepared}, options)
    return plan, prepared


def _run_search(plan: Plan, prepared: PreparedData, options: Options) -> tuple[Any, list[str]]:
    """Run what a search lacks; gives what it comes to, as a table and as sentences."""
    search = plan.search
    with claimed(plan, {prepared.images.name: prepared}, options) as study:
        address = environment.prepare(options.address)
        from sadcl.ray_backend import (
            driver,  # imports Ray, which reads the environment as it is now
        )

        disk = CheckpointQuota(
            prepared.placement.storage,
            disk_limit(options.storage, options.max_disk),
            *prepared.checkpoint_bytes,
        )
        driver.run_search(
            study, prepared.placement, address, prepared.witnesses, options.max_concurrent, disk
        )
    study.refresh()
    return search_summary.summary(study.rows_with_admitted(), search)


def _run_ablation(
    ablation: Ablation, data_root: Any, scale: str, options: Options
) -> pa.Table | None:
    if options.trials or options.max_epochs or options.max_hours:
        raise UserError(
            "--trials, --max-epochs and --max-hours are for searches: an ablation runs all of its arms and seeds."
        )
    bases = ablation.bases(scale)
    if data_root is not None:
        roots: Mapping[str, str | None] = roots_of(list(ablation.bases("full")), data_root)
        for name in ablation.bases("full").keys() - roots.keys():
            banner(f"{name}: no --data-root {name}=DIR was given.", "LEFT OUT")
        demo = next(iter(bases.values()), None)
        bases = {name: bases.get(name, demo) for name in roots}  # type: ignore[misc]
    else:
        roots = dict.fromkeys(bases)
    if not bases or None in bases.values():
        raise UserError(
            f"The ablation {ablation.name!r} has no demo: give --data-root, or a demo configuration."
        )
    name = study_name(ablation.name, scale)
    parts = [
        prepare_data(name, base, known, roots[known], scale, options)
        for known, base in bases.items()
    ]
    prepared = {part.images.name: part for part in parts}
    if len(prepared) < len(parts):
        raise UserError(
            f"The data sets {', '.join(bases)} of {ablation.name!r} are {len(prepared)} only: {', '.join(prepared)}. Scenes "
            "differ by data.scene_seed, which is in their name."
        )
    plan = AblationPlan(ablation, scale, {known: part.context for known, part in prepared.items()})
    show_plan(ablation.question, plan, prepared, options)
    if options.dry_run:
        return None
    with claimed(plan, prepared, options) as study:
        address = environment.prepare(options.address)
        from sadcl.ray_backend import (
            driver,  # imports Ray, which reads the environment as it is now
        )

        placements = {known: part.placement for known, part in prepared.items()}
        witnesses = {known: part.witnesses for known, part in prepared.items()}
        driver.run_ablation(study, placements, address, witnesses, options.max_concurrent)
    found = ablations.ablation_report(options.storage, plan.study)
    for dataset in found.datasets:
        lines = ablation_text.ablation_table(found, dataset)
        show_table(lines, list(lines[0]), f"{plan.study} on {dataset}")
    return _print_result(
        None,
        [*ablation_text.ablation_notes(found), *ablation_text.ablation_sentences(found)],
        plan.study,
        options,
    )


def _print_result(table: Any, sentences: list[str], name: str, options: Options) -> pa.Table:
    if table is not None:
        console.print(table)
    for text in sentences:
        console.print(text, highlight=False)
    question = "top" if table is not None else "ablation"
    console.print(
        f"Ask the tables: sadcl results {question} --study {name} --storage {options.storage}",
        highlight=False,
    )
    return store.read(options.storage, "trials").filter(pa.compute.field("study") == name)
