"""Which checkpoint is meant: by its own URI, by the key of a trial, or as the best of a study."""

from __future__ import annotations

from typing import Any

from sadcl import storage
from sadcl.errors import UserError
from sadcl.results.query import show
from sadcl.results.store import nearest, read

COLUMNS = (
    *(
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
    ),
    *("model_arch", "loss_prototype_weight", "stage2_epochs"),
)


def find_checkpoint(root: str, given: str) -> str:
    """A checkpoint's URI from itself, from its folder or from the key of a trial.

    Raises:
        UserError: for an unknown key, or a trial that has no checkpoint.
    """
    if given and storage.exists(storage.join(given, "best.pt")):
        return storage.join(given, "best.pt")
    if given.endswith(".pt") or (given and storage.exists(given)):
        return given
    trial = show(root, given)
    if (uri := trial["checkpoint"]) is None:
        ended = trial["status"] in ("complete", "pruned")
        why = (
            "it gave it up for the limit of the disk (--max-disk)"
            if ended
            else f"its status is {trial['status']}"
        )
        raise UserError(f"The trial {given!r} has no checkpoint: {why}.")
    return str(uri)


def best_checkpoint(root: str, study: str | None = None) -> str:
    """Key of the trial to look into: the study's final one, else the best on held-out images that has prototypes, if any.

    Args:
        study: None is the one that was started last.

    Raises:
        UserError: for an unknown study, or one without a complete trial of SADCL.
    """
    rows = _trials(root)
    names = sorted({row["study"] for row in rows})
    if study is not None and study not in names:
        raise UserError(f"There is no study {study!r} here{nearest(study, names)}")
    complete = [
        r
        for r in rows
        if r["status"] == "complete" and r["checkpoint"] and r.get("model_arch") != "pooled"
    ]
    own = [
        row
        for row in complete
        if row["study"] == study or (study is None and row["phase"] != "stage1")
    ]
    if not own:
        raise UserError(
            f"No trial of {'any study' if study is None else repr(study)} in {root!r} is complete yet."
        )
    last = max(own, key=lambda row: row["started"])["study"]
    return str(max((row for row in own if row["study"] == last), key=_rank)["key"])


def baseline_checkpoint(root: str, given: str) -> str | None:
    """Key of the complete pooled baseline of a trial's study and data set; None without.

    Of several that of the same training images, then of the same seed.

    Args:
        given: the trial's key, or the URI of a checkpoint in a folder of that name.
    """
    if not storage.exists(storage.join(root, "tables")):
        return None
    key = given.removesuffix("/best.pt").rstrip("/").rpartition("/")[2]
    rows = _trials(root)
    trial = next((row for row in rows if row["key"] == key), None)
    if trial is None or trial.get("model_arch") == "pooled":
        return None
    like = ("study", "dataset")
    pooled = [
        r
        for r in rows
        if r["status"] == "complete" and r["checkpoint"] and r.get("model_arch") == "pooled"
    ]
    fits = [
        row
        for row in pooled
        if all(row[name] == trial[name] for name in like) and row["key"] != key
    ]
    near = ("data_digest", "seed")
    return (
        max(fits, key=lambda row: ([row[n] == trial[n] for n in near], _rank(row)))["key"]
        if fits
        else None
    )


def _trials(root: str) -> list[dict[str, Any]]:
    table = read(root, "trials")
    return table.select([name for name in COLUMNS if name in table.column_names]).to_pylist()


def _rank(row: dict[str, Any]) -> tuple[bool, bool, float]:
    prototypes = (row.get("loss_prototype_weight") or 0) > 0 and (row.get("stage2_epochs") or 0) > 0
    return row["phase"] == "final", prototypes, row["val_mAP"] or 0.0
