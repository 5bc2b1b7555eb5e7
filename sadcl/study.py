"""A study on disk: who it is, who is at work on it, what it has reached, what it comes to."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow import fs
from rich.table import Table
from scipy import stats

from sadcl import storage
from sadcl.errors import UserError
from sadcl.results import store


def rows(root: str, study: str) -> list[dict[str, Any]]:
    """The study's rows of the trials table; none where there is no store yet."""
    if not storage.exists(storage.join(root, store.FOLDER)):
        return []
    return [row for row in store.read(root, "trials").to_pylist() if row["study"] == study]


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
        changes = "; ".join(f"{name}: {before.get(name)} before, {here[name]} now" for name in different)
        raise UserError(
            f"The study {identity['name']!r} in {root!r} is another one ({changes}). Give this one another name or another "
            "--storage, or remove the former with --fresh."
        )


def remove(root: str, study: str) -> None:
    """Remove a study's rows, checkpoints and journal; stage-1 checkpoints that other studies share stay."""
    for row in rows(root, study):
        if row["phase"] != "stage1":
            storage.delete(storage.join(root, "checkpoints", row["key"]))
            store.delete(root, row["key"])
    for name in (f"studies/{study}.json", f"optuna/{study}.journal"):
        storage.delete(storage.join(root, *name.split("/")))


@contextlib.contextmanager
def locked(root: str, study: str) -> Iterator[None]:
    """Let no second driver work on the study (on local storage; object stores have no locks).

    Raises:
        UserError: where one does already.
    """
    system, path = storage.resolve(root)
    if not isinstance(system, fs.LocalFileSystem):
        yield
        return
    file = Path(path) / "studies" / f".{study}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"Another process is at work on the study {study!r} in {root!r}. Wait for it, or stop it first; two would "
                "train the same trials."
            ) from None
        yield


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval (Student's t over seeds); nan for one value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan")
    return mean, float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


def summary(study: list[dict[str, Any]], published: float | None) -> tuple[Table, list[str]]:
    """What a search comes to, as a table and as sentences that say no more than it shows."""
    table = Table(title="Result", title_justify="left")
    for column in ("run", "seeds", "held-out mAP", "test mAP", "rows/label", "what it is"):
        table.add_column(column, justify="right" if "mAP" in column or column in ("seeds", "rows/label") else "left")
    complete = [row for row in study if row["status"] == "complete"]

    def line(name: str, phase: str, arm: str, what: str) -> list[dict[str, Any]]:
        found = sorted((r for r in complete if (r["phase"], r["arm"]) == (phase, arm)), key=lambda r: r["seed"])
        if phase == "search":
            found = sorted(found, key=lambda r: -r["val_mAP"])[:1]
        if found:
            rows_a_label = [r["admitted"] for r in found if r.get("admitted") is not None]
            table.add_row(
                name,
                str(len(found)),
                _spread([r["val_mAP"] for r in found if r["val_mAP"] is not None]),
                _spread([r["test_mAP"] for r in found if r["test_mAP"] is not None]),
                f"{np.mean(rows_a_label):.0f}" if rows_a_label else "",
                what,
            )
        return found

    line("baseline", "baseline", "baseline", "pooled network, as long as both stages")
    line("stage 1", "stage1", "stage1", "SARL alone, shared by the trials")
    line("control", "baseline", "stage2", "stage 2 without contrasts")
    best = line("best of search", "search", "tuned", "chosen on these held-out images, so it looks better than it is")
    control = line("control, confirmed", "confirm", "stage2", "fresh seeds, each with its own stage 1")
    tuned = line("tuned, confirmed", "confirm", "tuned", "the best setting over the same fresh seeds")
    final = line("tuned, final", "final", "tuned", "all training images; the test images were used this once")
    sentences = []
    pairs = [(t["val_mAP"], c["val_mAP"]) for t in tuned for c in control if t["seed"] == c["seed"]]
    if pairs:
        gain, half = interval([t - c for t, c in pairs])
        seeds = f"{len(pairs)} paired seeds"
        verdict = "no gain is shown" if not abs(gain) > half else "a gain" if gain > 0 else "a loss"
        band = f" +- {half:.2f} (95 %)" if half == half else ""
        sentences.append(f"Contrasts against stage 2 without them: {gain:+.2f}{band} held-out mAP over {seeds}: {verdict}.")
    if final and final[0]["test_mAP"] is not None:
        beside = f"; the paper reports {published:.1f}" if published is not None and final[0]["scale"] == "full" else ""
        sentences.append(f"Test mAP of the final run: {final[0]['test_mAP']:.2f} (one run, seed {final[0]['seed']}){beside}.")
    if best:
        params = ", ".join(f"{k} = {v:.4g}" for k, v in sorted(json.loads(best[0]["params"]).items()))
        sentences.append(f"Best setting: {params}.")
    if failed := [row for row in study if row["status"] == "failed"]:
        sentences.append(f"{len(failed)} trials failed; the first: {failed[0]['key']}: {failed[0]['cause']}")
    return table, sentences


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    mean, half = interval(values)
    return f"{mean:.2f}" if half != half else f"{mean:.2f} +- {half:.2f}"
