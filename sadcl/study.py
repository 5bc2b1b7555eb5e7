"""A study on disk: who it is, who is at work on it, what it has reached, what it comes to."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from sadcl import storage
from sadcl.errors import UserError
from sadcl.results import store
from sadcl.results.stats import interval
from sadcl.search.ablation import Comparison
from sadcl.search.plan import Plan, Search, front
from sadcl.winners import best, winner


def name_of(name: str, scale: str) -> str:
    """A study's name at a scale."""
    return name if scale == "full" else f"{name}-demo"


def rows(root: str, plan: Plan | Comparison) -> list[dict[str, Any]]:
    """The study's rows of the trials table, and each stage 1 that it starts from whoever trained it."""
    if not storage.exists(storage.join(root, store.FOLDER)):
        return []
    there = store.read(root, "trials")
    of = pc.equal(there["study"], plan.study).fill_null(False)
    mine = there.filter(of).to_pylist()
    starts = {row["stage1_key"] for row in mine} | {trial.key for trial in plan.decided(mine)}
    others = there.filter(pc.and_not(pc.is_in(there["key"], value_set=pa.array(list(starts), pa.string())), of))
    return mine + others.to_pylist()


def everything(root: str) -> list[dict[str, Any]]:
    """The trials table; nothing where there is no store yet."""
    return store.read(root, "trials").to_pylist() if storage.exists(storage.join(root, store.FOLDER)) else []


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
        storage.write(storage.join(root, "studies", f"{identity['name']}.json"), json.dumps(now, indent=1).encode())


def check_same(root: str, identity: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Find that a study is the same as before; what was written down of it, and what it is with that.

    Raises:
        UserError: for a study of the same name that is another, with what differs.
    """
    here = json.loads(json.dumps(identity))
    before = store.describe(root, identity["name"])
    if before:
        for name in GROWS:
            if name in here:
                here[name] = {**before.get(name, {}), **here[name]}
        grown = {name: {k: here[name][k] for k in before.get(name, {})} for name in GROWS if name in here}
        if different := [name for name in here if grown.get(name, here[name]) != before.get(name)]:
            changes = "; ".join(_change(name, before.get(name), grown.get(name, here[name])) for name in different)
            raise UserError(
                f"The study {identity['name']!r} in {root!r} is another one ({changes}). Give this one another name or "
                "another --storage, or remove the former with --fresh."
            )
    return before, here


def _change(name: str, old: Any, new: Any) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        parts = [f for f in sorted({*old, *new}) if old.get(f) != new.get(f)]
        return "; ".join(_change(f"{name} of {f}", old.get(f, "not there"), new.get(f, "not there")) for f in parts)
    return f"{name}: {old} before, {new} now"


def names(root: str) -> list[str]:
    """The studies that have rows or were claimed."""
    claimed = {name.removesuffix(".json") for name in storage.listing(storage.join(root, "studies"), ".json")}
    return sorted(claimed | {row["study"] for row in everything(root) if row["study"] is not None})


def parts(root: str, study: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A study's rows: those that go with it, and each stage 1 that other studies start from, which stays."""
    there = everything(root)
    shared = {row["stage1_key"] for row in there if row["study"] != study}
    mine = [row for row in there if row["study"] == study]
    return [row for row in mine if row["key"] not in shared], [row for row in mine if row["key"] in shared]


def remove(root: str, study: str) -> None:
    """Remove a study's rows, checkpoints and journal; a stage 1 that other studies start from stays."""
    rows = parts(root, study)[0]
    for row in rows:
        place = storage.join(root, "stage1" if row["phase"] == "stage1" else "checkpoints", row["key"])
        if storage.exists(place):
            # if this is cut off
            store.amend(root, row["key"], status="failed", cause="it was being removed", checkpoint=None)
            storage.delete(place)
    store.delete(root, *(row["key"] for row in rows))
    for name in (f"studies/{study}.json", f"optuna/{study}.journal", f"tensorboard/{study}"):
        storage.delete(storage.join(root, *name.split("/")))


def freed(root: str, study: str) -> list[int]:
    """Bytes of the checkpoints that go with a study, of each run that has any."""
    taken = checkpoint_bytes(root)
    return [taken[row["key"]] for row in parts(root, study)[0] if taken[row["key"]]]


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
def stopped(root: str, study: str) -> Iterator[None]:
    """Let no driver work on the study, nor on a single run of it.

    Raises:
        UserError: where one does already.
    """
    with contextlib.ExitStack() as locks:
        locks.enter_context(locked(root, study))
        for key in [row["key"] for row in everything(root) if (row["study"], row["phase"]) == (study, "train")]:
            locks.enter_context(locked(root, key))
        yield


def with_admitted(root: str, plan: Plan | Comparison) -> list[dict[str, Any]]:
    """The study's rows as :func:`rows` gives them, each with the rows a label that its last epoch admitted."""
    last: dict[str, Any] = {}
    found = rows(root, plan)
    wanted = store.read(root, "epochs", ["key", "stage", "epoch", "admitted"], keys=[row["key"] for row in found])
    for epoch in wanted.sort_by([("stage", "ascending"), ("epoch", "ascending")]).to_pylist():
        last[epoch["key"]] = epoch["admitted"]
    return [{**row, "admitted": last.get(row["key"])} for row in found]


def summary(found: list[dict[str, Any]], search: Search) -> tuple[Table, list[str]]:
    """What a search comes to, as a table and as sentences that say no more than it shows."""
    table = Table(title="Result (mAP in percent, +- half of the 95 % interval over seeds)", title_justify="left")
    for column in ("run", "what it is", "seeds", "held-out mAP", "test mAP", "rows/label"):
        table.add_column(column, justify="left" if column in ("run", "what it is") else "right", overflow="fold")
    complete = [row for row in found if row["status"] == "complete"]
    chosen = winner(complete, search.confirm_top, search.confirm_seeds)
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
    if len(search.objectives) > 1:
        for row in front(complete, search.objectives)[1:]:
            rest = ", ".join(f"{name} {row[name]:.4g}" for name in search.objectives[1:])
            line("on the front", f"no trial beats it in all: {rest}", "search", "tuned", key=row["key"])
    control = line("control, confirmed", "fresh seeds, own stage 1 each", "confirm", "stage2")
    sentences = []
    if chosen is not None:
        mine = {"params": chosen["params"]}
        tuned = line("tuned, confirmed", "the best setting, same fresh seeds", "confirm", "tuned", **mine)
        final = line("tuned, final", "all training images, once", "final", "tuned", **mine)
        full = search.published is not None and chosen["scale"] == "full"
        beside = f"; the paper reports {search.published:.1f}" if full else ""
        if tested := [row["test_mAP"] for row in tuned if row["test_mAP"] is not None]:
            over = f"{len(tested)} fresh seeds" if len(tested) > 1 else "one fresh seed"
            sentences.append(f"Answer: test mAP {_spread(tested)} over {over}, confirmed{beside}.")
        for split, name in (("val_mAP", "held-out"), ("test_mAP", "test")):
            both = [(t[split], c[split]) for t in tuned for c in control if t["seed"] == c["seed"]]
            pairs = [t - c for t, c in both if t is not None and c is not None]
            if not pairs:
                continue
            gain, half = interval(pairs)
            verdict = "no gain is shown" if not abs(gain) > half else "a gain" if gain > 0 else "a loss"
            band = f" +- {half:.2f} (95 %)" if half == half else ""
            over = f"{len(pairs)} paired seeds" if len(pairs) > 1 else "one seed"
            sentences.append(f"Contrasts against stage 2 without them: {gain:+.2f}{band} {name} mAP over {over}: {verdict}.")
        if final and final[0]["test_mAP"] is not None:
            sentences.append(
                f"Test mAP of the final run: {final[0]['test_mAP']:.2f} (one run, seed {final[0]['seed']}){beside}."
            )
            sentences.append(f"Its checkpoint: {final[0]['checkpoint']}")
        if tuned and all(row.get("admitted") == 0 for row in tuned):
            sentences.append("WARNING: the bank of the best setting admitted nothing: its bank.epsilon is above the scores.")
        params = ", ".join(f"{k} = {v:.4g}" if isinstance(v, float) else f"{k} = {v}" for k, v in chosen["settings"].items())
        sentences.append(f"Best setting: {params}.")
    if stopped := sum(row["status"] == "pruned" for row in found):
        sentences.append(f"{stopped} trials were stopped early.")
    if failed := [row for row in found if row["status"] == "failed"]:
        sentences.append(f"{len(failed)} runs failed; the first: {failed[0]['key']}: {failed[0]['cause']}")
        sentences.append("--retry-failed runs them again, with the same settings.")
    return table, sentences


def overview(root: str, studies: Mapping[str, Search]) -> Table:
    """Several searches at a glance: what each has confirmed, beside the paper's figure."""
    table = Table(title="Searches (test mAP in percent, +- half of the 95 % interval over seeds)", title_justify="left")
    for column in ("study", "data set", "trials", "confirmed", "final run", "paper"):
        table.add_column(column, justify="left" if column in ("study", "data set") else "right", overflow="fold")
    there = everything(root)
    for name, search in studies.items():
        mine = [row for row in there if row["study"] == name]
        complete = [row for row in mine if row["status"] == "complete"]
        chosen = winner(complete, search.confirm_top, search.confirm_seeds)
        by_phase: dict[str, list[float]] = {"confirm": [], "final": []}
        for row in complete:
            ours = chosen is not None and row["arm"] == "tuned" and row["params"] == chosen["params"]
            if ours and row["phase"] in by_phase and row["test_mAP"] is not None:
                by_phase[row["phase"]].append(row["test_mAP"])
        full = chosen is not None and chosen["scale"] == "full" and search.published is not None
        table.add_row(
            name,
            mine[0]["dataset"] if mine else "",
            str(sum(row["phase"] == "search" for row in mine)),
            *(_spread(values) for values in by_phase.values()),
            f"{search.published:.1f}" if full else "",
        )
    return table


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    mean, half = interval(values)
    return f"{mean:.2f}" if half != half else f"{mean:.2f} +- {half:.2f}"
