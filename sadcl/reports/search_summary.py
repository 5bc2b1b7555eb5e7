"""What a search comes to, as tables and sentences that say no more than they show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.table import Table

from sadcl.reports.statistics import interval
from sadcl.search.plan import Search, front
from sadcl.search.ranking import best_trials, winning_trial
from sadcl.study.record import all_rows


def summary(found: list[dict[str, Any]], search: Search) -> tuple[Table, list[str]]:
    """What a search comes to, as a table and as sentences that say no more than it shows."""
    table = Table(
        title="Result (mAP in percent, +- half of the 95 % interval over seeds)",
        title_justify="left",
    )
    for column in ("run", "what it is", "seeds", "held-out mAP", "test mAP", "rows/label"):
        table.add_column(
            column, justify="left" if column in ("run", "what it is") else "right", overflow="fold"
        )
    complete = [row for row in found if row["status"] == "complete"]
    chosen = winning_trial(complete, search.confirm_top, search.confirm_seeds)
    best_key = best_trials(complete, 1)[0]["key"] if chosen is not None else None

    def line(name: str, what: str, phase: str, arm: str, **only: Any) -> list[dict[str, Any]]:
        rows = [
            r
            for r in complete
            if (r["phase"], r["arm"]) == (phase, arm) and all(r[k] == v for k, v in only.items())
        ]
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
            line(
                "on the front",
                f"no trial beats it in all: {rest}",
                "search",
                "tuned",
                key=row["key"],
            )
    control = line("control, confirmed", "fresh seeds, own stage 1 each", "confirm", "stage2")
    sentences = []
    if chosen is not None:
        mine = {"params": chosen["params"]}
        tuned = line(
            "tuned, confirmed", "the best setting, same fresh seeds", "confirm", "tuned", **mine
        )
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
            verdict = (
                "no gain is shown" if not abs(gain) > half else "a gain" if gain > 0 else "a loss"
            )
            band = f" +- {half:.2f} (95 %)" if half == half else ""
            over = f"{len(pairs)} paired seeds" if len(pairs) > 1 else "one seed"
            sentences.append(
                f"Contrasts against stage 2 without them: {gain:+.2f}{band} {name} mAP over {over}: {verdict}."
            )
        if final and final[0]["test_mAP"] is not None:
            sentences.append(
                f"Test mAP of the final run: {final[0]['test_mAP']:.2f} (one run, seed {final[0]['seed']}){beside}."
            )
            sentences.append(f"Its checkpoint: {final[0]['checkpoint']}")
        if tuned and all(row.get("admitted") == 0 for row in tuned):
            sentences.append(
                "WARNING: the bank of the best setting admitted nothing: its bank.epsilon is above the scores."
            )
        params = ", ".join(
            f"{k} = {v:.4g}" if isinstance(v, float) else f"{k} = {v}"
            for k, v in chosen["settings"].items()
        )
        sentences.append(f"Best setting: {params}.")
    if stopped := sum(row["status"] == "pruned" for row in found):
        sentences.append(f"{stopped} trials were stopped early.")
    if failed := [row for row in found if row["status"] == "failed"]:
        sentences.append(
            f"{len(failed)} runs failed; the first: {failed[0]['key']}: {failed[0]['cause']}"
        )
        sentences.append("--retry-failed runs them again, with the same settings.")
    return table, sentences


def overview(root: str, studies: Mapping[str, Search]) -> Table:
    """Several searches at a glance: what each has confirmed, beside the paper's figure."""
    table = Table(
        title="Searches (test mAP in percent, +- half of the 95 % interval over seeds)",
        title_justify="left",
    )
    for column in ("study", "data set", "trials", "confirmed", "final run", "paper"):
        table.add_column(
            column, justify="left" if column in ("study", "data set") else "right", overflow="fold"
        )
    there = all_rows(root)
    for name, search in studies.items():
        mine = [row for row in there if row["study"] == name]
        complete = [row for row in mine if row["status"] == "complete"]
        chosen = winning_trial(complete, search.confirm_top, search.confirm_seeds)
        by_phase: dict[str, list[float]] = {"confirm": [], "final": []}
        for row in complete:
            ours = (
                chosen is not None and row["arm"] == "tuned" and row["params"] == chosen["params"]
            )
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
