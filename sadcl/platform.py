"""Puts the parts together: a study from its plan to its summary, and one training run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from sadcl import build, data, runner, sizing, study
from sadcl import storage as storage_of
from sadcl.config import Config
from sadcl.console import Watch, console, shout, show_table
from sadcl.errors import UserError
from sadcl.launch import (
    Laid,
    Options,
    ask,
    at_work,
    check_room,
    disk_limit,
    in_hours,
    lay,
    left_out,
    load,
    roots_of,
    scale_of,
    show,
    started_from,
)
from sadcl.ray_backend import environment, preflight
from sadcl.ray_backend.disk import Disk
from sadcl.results import ablation as ablations
from sadcl.results import report, store
from sadcl.search import Ablation, Comparison, Plan, Search, Trial
from sadcl.search.space import check_setting, transfer
from sadcl.winners import winner

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
        *(storage, address, workers, gpus_per_trial, max_concurrent, trials, max_epochs, max_hours, max_disk),
        *(retry_failed, fresh, dry_run, yes),
    )
    if not isinstance(study, Search | Ablation):
        return _in_turn(list(study), data_root, scale, options)
    scale = _begun(scale, data_root, options, study.name)
    if isinstance(study, Ablation):
        return _ablation(study, data_root, scale, options)
    name: str = study.base.data.name
    plan, laid = _laid_out(study, roots_of([name], data_root).get(name), scale, options)
    if options.dry_run:
        return None
    table, sentences = _searched(plan, laid, options)
    return _told(table, sentences, plan.study, options)


def _begun(scale: str | None, data_root: Any, options: Options, what: str) -> str:
    """What every run begins with; gives its scale."""
    scale = scale_of(scale, data_root)
    if data_root is None:
        shout(
            f"no --data-root was given, so {what} runs a small network on embedded scenes. Its figures prove the "
            "path, not the science. Give --data-root for the real thing.",
            "DEMO SCALE",
        )
    if not options.dry_run:
        preflight.check_storage(options.storage)
    return scale


def _in_turn(searches: list[Search], data_root: Any, scale: str | None, options: Options) -> pa.Table | None:
    """Searches one after the other, each starting with what those before it have found; all are looked at first."""
    scale = _begun(scale, data_root, options, "each search")
    roots = roots_of([search.base.data.name for search in searches], data_root)
    ready: list[tuple[Plan, Laid]] = []
    for search in searches:
        if roots and search.base.data.name not in roots:
            shout(f"{search.name}: no --data-root {search.base.data.name}=DIR was given.", "LEFT OUT")
        else:
            ready.append(_laid_out(search, roots.get(search.base.data.name), scale, options))
    if options.dry_run:
        return None
    done: list[Search] = []
    failures = []
    for plan, laid in ready:
        search = plan.search
        found = [_found(earlier, search, scale, options.storage) for earlier in done]
        settings = {str(setting): setting for setting in found if setting}
        if settings:
            console.print(f"{search.name} first tries the best settings of the studies before it.", highlight=False)
        try:
            _searched(dataclasses.replace(plan, warm=tuple(settings.values())), laid, options)
        except UserError as error:  # the others do not depend on it
            failures.append(f"{plan.study}: {error}")
            shout(str(error), f"{plan.study} IS NOT DONE")
        done.append(search)
    names = [study.name_of(search.name, scale) for search in done]
    console.print(study.overview(options.storage, dict(zip(names, done, strict=True))))
    if failures:
        raise UserError("\n".join(failures))
    rows = store.read(options.storage, "trials")
    return rows.filter(pa.compute.is_in(rows["study"], pa.array(names)))


def _found(earlier: Search, search: Search, scale: str, storage: str) -> dict[str, Any] | None:
    """The best setting of an earlier search, in the space of another."""
    rows = study.everything(storage)
    mine = [row for row in rows if row["study"] == study.name_of(earlier.name, scale)]
    chosen = winner(mine, earlier.confirm_top, earlier.confirm_seeds)
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
    total = options.trials or (search.trials if scale == "full" else search.demo_trials)
    if total < search.confirm_top:
        raise UserError(f"trials >= {search.confirm_top} must hold, because so many are confirmed, but got {total}.")
    return dataclasses.replace(search, **changes)


def _laid_out(search: Search, root: str | None, scale: str, options: Options) -> tuple[Plan, Laid]:
    """What a search comes to here, shown."""
    search = _budgeted(search, scale, options)
    laid = lay(study.name_of(search.name, scale), search.config(scale), search.base.data.name, root, scale, options)
    total = options.trials or (search.trials if scale == "full" else search.demo_trials)
    ground = laid.ground
    plan = Plan(search, scale, ground.base, total, ground.digest, ground.whole_digest, ground.start)
    show(search.question, plan, {laid.images.name: laid}, options)
    return plan, laid


def _searched(plan: Plan, laid: Laid, options: Options) -> tuple[Any, list[str]]:
    """Run what a search lacks; gives what it comes to, as a table and as sentences."""
    search = plan.search
    with at_work(plan, {laid.images.name: laid}, options, plan.about()):
        address = environment.prepare(options.address)
        from sadcl.ray_backend import driver  # imports Ray, which reads the environment as it is now

        disk = Disk(laid.where.storage, disk_limit(options.storage, options.max_disk), *laid.checkpoint_bytes)
        driver.search(plan, laid.where, address, laid.witnesses, options.max_concurrent, disk)
    return study.summary(study.with_admitted(options.storage, plan), search)


def _ablation(ablation: Ablation, data_root: Any, scale: str, options: Options) -> pa.Table | None:
    if options.trials or options.max_epochs or options.max_hours:
        raise UserError(
            "--trials, --max-epochs and --max-hours are for searches: an ablation runs all of its arms and seeds."
        )
    bases = ablation.bases(scale)
    if data_root is not None:
        roots: Mapping[str, str | None] = roots_of(list(ablation.bases("full")), data_root)
        for name in ablation.bases("full").keys() - roots.keys():
            shout(f"{name}: no --data-root {name}=DIR was given.", "LEFT OUT")
        demo = next(iter(bases.values()), None)
        bases = {name: bases.get(name, demo) for name in roots}  # type: ignore[misc]
    else:
        roots = dict.fromkeys(bases)
    if not bases or None in bases.values():
        raise UserError(f"The ablation {ablation.name!r} has no demo: give --data-root, or a demo configuration.")
    name = study.name_of(ablation.name, scale)
    parts = [lay(name, base, known, roots[known], scale, options) for known, base in bases.items()]
    laid = {part.images.name: part for part in parts}
    if len(laid) < len(parts):
        raise UserError(
            f"The data sets {', '.join(bases)} of {ablation.name!r} are {len(laid)} only: {', '.join(laid)}. Scenes "
            "differ by data.scene_seed, which is in their name."
        )
    plan = Comparison(ablation, scale, {known: part.ground for known, part in laid.items()})
    show(ablation.question, plan, laid, options)
    if options.dry_run:
        return None
    with at_work(plan, laid, options, plan.about()):
        address = environment.prepare(options.address)
        from sadcl.ray_backend import driver  # imports Ray, which reads the environment as it is now

        wheres = {known: part.where for known, part in laid.items()}
        witnesses = {known: part.witnesses for known, part in laid.items()}
        driver.compare(plan, wheres, address, witnesses, options.max_concurrent)
    found = ablations.load(options.storage, plan.study)
    for dataset in found.datasets:
        lines = report.table(found, dataset)
        show_table(lines, list(lines[0]), f"{plan.study} on {dataset}")
    return _told(None, [*report.notes(found), *report.sentences(found)], plan.study, options)


def _told(table: Any, sentences: list[str], name: str, options: Options) -> pa.Table:
    if table is not None:
        console.print(table)
    for text in sentences:
        console.print(text, highlight=False)
    question = "top" if table is not None else "ablation"
    console.print(f"Ask the tables: sadcl results {question} --study {name} --storage {options.storage}", highlight=False)
    return store.read(options.storage, "trials").filter(pa.compute.field("study") == name)


@storage_of.away_from_start_folder()
def train(
    config: Config,
    *,
    data_root: str | None = None,
    storage: str = "runs",
    workers: int | str = 1,
    gpus_per_trial: float | None = None,
    address: str | None = None,
    name: str = "train",
    scale: str | None = None,
    yes: bool = False,
) -> dict[str, Any]:
    """Train one configuration, or what is left of it, and evaluate it on the test images once.

    One worker is this process, unless a cluster is joined; all else runs under Ray Train. The batch is global, so that the
    number of workers changes nothing but the order of chance: with dropout 0 and frozen BatchNorm not even that (then the
    figures are equal up to rounding).

    Args:
        config: what to train.
        data_root: where the data lies; None for the embedded scenes.
        storage, address: as for :func:`run`.
        workers: training processes; ``"2:8"`` takes as many of them as the cluster has room for, and goes on with another
            number when nodes come or go.
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
    least, most = sizing.workers_of(workers)
    scale = scale_of(scale or ("demo" if config.data.name == "scenes" else None), data_root)
    preflight.check_storage(storage)
    config = config.model_copy(update={"data": data.resolve(config.data, data_root)})
    where = sizing.where(storage, data_root, scale, least, gpus_per_trial, address, most)
    images = load(config, data_root)
    build.check_model(config)
    config, start = started_from(config, images.labels)
    source = "-".join([images.digest] + [start] * bool(start))
    trial = Trial(name, "train", "train", config, name=f"{name}-s{config.seed}-{config.digest()}-{source}")
    if (row := runner.finished(trial, where)) is not None:
        if row["status"] == "complete":
            console.print(f"{trial.key} is complete already; nothing is trained again.", highlight=False)
            return row
        store.reopen(where.storage, trial.key)
    check_room(config, len(images.labels), where.storage, runner.folder(trial, where))
    if scale == "full" and not where.gpus:
        hours, _ = sizing.hours(config, len(images.labels), trial.epochs * len(images.train), where)
        ask(f"There is no GPU: this would take about {in_hours(hours)} on this machine's CPUs.", yes)
    counts = f"{len(images.train):,} train, {len(images.val):,} held out, {len(images.test):,} test images"
    console.print(f"{trial.key}: {images.name}, {counts}{left_out(images)}, {workers} worker(s)", highlight=False)
    address = environment.prepare(address)
    with study.locked(storage, trial.key):
        if (least, most) == (1, 0) and address is None:
            events: list[dict[str, Any]] = []
            with Watch(name, lambda: [events.pop(0) for _ in range(len(events))], trial.epochs):
                return runner.execute(trial, where, events.append)
        from sadcl.ray_backend import driver  # imports Ray, which reads the environment as it is now

        return driver.train(trial, where, address, data.witnesses(images, config.data, data_root))
