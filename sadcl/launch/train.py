"""Train one configuration."""

from __future__ import annotations

from typing import Any, NamedTuple

from sadcl import data, storage
from sadcl.config import Config
from sadcl.console import count_text, print_text, resumable, working
from sadcl.errors import TrialFailed, UserError, install_hook
from sadcl.launch import estimate, resources
from sadcl.launch.datasets import (
    check_parts,
    check_start,
    image_counts,
    missing_note,
    read_data,
    roots_of,
    scale_of,
)
from sadcl.launch.features import (
    check_feature_disk,
    feature_maps,
    feature_text,
    warn_of_plain_view,
)
from sadcl.launch.options import TrainOptions, parse_workers, takes_options
from sadcl.launch.outcome import Run
from sadcl.launch.setup import check_room
from sadcl.launch.study_estimate import confirm_without_gpu
from sadcl.ray_backend import environment
from sadcl.results import published_tables, store
from sadcl.search import Trial
from sadcl.search.trial import Phase, check_name
from sadcl.study import execute, record
from sadcl.study.live_table import LiveTable
from sadcl.study.placement import Placement
from sadcl.study.process import large_pages
from sadcl.study.trial_event import TrialEvent


@takes_options(TrainOptions)
@large_pages()
def train(config: Config, options: TrainOptions) -> Run:
    """Train one configuration, or resume it, and evaluate it on the test images once.

    One worker is this process, unless a cluster is joined; everything else runs under Ray Train.
    The batch size is global, so the number of workers changes nothing but the order of random
    draws; with dropout 0 and frozen BatchNorm not even that, and the metrics are equal up to
    rounding.

    Args:
        config: What to train.
        **options: those of this start.

    Returns:
        The run: its checkpoint, its metrics, its epochs as a table, and its row of the trials table
        as a mapping.

    Raises:
        UserError: For everything that can be found wrong before training.
        TrialFailed: Where training fails; the run's row has the cause.
    """
    try:
        with environment.away_in_ray_job():
            return Run(_train(config, options), storage.absolute(options.storage))
    except (UserError, TrialFailed):
        install_hook()  # Ray puts back the excepthook of when it was imported
        raise


def show_plan(config: Config, options: TrainOptions) -> None:
    """Check that a configuration can be trained, and print what that takes; nothing is written.

    Args:
        config: What would be trained.
        options: Those of the start.

    Raises:
        UserError: For everything that can be found wrong before training, except that the storage
            may turn out not to be writable.
    """
    ready = _prepare(config, options, dry_run=True)
    trial, placement = ready.trial, ready.placement
    print_text(ready.text())
    row = execute.ended_row(trial, placement)
    if row is not None and row["status"] == "complete":
        print_text(f"{trial.key} is complete already, so nothing would be trained.")
        return
    _check_room(ready)
    timed = _timed(ready)
    hours = estimate.hours_text(timed.hours / placement.workers)
    print_text(
        f"  to run: {count_text(trial.epochs, 'epoch')}, about {hours} (estimated from "
        f"{timed.step.text()}); results in {placement.storage}"
    )


class _Ready(NamedTuple):
    """A run that can start."""

    trial: Trial
    placement: Placement
    images: data.MultiLabelData
    root: str | None
    workers: tuple[int, int]

    def text(self) -> str:
        """The run with its data and workers, in one line."""
        least, most = self.workers
        workers = f"{least} to {most} workers" if most else count_text(least, "worker")
        images = f"{image_counts(self.images)}{missing_note(self.images)}"
        return f"{self.trial.key}: {self.images.name} ({images}), {workers}"


def _prepare(config: Config, options: TrainOptions, *, dry_run: bool = False) -> _Ready:
    """Read and check what a run needs."""
    check_name(options.name)
    least, most = parse_workers(options.workers)
    dataset: str = config.data.name
    root = roots_of([dataset], options.data_root).get(dataset)
    scale = scale_of(options.scale or ("demo" if dataset == "scenes" else None), root)
    environment.check_storage(options.storage, write=not dry_run)
    config = config.model_copy(update={"data": data.resolve(config.data, root)})
    placement = resources.make_placement(options, scale, root, workers=least, up_to=most)
    images = read_data(config, root)
    check_parts([config], images)
    config, start = check_start(config, images.labels)
    source = "-".join([images.digest] + [start] * bool(start))
    key = f"{options.name}-s{config.seed}-{config.digest()}-{source}"
    trial = Trial(options.name, Phase.TRAIN, "train", config, name=key)
    record.check_unlocked(options.storage, trial.key, dry_run=dry_run)
    return _Ready(trial, placement, images, root, (least, most))


def _train(config: Config, options: TrainOptions) -> dict[str, Any]:
    ready = _prepare(config, options)
    trial, placement, images = ready.trial, ready.placement, ready.images
    if (row := execute.ended_row(trial, placement)) is not None:
        if row["status"] == "complete":
            print_text(f"{trial.key} is complete already, so nothing is trained.")
            return row
        store.reopen(placement.storage, trial.key)
    _check_costs(ready, options)
    print_text(ready.text())
    with (
        record.locked(options.storage, trial.key),
        resumable(lambda: f"Stopping the training of {trial.key}."),
    ):
        if ready.workers == (1, 0) and environment.cluster_address(options.address) is None:
            return _train_here(trial, placement)
        address = environment.prepare(options.address)
        from sadcl.ray_backend import driver  # imports Ray, which then reads the environment

        witnesses = data.witness_files(images, trial.config.data, ready.root)
        return driver.run_train(trial, placement, address, witnesses)


def _check_room(ready: _Ready) -> None:
    """Check that checkpoints and feature maps fit, and print what the maps take."""
    trial, placement, images = ready.trial, ready.placement, ready.images
    config = trial.config
    maps = feature_maps([config], images)
    warn_of_plain_view([config])
    check_feature_disk(maps, placement)
    if maps.whole:
        print_text(feature_text(maps, placement, None, 0.0, 1.0))
    folder = execute.checkpoint_folder(trial, placement)
    check_room(config, len(images.labels), placement.storage, folder)


def _timed(ready: _Ready) -> estimate.TimedTraining:
    """Estimate how long one worker would train."""
    trial, images = ready.trial, ready.images
    count = trial.epochs * len(images.train)
    with working("measuring the time of a step"):
        return estimate.training_hours(trial.config, len(images.labels), count, ready.placement)


def _check_costs(ready: _Ready, options: TrainOptions) -> None:
    """Check that the files of the run fit, and ask before hours on CPUs."""
    _check_room(ready)
    if ready.placement.scale == "full" and not ready.placement.gpus:
        timed = _timed(ready)
        confirm_without_gpu(timed.hours, timed.step.text(), options.yes)


def _train_here(trial: Trial, placement: Placement) -> dict[str, Any]:
    """Train in this process."""
    events: list[TrialEvent] = []

    def drain() -> list[TrialEvent]:
        return [events.pop(0) for _ in range(len(events))]

    with LiveTable(trial.study, drain, trial.epochs):
        try:
            return execute.execute(trial, placement, events.append)
        except TrialFailed as error:
            if error.final:
                raise
            advice = "That may pass: the same command resumes from the last checkpoint."
            text = f"{str(error).rstrip('.')}. {advice}"
            raise TrialFailed(text, kind=error.kind, final=False) from error
        finally:
            published_tables.finish(placement.storage, [trial.study])
