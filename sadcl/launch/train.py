"""Train one configuration."""

from __future__ import annotations

from typing import Any

from sadcl import build, data
from sadcl import storage as storage_of
from sadcl.config import Config
from sadcl.console import console
from sadcl.launch import estimate, resources
from sadcl.launch.datasets import missing_note, read_data, scale_of, started_from
from sadcl.launch.estimate import in_hours
from sadcl.launch.options import parse_workers
from sadcl.launch.setup import ask_to_continue, check_room
from sadcl.ray_backend import environment
from sadcl.results import store
from sadcl.search import Phase, Trial
from sadcl.study import execute, record
from sadcl.study.live_table import LiveTable
from sadcl.study.trial_event import TrialEvent


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
    least, most = parse_workers(workers)
    scale = scale_of(scale or ("demo" if config.data.name == "scenes" else None), data_root)
    environment.check_storage(storage)
    config = config.model_copy(update={"data": data.resolve(config.data, data_root)})
    placement = resources.make_placement(
        storage, data_root, scale, least, gpus_per_trial, address, most
    )
    images = read_data(config, data_root)
    build.check_model(config)
    config, start = started_from(config, images.labels)
    source = "-".join([images.digest] + [start] * bool(start))
    trial = Trial(
        name, Phase.TRAIN, "train", config, name=f"{name}-s{config.seed}-{config.digest()}-{source}"
    )
    if (row := execute.ended_row(trial, placement)) is not None:
        if row["status"] == "complete":
            console.print(
                f"{trial.key} is complete already; nothing is trained again.", highlight=False
            )
            return row
        store.reopen(placement.storage, trial.key)
    check_room(
        config, len(images.labels), placement.storage, execute.checkpoint_folder(trial, placement)
    )
    if scale == "full" and not placement.gpus:
        hours, _ = estimate.training_hours(
            config, len(images.labels), trial.epochs * len(images.train), placement
        )
        ask_to_continue(
            f"There is no GPU: this would take about {in_hours(hours)} on this machine's CPUs.", yes
        )
    counts = f"{len(images.train):,} train, {len(images.val):,} held out, {len(images.test):,} test images"
    console.print(
        f"{trial.key}: {images.name}, {counts}{missing_note(images)}, {workers} worker(s)",
        highlight=False,
    )
    address = environment.prepare(address)
    with record.locked(storage, trial.key):
        if (least, most) == (1, 0) and address is None:
            events: list[TrialEvent] = []
            with LiveTable(name, lambda: [events.pop(0) for _ in range(len(events))], trial.epochs):
                return execute.execute(trial, placement, events.append)
        from sadcl.ray_backend import (
            driver,  # imports Ray, which reads the environment as it is now
        )

        return driver.run_train(
            trial, placement, address, data.witness_files(images, config.data, data_root)
        )
