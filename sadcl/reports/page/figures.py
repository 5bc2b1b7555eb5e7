"""Which rows of a study become which chart, and how many of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeVar

from sadcl.reports.ablation import AblationReport
from sadcl.reports.page import charts
from sadcl.reports.page.study import StudyData, ranked_trials, settings, title
from sadcl.reports.page.tables import Progress, importance, number, short_names
from sadcl.search.space import Distribution, Float, Int, plain
from sadcl.search.study_file import read_space

T = TypeVar("T")
MOST_CURVES, MOST_LINES, MOST_ROWS = 120, 150, 100
"""What one chart or table holds; where there is more, the page says so."""


def thin(items: Sequence[T], most: int) -> list[T]:
    """At most so many, evenly, first and last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def forest(report: AblationReport | None) -> str:
    """The forest plot, where anything is compared."""
    compared = report is not None and any(effect.pairs for effect in report.effects)
    return charts.effects(report) if report is not None and compared else ""


def curves(study: StudyData) -> dict[str, Any]:
    """Learning curves by data set and stage, with the key of their looks."""
    panels: list[str] = []
    notes, names = [], [name for name, rows in study.looks().items() if rows]
    datasets = list(dict.fromkeys(row["dataset"] for row in study.rows))
    background = False
    for dataset in datasets:
        group = {
            row["key"]: names.index(name)
            for name, rows in study.looks(dataset).items()
            for row in rows
        }
        for stage in (1, 2):
            runs = [
                charts.Curve(title(row), group.get(row["key"]), points, row["status"] == "pruned")
                for row in study.rows
                if row["dataset"] == dataset and (points := study.curve(row, stage))
            ]
            if not runs:
                continue
            runs.sort(key=lambda run: run.points[-1][1])
            named = thin([run for run in runs if run.group is not None], MOST_CURVES)
            drawn = (
                thin(
                    [run for run in runs if run.group is None],
                    MOST_CURVES - min(len(named), MOST_CURVES // 2),
                )
                + named
            )
            background |= any(run.group is None for run in drawn)
            name = f"stage {stage}" + f", {dataset}" * (len(datasets) > 1)
            panels.append(charts.curves(drawn, name, f"curves{len(panels)}"))
            if len(drawn) < len(runs):
                notes.append(
                    f"{name}: {len(drawn)} of {len(runs):,} runs are drawn, evenly by their last figure."
                )
    key = [(name, *charts.group_style(i)) for i, name in enumerate(names)]
    return {
        "panels": panels,
        "key": key
        + [("other trials" if study.kind == "search" else "other runs", *charts.group_style(None))]
        * background,
        "notes": notes,
    }


def search(study: StudyData, progress: Progress | None) -> dict[str, Any]:
    """History, parallel coordinates, importance, and the best trials."""
    trials = [
        {
            "n": n,
            "value": study.value(row),
            "status": row["status"],
            "name": title(row),
            "settings": settings(row),
            "row": row,
        }
        for n, row in enumerate(study.phase("search"), 1)
    ]
    known = [trial for trial in trials if math.isfinite(trial["value"])]
    known.sort(key=lambda t: (t["status"] != "complete", -t["value"]))
    over = [trial for trial in known if trial["status"] in ("complete", "pruned")]
    tenth = min(math.ceil(sum(t["status"] == "complete" for t in over) / 10), 30)
    drawn = over[:tenth] + thin(over[tenth:], MOST_LINES)
    fields = sorted({field for trial in drawn for field in trial["settings"]})
    short, parallel = short_names(fields), ""
    if len(drawn) > 1 and fields:
        space = read_space(study.about)
        axes = [
            _axis(short[field], [t["settings"].get(field) for t in drawn], space.get(field))
            for field in fields
        ]
        axes.append(_axis("held-out mAP", [t["value"] for t in drawn]))
        kinds = [
            "best" if i < tenth else "other" if t["status"] == "complete" else "pruned"
            for i, t in enumerate(drawn)
        ]
        said = [
            ", ".join(f"{short[field]} {number(value)}" for field, value in t["settings"].items())
            for t in drawn
        ]
        tips = [
            f"{t['name']}: {text}: {t['value']:.2f}" for t, text in zip(drawn, said, strict=True)
        ]
        parallel = charts.parallel(axes, tips, kinds)
    against = {
        "control": study.phase("baseline", "stage2"),
        "pooled baseline": study.phase("baseline", "baseline"),
    }
    lines = {
        name: found[0]["val_mAP"]
        for name, rows in against.items()
        if (found := ranked_trials(rows))
    }
    shares, note = importance(study, progress)
    table = [
        {
            "trial": t["name"],
            **{short[field]: number(t["settings"].get(field)) for field in fields},
            "held-out mAP": f"{t['value']:.2f}",
            "epochs": str(t["row"]["epochs_done"] or ""),
            "status": {"pruned": "stopped early", "running": "not ended"}.get(
                t["status"], t["status"]
            ),
        }
        for t in known[:MOST_ROWS]
    ]
    return {
        "history": charts.history(trials, lines) if known else "",
        "parallel": parallel,
        "importance": charts.importances(shares) if shares else "",
        "importance_note": note,
        "trials": table,
        "count": len(trials),
        "drawn": len(drawn),
        "strong": tenth,
        "over": len(over),
        "stopped": Counter(
            (t["row"]["cause"] or "no cause").rpartition(": ")[2]
            for t in trials
            if t["status"] == "pruned"
        ).most_common(5),
    }


def _axis(
    name: str, values: Sequence[Any], distribution: Distribution | None = None
) -> charts.Axis:
    """Numbers by their size, on a logarithmic scale where the search's is; anything else in order."""
    numbers = [
        float(v) if isinstance(v, (int, float)) and not isinstance(v, bool) else math.nan
        for v in values
    ]
    if any(v is not None and math.isnan(x) for v, x in zip(values, numbers, strict=True)):
        there = sorted({str(v) for v in values if v is not None})
        places = {v: (i + 0.5) / len(there) for i, v in enumerate(there)}
        return charts.Axis(
            name,
            [places.get(str(v), math.nan) for v in values],
            [(at, v) for v, at in places.items()],
        )
    known = [x for x in numbers if math.isfinite(x)]
    domain = None if distribution is None else plain(distribution)
    log = isinstance(domain, Float | Int) and domain.log and min(known) > 0
    low, high = (
        (math.log10(min(known)), math.log10(max(known))) if log else (min(known), max(known))
    )
    if low == high:
        return charts.Axis(
            name,
            [0.5 if math.isfinite(x) else math.nan for x in numbers],
            [(0.5, f"{known[0]:.3g}")],
        )
    at = [
        ((math.log10(x) if log else x) - low) / (high - low) if math.isfinite(x) else math.nan
        for x in numbers
    ]
    ticks = [(t, low + t * (high - low)) for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return charts.Axis(name, at, [(t, f"{10**v if log else v:.3g}") for t, v in ticks])
