"""What operators of the cluster see: Prometheus metrics of each worker, and lines in its own log.

Ray puts ``ray_`` before the names and adds the node's address. All metrics have the labels
``study``, ``trial`` (its key without the study) and ``rank``.
"""

from __future__ import annotations

import functools
import os
import socket
import sys
import threading

from ray.util.metrics import Gauge

from sadcl.errors import UserError
from sadcl.search.trial import Trial
from sadcl.study.trial_event import EpochEnded, TrialEnded, TrialEvent, WorkerBeat, WorkerFailed

GAUGES = {
    "sadcl_step_seconds": (
        "Seconds of a training step, with the loading of its images; mean over two seconds or more."
    ),
    "sadcl_synchronisation_seconds": (
        "Seconds of a step in which bank and prototypes gather the rows of all workers; same mean."
    ),
    "sadcl_images_per_second": "Training images per second, over all workers.",
    "sadcl_stage": "Stage that is trained, 1 or 2.",
    "sadcl_epoch": "Epoch of the stage, from 1.",
    "sadcl_loss": (
        "Mean of a loss over the last epoch; label term is total, class, sample or prototype."
    ),
    "sadcl_activated_rows": (
        "Rows that a label's bank admitted in the last epoch, mean over labels."
    ),
    "sadcl_bank_fill": "Valid rows in the bank at the end of the last epoch.",
    # a name in capitals would be served in lower case, because OpenTelemetry ignores case
    "sadcl_val_map": "mAP of the held-out images after the last epoch, in percent.",
}
_EPOCH_METRICS = {
    "images_per_second": "sadcl_images_per_second",
    "admitted": "sadcl_activated_rows",
    "bank_fill": "sadcl_bank_fill",
    "val_mAP": "sadcl_val_map",
}
"""Gauges by the names of an epoch's metrics."""
_values: dict[str, dict[str, float]] = {}
"""Values of this process's trials; each beat sets them again, because Ray forgets idle gauges."""
_lock = threading.Lock()
HANG_SECONDS_VARIABLE = "SADCL_HANG_SECONDS"


def hang_seconds() -> float:
    """Return the seconds without a beat, or without a step, after which a trial counts as hanging.

    Returns:
        From the variable ``SADCL_HANG_SECONDS``, 300 by default; 0 reports no hanging trial.

    Raises:
        UserError: For a value that is no number of seconds.
    """
    text = os.environ.get(HANG_SECONDS_VARIABLE, "300")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UserError(
            f"{HANG_SECONDS_VARIABLE} = {text!r} is not a number of seconds. 0 reports no hanging "
            "step; the default is 300."
        )
    return seconds


def record(trial: Trial, event: TrialEvent) -> None:
    """Record an event of a trial in the worker that it comes from."""
    rank = event.rank if isinstance(event, WorkerBeat | WorkerFailed) else 0
    tags = {
        "study": trial.study,
        "trial": trial.key.removeprefix(f"{trial.study}-"),
        "rank": str(rank),
    }
    ends = isinstance(event, TrialEnded) or (isinstance(event, WorkerBeat) and event.last)
    with _lock:
        values = {**_values.pop(trial.key, {}), **_gauge_values(trial, event)}
        if not ends:
            _values[trial.key] = values
    for name, value in values.items():
        gauge, _, term = name.partition(":")
        _gauge(gauge).set(value, tags={**tags, "term": term} if gauge == "sadcl_loss" else tags)
    if (line := _log_line(event)) is not None:
        # not printed: Train would log it twice
        sys.stderr.write(f"{trial.key} rank {rank} on {socket.gethostname()}: {line}\n")
        sys.stderr.flush()


def _gauge_values(trial: Trial, event: TrialEvent) -> dict[str, float]:
    """Return an event's values by gauge; that of a loss has its term after a colon."""
    values: dict[str, float] = {}
    if isinstance(event, WorkerBeat):
        if event.step_seconds is not None:
            values["sadcl_step_seconds"] = event.step_seconds
        if event.synchronisation_seconds is not None:
            values["sadcl_synchronisation_seconds"] = event.synchronisation_seconds
        if event.rank == 0 and event.step_seconds is not None:
            values["sadcl_images_per_second"] = trial.config.optim.batch_size / max(
                event.step_seconds, 1e-9
            )
        if event.rank == 0 and event.stage:
            values |= {"sadcl_stage": event.stage, "sadcl_epoch": event.epoch}
    elif isinstance(event, EpochEnded):
        values |= {"sadcl_stage": event.stage, "sadcl_epoch": event.epoch}
        for name, value in event.metrics.items():
            if name.startswith("loss"):
                values[f"sadcl_loss:{name[5:] or 'total'}"] = value
            elif name in _EPOCH_METRICS:
                values[_EPOCH_METRICS[name]] = value
    return values


def _log_line(event: TrialEvent) -> str | None:
    if isinstance(event, EpochEnded):
        names = ("loss", "val_mAP", "images_per_second", "seconds")
        shown = {name: event.metrics.get(name) for name in names}
        text = ", ".join(
            f"{name} {value:.4g}" for name, value in shown.items() if value is not None
        )
        return f"stage {event.stage} epoch {event.epoch}/{event.epochs}: {text}"
    if isinstance(event, WorkerFailed) or (
        isinstance(event, TrialEnded) and event.status == "failed"
    ):
        return f"ERROR: {event.cause}"
    return None


@functools.cache
def _gauge(name: str) -> Gauge:
    return Gauge(
        name,
        GAUGES[name],
        tag_keys=("study", "trial", "rank", *(("term",) if name == "sadcl_loss" else ())),
    )
