"""The commands with which one continues after a run, as they can be pasted into a shell."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from sadcl.config import Config
from sadcl.console import print_command, print_text
from sadcl.errors import UserError
from sadcl.launch.datasets import roots_of
from sadcl.search.ranking import best_trials, ranked_trials
from sadcl.search.trial import Phase
from sadcl.study import execute, record

PICTURE = "PICTURE.jpg"
"""Stands for a picture of the user's where none of the data set's is a local file."""


def print_study_steps(study: str, storage: str, data_root: str | Mapping[str, str] | None) -> None:
    """Print how to open a study's report, look at its best trial, and predict a picture.

    Args:
        study: The study that has ended.
        storage: Root of tables and checkpoints, as it was given.
        data_root: Where the data sets are, as it was given.
    """
    report = ["sadcl", "results", "report", study, "--out", f"{study}.html", "--storage", storage]
    print_text("Next:")
    print_command("write the report, which any browser opens:", report)
    rows = [row for row in record.all_rows(storage) if row["study"] == study]
    if (best := _best_row(rows)) is not None:
        _print_trial_steps("look at the best trial:", best, storage, data_root)


def print_run_steps(
    row: Mapping[str, Any], storage: str, data_root: str | Mapping[str, str] | None
) -> None:
    """Print how to look at a single run, and how to predict a picture.

    Args:
        row: Of the trials table.
        storage, data_root: As for :func:`print_study_steps`.
    """
    print_text("Next:")
    _print_trial_steps("look at the run:", row, storage, data_root)


def _best_row(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The run that one would use: the final one of a search, or the best by the held-out images."""
    for row in rows:
        if row["phase"] == Phase.FINAL and row["status"] == "complete":
            return row
    arms = ranked_trials(row for row in rows if row["phase"] == Phase.ARM)
    return next(iter([*best_trials(rows, 1), *arms]), None)


def _print_trial_steps(
    label: str, row: Mapping[str, Any], storage: str, data_root: str | Mapping[str, str] | None
) -> None:
    key = row["key"]
    print_command(label, ["sadcl", "results", "show", key, "--storage", storage])
    if row["checkpoint"] is not None:
        picture = _picture(row, data_root)
        words = ["sadcl", "predict", picture, "--checkpoint", key, "--storage", storage]
        print_command("predict the labels of a picture:", words)


def _picture(row: Mapping[str, Any], data_root: str | Mapping[str, str] | None) -> str:
    """A test image of a run's data set where it is a local file: the first that has a label."""
    try:
        config = Config.stored(row["config"])
        root = roots_of([config.data.name], data_root).get(config.data.name)
        test = execute.cached_data(config, root).test
        path = test.path(int((test.targets == 1).any(axis=1).argmax()))
    except (UserError, OSError, LookupError, TypeError):  # the data may have gone since
        return PICTURE
    return path if os.path.isfile(path) else PICTURE
