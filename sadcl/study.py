"""A study on disk: who it is, who is at work on it, what it has reached, what it comes to."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from rich.table import Table

from sadcl import storage
from sadcl.errors import UserError
from sadcl.results import store
from sadcl.results.stats import interval
from sadcl.search.plan import Plan, Search, best, winner


def rows(root: str, plan: Plan) -> list[dict[str, Any]]:
    """The study's rows of the trials table, and each stage 1 that it starts from whoever trained it."""
    everything = _everything(root)
    mine = [row for row in everything if row["study"] == plan.study]
    starts = {row["stage1_key"] for row in mine} | {trial.key for trial in plan.decided(mine)}
    return mine + [row for row in everything if row["study"] != plan.study and row["key"] in starts]


def _everything(root: str) -> list[dict[str, Any]]:
    """The trials table; nothing where there is no store yet."""
    return store.read(root, "trials").to_pylist() if storage.exists(storage.join(root, store.FOLDER)) else []


def claim(root: str, identity: Mapping[str, Any]) -> None:
    """Write down what the study is, or find that it is the same as before.

    Raises:
        UserError: for a study of the same name that is another, with what differs.
    """
    uri = storage.join(root, "studies", f"{identity['name']}.json")
    text = json.dumps(identity, indent=1, sort_keys=True)
    if not storage.exists(uri):
        storage.write(uri, text.encode())
        return
    before = json.loads(storage.read(uri))
    here = json.loads(text)
    if different := [name for name in here if here[name] != before.get(name)]:
        changes = "; ".join(_change(name, before.get(name), here[name]) for name in different)
        raise UserError(
            f"The study {identity['name']!r} in {root!r} is another one ({changes}). Give this one another name or another "
            "--storage, or remove the former with --fresh."
        )


def _change(name: str, old: Any, new: Any) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        parts = [f for f in sorted({*old, *new}) if old.get(f) != new.get(f)]
        return "; ".join(_change(f"{name} of {f}", old.get(f, "not there"), new.get(f, "not there")) for f in parts)
    return f"{name}: {old} before, {new} now"


def names(root: str) -> list[str]:
    """The studies that have rows or were claimed."""
    claimed = {name.removesuffix(".json") for name in storage.listing(storage.join(root, "studies"), ".json")}
    return sorted(claimed | {row["study"] for row in _everything(root) if row["study"] is not None})


def parts(root: str, study: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A study's rows: those that go with it, and each stage 1 that other studies start from, which stays."""
    everything = _everything(root)
    shared = {row["stage1_key"] for row in everything if row["study"] != study}
    mine = [row for row in everything if row["study"] == study]
    return [row for row in mine if row["key"] not in shared], [row for row in mine if row["key"] in shared]


def remove(root: str, study: str) -> None:
    """Remove a study's rows, checkpoints and journal; a stage 1 that other studies start from stays."""
    for row in parts(root, study)[0]:
        kind = "stage1" if row["phase"] == "stage1" else "checkpoints"
        storage.delete(storage.join(root, kind, row["key"]))
        store.delete(root, row["key"])
    for name in (f"studies/{study}.json", f"optuna/{study}.journal"):
        storage.delete(storage.join(root, *name.split("/")))


def checkpoint_bytes(root: str) -> Counter[str]:
    """Bytes of checkpoints by the key of the run."""
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
def stopped(root: str, study: str) -> Iterator[None]:
    """Let no driver work on the study, nor on a single run of it.

    Raises:
        UserError: where one does already.
    """
    with contextlib.ExitStack() as locks:
        locks.enter_context(locked(root, study))
        for key in [row["key"] for row in _everything(root) if (row["study"], row["phase"]) == (study, "train")]:
            locks.enter_context(locked(root, key))
        yield


def with_admitted(root: str, plan: Plan) -> list[dict[str, Any]]:
    """The study's rows as :func:`rows` gives them, each with the rows a label that its last epoch admitted."""
    last: dict[str, Any] = {}
    found = rows(root, plan)
    for epoch in store.read(root, "epochs").sort_by([("stage", "ascending"), ("epoch", "ascending")]).to_pylist():
        last[epoch["key"]] = epoch["admitted"]
    return [{**row, "admitted": last.get(row["key"])} for row in found]


def summary(found: list[dict[str, Any]], search: Search) -> tuple[Table, list[str]]:
    """What a search comes to, as a table and as sentences that say no more than it shows."""
    table = Table(title="Result (mAP in percent, +- half of the 95 % interval over seeds)", title_justify="left")
    for column in ("run", "what it is", "seeds", "held-out mAP", "test mAP", "rows/label"):
        table.add_column(column, justify="left" if column in ("run", "what it is") else "right", overflow="fold")
    complete = [row for row in found if row["status"] == "complete"]
    chosen = winner(complete, search.confirm_top)
    best_key = best(complete, 1)[0]["key"] if chosen is not None else None

    def line(name: str, what: str, phase: str, arm: str, **only: Any) -> list[dict[str, Any]]:
        rows = [r for r in complete if (r["phase"], r["arm"]) == (phase, arm) and all(r[k] == v for k, v in only.items())]
        if rows:
            admitted = [r["admitted"] for r in rows if r.get("admitted") is not None]
            table.add_row(
                name,
                what,
                str(len(rows)),
                _spread([r["val_mAP"] for r in rows if r["val_mAP"] is not None]),
                _spread([r["test_mAP"] for r in rows if r["test_mAP"] is not None]),
                f"{np.mean(admitted):.1f}" if admitted else "",
            )
        return rows

    base = next((row["stage1_key"] for row in complete if row["key"] == best_key), None)
    line("baseline", "pooled network, epochs of both stages", "baseline", "baseline")
    line("stage 1", "SARL alone; the trials start from it", "stage1", "stage1", key=base)
    line("control", "stage 2 without contrasts", "baseline", "stage2")
    line("best of search", "chosen on these images: optimistic", "search", "tuned", key=best_key)
    control = line("control, confirmed", "fresh seeds, own stage 1 each", "confirm", "stage2")
    sentences = []
    if chosen is not None:
        mine = {"params": chosen["params"]}
        tuned = line("tuned, confirmed", "the best setting, same fresh seeds", "confirm", "tuned", **mine)
        final = line("tuned, final", "all training images; test used once", "final", "tuned", **mine)
        pairs = [t["val_mAP"] - c["val_mAP"] for t in tuned for c in control if t["seed"] == c["seed"]]
        if pairs:
            gain, half = interval(pairs)
            verdict = "no gain is shown" if not abs(gain) > half else "a gain" if gain > 0 else "a loss"
            band = f" +- {half:.2f} (95 %)" if half == half else ""
            over = f"{len(pairs)} paired seeds" if len(pairs) > 1 else "one seed"
            sentences.append(
                f"Contrasts against stage 2 without them: {gain:+.2f}{band} held-out mAP over {over}: {verdict}."
            )
        if final and final[0]["test_mAP"] is not None:
            full = search.published is not None and final[0]["scale"] == "full"
            beside = f"; the paper reports {search.published:.1f}" if full else ""
            sentences.append(
                f"Test mAP of the final run: {final[0]['test_mAP']:.2f} (one run, seed {final[0]['seed']}){beside}."
            )
            sentences.append(f"Its checkpoint: {final[0]['checkpoint']}")
        if tuned and all(row.get("admitted") == 0 for row in tuned):
            sentences.append("WARNING: the bank of the best setting admitted nothing: its bank.epsilon is above the scores.")
        params = ", ".join(f"{k} = {v:.4g}" if isinstance(v, float) else f"{k} = {v}" for k, v in chosen["settings"].items())
        sentences.append(f"Best setting: {params}.")
    if failed := [row for row in found if row["status"] == "failed"]:
        sentences.append(f"{len(failed)} runs failed; the first: {failed[0]['key']}: {failed[0]['cause']}")
    return table, sentences


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    mean, half = interval(values)
    return f"{mean:.2f}" if half != half else f"{mean:.2f} +- {half:.2f}"
