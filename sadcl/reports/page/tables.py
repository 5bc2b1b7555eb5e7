"""The tables of a study's page, as rows of text cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sadcl.console import setting_text
from sadcl.reports.ablation import AblationReport
from sadcl.reports.ablation_text import DIFFERENCE, ablation_table
from sadcl.reports.best_epoch import best_epoch
from sadcl.reports.comparison import gpu_hours
from sadcl.reports.effect_text import SPLITS, arm_text, plus_minus
from sadcl.reports.page.study import Row, StudyData, complete_runs, flat_config, run_title
from sadcl.reports.statistics import Verdict, interval
from sadcl.results import published as paper
from sadcl.search.ranking import final_run, is_finite, ranked_trials
from sadcl.search.study_file import described_space, described_stopping
from sadcl.search.until import until_from_json

Cells = list[dict[str, str]]
MAX_ROWS = 100
"""The largest number of rows of a table; where there are more, the page says so."""
PUBLISHED_METRICS = ("mAP", "CF1", "OF1")


# What was asked


def study_facts(study: StudyData) -> dict[str, str]:
    """Return the question's terms and all that was fixed beforehand, by name."""
    description, rows = study.description, list(study.rows)
    base = base_config(study)
    seeds, confirm_seeds = description.get("seeds"), description.get("confirm_seeds")
    until = until_from_json(description.get("until"))
    noun = "trials" if study.kind == "search" else "runs"
    facts = {
        "data": ", ".join(description.get("datasets") or study.datasets),
        "scale": "full" if study.is_full_scale else "demo",
        "network": base.get("model.backbone")
        and f"{base['model.backbone']}, {base['data.image_size']} px",
        "training": base
        and f"at most {base['stage1.epochs']} epochs of stage 1 and {base['stage2.epochs']} of "
        f"stage 2, batch size {base['optim.batch_size']}",
        "budget": study.planned and f"{study.planned:,} {noun}",
        "sampler": description.get("sampler"),
        "early stopping": described_stopping(description),
        "seeds": until or (seeds and ", ".join(map(str, seeds))),
        "confirmed over": confirm_seeds and f"seeds {', '.join(map(str, confirm_seeds))}",
        "selection": base
        and f"{100 * base['data.holdout']:g} % of the training images are held out and choose "
        "epoch, weights and setting; the test images choose nothing",
        "first and last run": _time_span(rows),
        "base configuration": description.get("base"),
    }
    return {name: str(value) for name, value in facts.items() if value}


def space_or_arms(study: StudyData) -> Cells:
    """Format the search space, or the arms and what they change."""
    space = [
        {"field": field, "range": text}
        for field, text in described_space(study.description).items()
    ]
    arms = study.description.get("arms") or {}
    return space or [
        {
            "arm": arm_text(arm),
            "changes": ", ".join(f"{k} = {v}" for k, v in changes.items()) or "the base unchanged",
        }
        for arm, changes in arms.items()
    ]


def shared_config(study: StudyData) -> dict[str, Any]:
    """Return the configuration fields that have the same value in all main runs."""
    configs = [flat_config(row) for row in study.main_runs or study.rows]
    return {
        field: value
        for field, value in base_config(study).items()
        if field != "seed" and all(config.get(field) == value for config in configs)
    }


def base_config(study: StudyData) -> dict[str, Any]:
    """Return the configuration of the run with the longest stage 2, by dotted field."""
    configs = (flat_config(row) for row in study.main_runs or study.rows)
    return max(configs, key=lambda config: config.get("stage2.epochs", 0), default={})


# The result


def leaderboard(study: StudyData, report: AblationReport | None) -> dict[str, Cells]:
    """Format the result: arms by data set, the steps of a search, or the best runs."""
    if study.kind == "ablation" and report is not None:
        return _arm_tables(report)
    if study.kind == "search":
        return {"": _search_steps(study)}
    best = ranked_trials(study.rows)[:MAX_ROWS]
    return {"": [_result_line(row["key"], row["arm"], [row]) for row in best]}


def _arm_tables(report: AblationReport) -> dict[str, Cells]:
    """Format the arms on each data set, by the caption of the table."""
    images = f"{report.quantity} on the {SPLITS[report.split]}"
    return {
        f"{dataset}: {images}": [
            row
            | {"arm": arm_text(row["arm"])}
            | ({DIFFERENCE: "reference"} if effect.verdict == Verdict.BASELINE else {})
            for row, effect in zip(ablation_table(report, dataset), report.on(dataset), strict=True)
        ]
        for dataset in report.datasets
    }


def _search_steps(study: StudyData) -> Cells:
    """Format the steps of a search that have a result."""
    chosen = {"stage1_key": None, "params": None, "key": None} | dict(study.chosen_run() or {})

    def by_key(key: str | None) -> list[Row]:
        return [row for row in study.rows if row["key"] == key]

    tuned = ("confirm", chosen["params"])
    confirmed = [row for row in study.rows if (row["phase"], row["params"]) == tuned]
    final = final_run(study.rows, chosen["params"])
    baseline, confirm = study.phase("baseline", "baseline"), study.phase("confirm", "stage2")
    steps = [
        ("pooled baseline", "pooled network, trained for the epochs of both stages", baseline),
        ("stage 1", "SARL alone, from which the trials start", by_key(chosen["stage1_key"])),
        ("control", study.control, study.phase("baseline", "stage2")),
        ("best of search", "chosen on these images: optimistic", by_key(chosen["key"])),
        ("control, confirmed", "fresh seeds, each with a stage 1 of its own", confirm),
        ("tuned, confirmed", "the best setting, the same fresh seeds", confirmed),
        ("tuned, final", "trained once on all training images", [final] if final else []),
    ]
    return [
        _result_line(name, text, complete)
        for name, text, rows in steps
        if (complete := complete_runs(rows))
    ]


def _result_line(name: str, text: str, rows: Sequence[Row]) -> dict[str, str]:
    return {
        "run": name,
        "seeds": str(len(rows)),
        "held-out mAP ± 95 %": _mean_text(rows, "val_mAP"),
        "test mAP ± 95 %": _mean_text(rows, "test_mAP"),
        "description": text,
    }


def published_table(study: StudyData) -> Cells:
    """Format the paper's rows for the study's data sets, the best first; none at demo scale."""
    datasets = {row["dataset"] for row in study.rows} if study.is_full_scale else set()
    if not datasets:
        return []
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for cell in paper.table().to_pylist():
        if cell["dataset"] in datasets and _is_overall_result(cell):
            entry = {
                "data": cell["dataset"],
                "method": cell["method"],
                "where": cell["source"],
                "px": str(cell["test_px"] or ""),
                "backbone": cell["backbone"] or "",
            }
            empty = dict.fromkeys((*PUBLISHED_METRICS, "note"), "")
            line = lines.setdefault(tuple(entry.values()), entry | empty)
            line[cell["metric"]] = f"{cell['value']:.1f}"
            line["note"] = cell["footnote"] or ""
    mAP = study.description.get("published")
    if not lines and isinstance(mAP, (int, float)):
        return [{"method": "SADCL, as published", "mAP": f"{mAP:.1f}"}]
    ranked = sorted(lines.values(), key=lambda line: (line["data"], -float(line["mAP"] or 0)))
    if len(datasets) == 1:
        ranked = [{k: v for k, v in line.items() if k != "data"} for line in ranked]
    return ranked


def _is_overall_result(cell: Mapping[str, Any]) -> bool:
    """Whether a published figure is of a whole method, neither of a label nor of an arm."""
    return (
        cell["label"] is None
        and cell["arm"] is None
        and cell["metric"] in PUBLISHED_METRICS
        and cell["value"] is not None
    )


def best_epoch_table(study: StudyData) -> Cells:
    """Compare the best epoch, which is optimistic, with the last."""
    rows = [{**row, "arm": arm, "phase": ""} for arm, rows in study.arms().items() for row in rows]
    epochs = [epoch for row in rows for epoch in study.epochs.get(row["key"], ())]
    return [
        {
            "arm": arm_text(one.arm),
            "data": one.dataset,
            "seeds": str(len(one.seeds)),
            "best epoch (optimistic) ± 95 %": plus_minus(one.best, one.best_half_width),
            "last epoch ± 95 %": plus_minus(one.last, one.last_half_width),
            "difference ± 95 %": plus_minus(one.optimism, one.optimism_half_width),
        }
        for one in best_epoch(rows, epochs)
    ]


# Cost and failures


def cost_table(study: StudyData) -> Cells:
    """Sum up the cost of each phase, and of all together."""
    names = dict.fromkeys(row["phase"] for row in study.rows)
    phases = {phase: study.phase(phase) for phase in names}
    if len(phases) > 1:
        phases["all"] = list(study.rows)
    seconds = [sum(row["seconds"] or 0 for row in rows) for rows in phases.values()]
    gpu_seconds = [3600 * sum(map(gpu_hours, rows)) for rows in phases.values()]
    columns = {
        "phase": list(phases),
        "runs": [f"{len(rows):,}" for rows in phases.values()],
        **_durations("", seconds),
        **(_durations("GPU ", gpu_seconds) if any(gpu_seconds) else {}),
        "images": [f"{sum(row['images'] or 0 for row in rows):,}" for rows in phases.values()],
        "peak memory, MB": [_peak_memory(rows) for rows in phases.values()],
    }
    lines = zip(*columns.values(), strict=True)
    return [dict(zip(columns, line, strict=True)) for line in lines]


def _durations(of_what: str, seconds: Sequence[float]) -> dict[str, list[str]]:
    """Format a column in hours, or in minutes where an entry would be 0.00 hours."""
    if any(0 < value < 0.005 * 3600 for value in seconds):
        return {f"{of_what}minutes": [f"{value / 60:,.2f}" for value in seconds]}
    return {f"{of_what}hours": [f"{value / 3600:,.2f}" for value in seconds]}


def _peak_memory(rows: Sequence[Row]) -> str:
    memory = [row["memory_mb"] for row in rows if row["memory_mb"]]
    return f"{max(memory):,.0f}" if memory else ""


def failure_table(study: StudyData) -> Cells:
    """List runs that failed or have not ended, and complete ones whose mAP is not a number."""
    return [
        {
            "run": run_title(row),
            "seed": str(row["seed"]),
            "problem": problem,
            "cause": row["cause"] or "",
            "key": row["key"],
        }
        for row in study.rows
        if (problem := _problem(row))
    ]


def _problem(row: Row) -> str:
    if row["status"] in ("failed", "running"):
        return {"failed": "failed", "running": "not ended"}[row["status"]]
    has_held_out = flat_config(row).get("data.holdout", 0) > 0
    for column in ("val_mAP", "test_mAP") if has_held_out else ("test_mAP",):
        if row[column] is not None and not is_finite(row[column]):
            return f"{column} is not a number"
    return ""


# Cells


def _mean_text(rows: Sequence[Row], column: str) -> str:
    values = [row[column] for row in rows if is_finite(row[column])]
    return plus_minus(*interval(values)) if values else ""


def setting_cell(value: Any) -> str:
    """Format the value of a setting; empty for None."""
    return "" if value is None else setting_text(value)


def _time_span(rows: Sequence[Row]) -> str:
    """Format the first start and the last end of some runs; empty where none has them."""
    starts = [row["started"] for row in rows if row["started"]]
    if not starts:
        return ""
    last = max(row["ended"] or row["started"] for row in rows if row["started"])
    return f"{_time_text(min(starts))} to {_time_text(last)}"


def _time_text(when: Any) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"
