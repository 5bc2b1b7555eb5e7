"""What whoever runs the cluster sees: Prometheus metrics of each worker, and lines in its own log.

Ray puts ``ray_`` before the names and adds the node's address; all have the labels ``study``, ``trial`` (its key without
the study) and ``rank``.
"""

from __future__ import annotations

import functools
import os
import socket
import sys
import threading
from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Gauge

from sadcl.errors import UserError
from sadcl.search.trial import Trial

GAUGES = {
    "sadcl_step_seconds": "Seconds of a training step with the loading of its images; mean over two seconds or more.",
    "sadcl_synchronisation_seconds": "Seconds of a step in which bank and prototypes gather all workers' rows; same mean.",
    "sadcl_images_per_second": "Training images a second, all workers together.",
    "sadcl_stage": "Stage that is trained, 1 or 2.",
    "sadcl_epoch": "Epoch of the stage, from 1.",
    "sadcl_loss": "Mean over the last epoch of a loss; label term is total, class, sample or prototype.",
    "sadcl_activated_rows": "Rows that a label's bank admitted in the last epoch, mean over labels.",
    "sadcl_bank_fill": "Valid rows in the bank at the end of the last epoch.",
    "sadcl_val_map": "mAP of the held-out part after the last epoch, in percent.",
}
# a name in capitals would be served in small letters: OpenTelemetry knows no difference
_OF_EPOCH = {
    "images_per_second": "images_per_second",
    "admitted": "activated_rows",
    "bank_fill": "bank_fill",
}
_FIGURES: dict[str, dict[str, float]] = {}
"""What is known of the trials of this process; each beat says it again, because Ray forgets what it no longer hears."""
_LOCK = threading.Lock()
HANG_SECONDS_VARIABLE = "SADCL_HANG_SECONDS"


def hang_seconds() -> float:
    """Seconds without a sign of a worker, or without a step, after which a trial is said to hang; 0 never says so.

    Raises:
        UserError: for something else.
    """
    text = os.environ.get(HANG_SECONDS_VARIABLE, "300")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UserError(
            f"{HANG_SECONDS_VARIABLE} = {text!r} is not a number of seconds; 0 reports no hanging step, the default is 300."
        )
    return seconds


def record(trial: Trial, event: Mapping[str, Any]) -> None:
    """Record what an event of a trial says, in the worker that it comes from."""
    tags = {
        "study": trial.study,
        "trial": trial.key.removeprefix(f"{trial.study}-"),
        "rank": str(event.get("rank", 0)),
    }
    with _LOCK:
        figures = {**_FIGURES.pop(trial.key, {}), **_figures(trial, event)}
        if not event.get("left") and event.get("status") not in ("complete", "pruned", "failed"):
            _FIGURES[trial.key] = figures
    for name, value in figures.items():
        gauge, _, term = name.partition(":")
        _gauge(gauge).set(value, tags={**tags, "term": term} if gauge == "sadcl_loss" else tags)
    if (line := _line(event)) is not None:
        host = socket.gethostname()
        sys.stderr.write(
            f"{trial.key} rank {tags['rank']} on {host}: {line}\n"
        )  # what is printed Train would log twice
        sys.stderr.flush()


def _figures(trial: Trial, event: Mapping[str, Any]) -> dict[str, float]:
    """Gauges by name; those of a loss with their term behind a colon."""
    found = {
        f"sadcl_{name}": event[name]
        for name in ("step_seconds", "synchronisation_seconds")
        if name in event
    }
    if event.get("rank", 0) != 0:
        return found
    if "step_seconds" in event:
        found["sadcl_images_per_second"] = trial.config.optim.batch_size / max(
            event["step_seconds"], 1e-9
        )
    found.update({f"sadcl_{name}": event[name] for name in ("stage", "epoch") if name in event})
    for name, value in event.get("metrics", {}).items():
        if name.startswith("loss"):
            found[f"sadcl_loss:{name[5:] or 'total'}"] = value
        elif name in _OF_EPOCH:
            found[f"sadcl_{_OF_EPOCH[name]}"] = value
        elif name == "val_mAP":
            found["sadcl_val_map"] = value
    return found


def _line(event: Mapping[str, Any]) -> str | None:
    if "metrics" in event:
        shown = {
            name: event["metrics"].get(name)
            for name in ("loss", "val_mAP", "images_per_second", "seconds")
        }
        figures = ", ".join(
            f"{name} {value:.4g}" for name, value in shown.items() if value is not None
        )
        return f"stage {event['stage']} epoch {event['epoch']}/{event['epochs']}: {figures}"
    if "error" in event or event.get("status") == "failed":
        return f"ERROR: {event.get('error') or event['cause']}"
    return None


@functools.cache
def _gauge(name: str) -> Gauge:
    return Gauge(
        name,
        GAUGES[name],
        tag_keys=("study", "trial", "rank", *(("term",) if name == "sadcl_loss" else ())),
    )
