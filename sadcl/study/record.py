"""A study on disk: what it is, who works on it, what it has reached."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sadcl import storage
from sadcl.errors import UserError
from sadcl.results import store
from sadcl.search.ablation import AblationPlan
from sadcl.search.plan import Plan


def study_name(name: str, scale: str) -> str:
    """A study's name at a scale."""
    return name if scale == "full" else f"{name}-demo"


def study_rows(root: str, plan: Plan | AblationPlan) -> list[dict[str, Any]]:
    """The study's rows of the trials table, and each stage 1 that it starts from whoever trained it."""
    if not storage.exists(storage.join(root, store.TABLES_FOLDER)):
        return []
    there = store.read(root, "trials")
    of = pc.equal(there["study"], plan.study).fill_null(False)
    mine = there.filter(of).to_pylist()
    starts = {row["stage1_key"] for row in mine} | {trial.key for trial in plan.decided(mine)}
    others = there.filter(
        pc.and_not(pc.is_in(there["key"], value_set=pa.array(list(starts), pa.string())), of)
    )
    return mine + others.to_pylist()


def all_rows(root: str) -> list[dict[str, Any]]:
    """The trials table; nothing where there is no store yet."""
    return (
        store.read(root, "trials").to_pylist()
        if storage.exists(storage.join(root, store.TABLES_FOLDER))
        else []
    )


GROWS = ("arms", "datasets")
"""Parts of a study to which something may be added later."""


def claim(root: str, identity: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> None:
    """Write down what the study is, or find that it is the same as before.

    Args:
        about: what readers have to know besides; it may change.

    Raises:
        UserError: for a study of the same name that is another, with what differs.
    """
    storage.sweep(storage.join(root, "studies"), f"{identity['name']}.json")
    before, here = check_same(root, identity)
    now = {**here, **json.loads(json.dumps(about or {}))}
    if now != before:
        storage.write(
            storage.join(root, "studies", f"{identity['name']}.json"),
            json.dumps(now, indent=1).encode(),
        )


def check_same(root: str, identity: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Find that a study is the same as before; what was written down of it, and what it is with that.

    Raises:
        UserError: for a study of the same name that is another, with what differs.
    """
    here = json.loads(json.dumps(identity))
    before = store.study_record(root, identity["name"])
    if before:
        for name in GROWS:
            if name in here:
                here[name] = {**before.get(name, {}), **here[name]}
        grown = {
            name: {k: here[name][k] for k in before.get(name, {})} for name in GROWS if name in here
        }
        if different := [name for name in here if grown.get(name, here[name]) != before.get(name)]:
            changes = "; ".join(
                _change(name, before.get(name), grown.get(name, here[name])) for name in different
            )
            raise UserError(
                f"The study {identity['name']!r} in {root!r} is another one ({changes}). Give this one another name or "
                "another --storage, or remove the former with --fresh."
            )
    return before, here


def _change(name: str, old: Any, new: Any) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        parts = [f for f in sorted({*old, *new}) if old.get(f) != new.get(f)]
        return "; ".join(
            _change(f"{name} of {f}", old.get(f, "not there"), new.get(f, "not there"))
            for f in parts
        )
    return f"{name}: {old} before, {new} now"


def study_names(root: str) -> list[str]:
    """The studies that have rows or were claimed."""
    claimed = {
        name.removesuffix(".json")
        for name in storage.listing(storage.join(root, "studies"), ".json")
    }
    return sorted(claimed | {row["study"] for row in all_rows(root) if row["study"] is not None})


def split_rows(root: str, study: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A study's rows: those that go with it, and each stage 1 that other studies start from, which stays."""
    there = all_rows(root)
    shared = {row["stage1_key"] for row in there if row["study"] != study}
    mine = [row for row in there if row["study"] == study]
    return [row for row in mine if row["key"] not in shared], [
        row for row in mine if row["key"] in shared
    ]


def remove_study(root: str, study: str) -> None:
    """Remove a study's rows, checkpoints and journal; a stage 1 that other studies start from stays."""
    rows = split_rows(root, study)[0]
    for row in rows:
        place = storage.join(
            root, "stage1" if row["phase"] == "stage1" else "checkpoints", row["key"]
        )
        if storage.exists(place):
            # if this is cut off
            store.amend(
                root, row["key"], status="failed", cause="it was being removed", checkpoint=None
            )
            storage.delete(place)
    store.delete(root, *(row["key"] for row in rows))
    for name in (f"studies/{study}.json", f"optuna/{study}.journal", f"tensorboard/{study}"):
        storage.delete(storage.join(root, *name.split("/")))


def freeable_bytes(root: str, study: str) -> list[int]:
    """Bytes of the checkpoints that go with a study, of each run that has any."""
    taken = checkpoint_bytes(root)
    return [taken[row["key"]] for row in split_rows(root, study)[0] if taken[row["key"]]]


def checkpoint_bytes(root: str) -> Counter[str]:
    """Bytes of checkpoints by the key of the run; those of all are under a dot."""
    taken: Counter[str] = Counter()
    for kind in ("checkpoints", "stage1"):
        for path, size in storage.sizes(storage.join(root, kind)).items():
            taken.update({str(folder): size for folder in PurePosixPath(path).parents})
    return taken


@contextlib.contextmanager
def locked(root: str, study: str) -> Iterator[None]:
    """Let no second driver work on the study (on local storage; object stores have no locks).

    Raises:
        UserError: where one does already.
    """
    with storage.exclusive(storage.join(root, "studies", f".{study}.lock"), wait=False) as alone:
        if not alone:
            raise UserError(
                f"Another process is at work on the study {study!r} in {root!r}. Wait for it, or stop it first; two would "
                "train the same trials."
            )
        yield


@contextlib.contextmanager
def exclusive_runs(root: str, study: str) -> Iterator[None]:
    """Let no driver work on the study, nor on a single run of it.

    Raises:
        UserError: where one does already.
    """
    with contextlib.ExitStack() as locks:
        locks.enter_context(locked(root, study))
        for key in [
            row["key"] for row in all_rows(root) if (row["study"], row["phase"]) == (study, "train")
        ]:
            locks.enter_context(locked(root, key))
        yield


def rows_with_admitted(root: str, plan: Plan | AblationPlan) -> list[dict[str, Any]]:
    """The study's rows as :func:`rows` gives them, each with the rows a label that its last epoch admitted."""
    last: dict[str, Any] = {}
    found = study_rows(root, plan)
    wanted = store.read(
        root, "epochs", ["key", "stage", "epoch", "admitted"], keys=[row["key"] for row in found]
    )
    for epoch in wanted.sort_by([("stage", "ascending"), ("epoch", "ascending")]).to_pylist():
        last[epoch["key"]] = epoch["admitted"]
    return [{**row, "admitted": last.get(row["key"])} for row in found]
