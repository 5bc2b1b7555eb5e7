"""Find the checkpoint that a user means: by URI, by the key of a trial, or the best of a study.

A row holds its checkpoint's path below the root of the store, so that the store can be moved or
copied. A row of an older version holds an absolute path, of which the part below the root counts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from sadcl import storage
from sadcl.errors import UserError
from sadcl.results import store
from sadcl.results.errors import UnknownName
from sadcl.results.query import find_key, show
from sadcl.results.status import Status

_COLUMNS = (
    "key",
    "study",
    "phase",
    "status",
    "seed",
    "dataset",
    "data_digest",
    "started",
    "checkpoint",
    "val_mAP",
    "model_arch",
    "model_head",
    "loss_prototype_weight",
    "stage2_epochs",
)


FOLDERS = ("checkpoints", "stage1")
"""Folders below the root that hold a folder of checkpoints for each run, by its key."""


def checkpoint_uri(root: str, row: Mapping[str, Any]) -> str | None:
    """Return the URI of the checkpoint that a row of the trials table names; None without one.

    Args:
        root: of the store, where it is now.
        row: with ``key`` and ``checkpoint``.
    """
    recorded = row.get("checkpoint")
    if not recorded:
        return None
    path = _below_root(str(recorded), str(row["key"]))
    return str(recorded) if path is None else storage.join(root, path)


def path_in_store(root: str, uri: str) -> str:
    """Return what a row records of a checkpoint: its path below the root, or its URI elsewhere."""
    return uri.removeprefix(storage.join(root, ""))


def _below_root(recorded: str, key: str) -> str | None:
    """Return a recorded checkpoint's path below the root; None if it is another place."""
    for folder in FOLDERS:
        _, found, file = f"/{recorded}".rpartition(f"/{folder}/{key}/")
        if found:
            return f"{folder}/{key}/{file}"
    return None


def find_checkpoint(root: str, checkpoint: str) -> str:
    """Return a checkpoint's URI.

    Args:
        root: of the store.
        checkpoint: its URI, the URI of its folder, or the key of a trial, or a part of it as
            :func:`sadcl.results.query.find_key` takes it.

    Raises:
        UnknownName: for a key that does not exist.
        UserError: for a trial that has no checkpoint.
    """
    if checkpoint and storage.exists(storage.join(checkpoint, "best.pt")):
        return storage.join(checkpoint, "best.pt")
    if checkpoint.endswith(".pt") or (checkpoint and storage.exists(checkpoint)):
        return checkpoint
    trial = show(root, checkpoint)
    uri = checkpoint_uri(root, trial)
    if uri is None:
        reason = (
            "it was deleted to stay within the disk limit (--max-disk)"
            if trial["status"] in (Status.COMPLETE, Status.PRUNED)
            else f"the status of the trial is {trial['status']}"
        )
        raise UserError(f"The trial {checkpoint!r} has no checkpoint: {reason}.")
    return uri


def best_trial_key(root: str, study: str | None = None) -> str:
    """Return the key of the study's trial of SADCL to look into.

    That is its final run, otherwise the trial with the best held-out mAP among those with
    prototypes, or among all if no trial has prototypes.

    Args:
        root: of the store.
        study: None is the one that was started last.

    Raises:
        UnknownName: for a study that does not exist.
        UserError: for a study without a complete trial of SADCL.
    """
    rows = _trials(root)
    names = sorted({row["study"] for row in rows})
    if study is not None and study not in names:
        raise UnknownName("study", study, names, repr(str(root)))
    candidates = [
        row
        for row in rows
        if _has_weights(row)
        and not _is_pooled(row)
        and (row["study"] == study or (study is None and row["phase"] != "stage1"))
    ]
    if not candidates:
        raise UserError(
            f"No trial of {'any study' if study is None else repr(study)} in {root!r} is complete "
            "yet."
        )
    last = max(candidates, key=lambda row: row["started"])["study"]
    return str(max((row for row in candidates if row["study"] == last), key=_rank)["key"])


def baseline_trial_key(root: str, checkpoint: str) -> str | None:
    """Return the key of the complete pooled baseline of a trial's study and data set, if any.

    Of several, one with the same training images is preferred, then one with the same seed.

    Args:
        root: of the store.
        checkpoint: the trial's key, or the URI of a checkpoint in a folder of that name.
    """
    if not store.is_store(root):
        return None
    key = checkpoint.removesuffix("/best.pt").rstrip("/").rpartition("/")[2]
    for text in (key, checkpoint):
        with contextlib.suppress(UserError):  # a checkpoint may be of no trial here
            key = find_key(root, text)
            break
    rows = _trials(root)
    trial = next((row for row in rows if row["key"] == key), None)
    if trial is None or _is_pooled(trial):
        return None
    baselines = [
        row
        for row in rows
        if _has_weights(row)
        and _is_pooled(row)
        and all(row[name] == trial[name] for name in ("study", "dataset"))
        and row["key"] != key
    ]
    if not baselines:
        return None

    def similarity(row: dict[str, Any]) -> tuple[list[bool], tuple[bool, bool, float, str]]:
        return [row[name] == trial[name] for name in ("data_digest", "seed")], _rank(row)

    return str(max(baselines, key=similarity)["key"])


def _trials(root: str) -> list[dict[str, Any]]:
    table = store.read(root, "trials")
    return table.select([name for name in _COLUMNS if name in table.column_names]).to_pylist()


def _has_weights(row: dict[str, Any]) -> bool:
    return row["status"] == Status.COMPLETE and bool(row["checkpoint"])


def _is_pooled(row: dict[str, Any]) -> bool:
    head = row.get("model_head") or ""
    return head.endswith(":Pooled") or row.get("model_arch") == "pooled"  # of an older version


def _rank(row: dict[str, Any]) -> tuple[bool, bool, float, str]:
    """Return what trials are ordered by.

    It is: final or not, with or without prototypes, held-out mAP, and the start, because a study
    that was extended has several final runs.
    """
    prototypes = (row.get("loss_prototype_weight") or 0) > 0 and (row.get("stage2_epochs") or 0) > 0
    return row["phase"] == "final", prototypes, row["val_mAP"] or 0.0, row["started"]
