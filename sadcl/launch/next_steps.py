"""The commands with which one continues after a run, as they can be pasted into a shell."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sadcl.config import Config
from sadcl.console import print_command, print_text
from sadcl.errors import UserError
from sadcl.launch.datasets import roots_of
from sadcl.results import store
from sadcl.search.ranking import best_trials, chosen_trial, final_run, ranked_trials
from sadcl.search.trial import Phase
from sadcl.study import execute, record

PICTURE = "PICTURE.jpg"
"""Stands for a picture of the user's where none of the data set's is a local file."""


def print_study_steps(study: str, storage: str, data_root: str | Mapping[str, str] | None) -> None:
    """Print how to open a study's report, look at the runs that count, and predict a picture.

    Of a search these are the trial whose setting was chosen and the final run with that setting; of
    an ablation it is the run with the best held-out mAP.

    Args:
        study: The study that has ended.
        storage: Root of tables and checkpoints, as it was given.
        data_root: Where the data sets are, as it was given.
    """
    report = ["sadcl", "results", "report", study, "--out", f"{study}.html", "--storage", storage]
    print_text("Next:")
    print_command("write the report, which any browser opens:", report)
    rows = [row for row in record.all_rows(storage) if row["study"] == study]
    runs = list(_runs_to_look_at(rows, store.study_record(storage, study)))
    for label, row in runs:
        _print_show(label, row, storage)
    if runs:
        _print_predict(runs[-1][1], storage, data_root)


def print_run_steps(
    row: Mapping[str, Any], storage: str, data_root: str | Mapping[str, str] | None
) -> None:
    """Print how to look at a single run, and how to predict a picture.

    Args:
        row: Of the trials table.
        storage, data_root: As for :func:`print_study_steps`.
    """
    print_text("Next:")
    _print_show("look at the run:", row, storage)
    _print_predict(row, storage, data_root)


def _runs_to_look_at(
    rows: Sequence[Mapping[str, Any]], description: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What one looks at after a study, in words, and its row; the last is the one to predict with.

    Args:
        rows: The study's, of the trials table.
        description: The content of its file.
    """
    if (chosen := chosen_trial(rows, description)) is not None:
        held_out = f"{chosen['val_mAP']:.2f}"
        best = best_trials(rows, 1)[0]["key"] == chosen["key"]
        what = "the best trial of the search" if best else "the trial whose setting was chosen"
        yield f"look at {what} (held-out mAP {held_out}):", chosen
        if (final := final_run(rows, chosen["params"])) is not None:
            yield "look at the final run, trained once on all training images:", final
            return
    for row in ranked_trials(row for row in rows if row["phase"] == Phase.ARM)[:1]:
        name = f"arm {row['arm']}, seed {row['seed']}"
        yield f"look at the run with the best held-out mAP ({name}):", row


def _print_show(label: str, row: Mapping[str, Any], storage: str) -> None:
    print_command(label, ["sadcl", "results", "show", row["key"], "--storage", storage])


def _print_predict(
    row: Mapping[str, Any], storage: str, data_root: str | Mapping[str, str] | None
) -> None:
    if row["checkpoint"] is not None:
        words = ["sadcl", "predict", _picture(row, data_root), "--checkpoint", row["key"]]
        print_command("predict the labels of a picture:", [*words, "--storage", storage])


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
