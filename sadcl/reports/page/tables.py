"""The tables of a study's page, as rows of text cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sadcl.reports.ablation import AblationReport
from sadcl.reports.ablation_text import ablation_table
from sadcl.reports.best_epoch import best_epoch
from sadcl.reports.comparison import gpu_hours
from sadcl.reports.effect_text import plus_minus
from sadcl.reports.page.study import Row, StudyData, complete_runs, flat_config, run_title
from sadcl.reports.statistics import interval
from sadcl.results import published as paper
from sadcl.search.ranking import is_finite, ranked_trials
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
            "arm": arm,
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
        return {dataset: ablation_table(report, dataset) for dataset in report.datasets}
    if study.kind == "search":
        return {"": _search_steps(study)}
    best = ranked_trials(study.rows)[:MAX_ROWS]
    return {"": [_result_line(row["key"], row["arm"], [row]) for row in best]}


def _search_steps(study: StudyData) -> Cells:
    """Format the steps of a search that have a result."""
    chosen = {"stage1_key": None, "params": None, "key": None} | dict(study.chosen_run() or {})
    tuned = [row for row in study.rows if row["params"] == chosen["params"]]

    def by_key(key: str | None) -> list[Row]:
        return [row for row in study.rows if row["key"] == key]

    def of_phase(phase: str) -> list[Row]:
        return [row for row in tuned if row["phase"] == phase]

    baseline, confirm = study.phase("baseline", "baseline"), study.phase("confirm", "stage2")
    steps = [
        ("baseline", "pooled network, trained for the epochs of both stages", baseline),
        ("stage 1", "SARL alone, from which the trials start", by_key(chosen["stage1_key"])),
        ("control", "stage 2 without contrasts", study.phase("baseline", "stage2")),
        ("best of search", "chosen on these images: optimistic", by_key(chosen["key"])),
        ("control, confirmed", "fresh seeds, each with a stage 1 of its own", confirm),
        ("tuned, confirmed", "the best setting, the same fresh seeds", of_phase("confirm")),
        ("tuned, final", "trained once on all training images", of_phase("final")),
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
            "arm": one.arm,
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
    return [_cost_line(phase, rows) for phase, rows in phases.items()]


def _cost_line(phase: str, rows: Sequence[Row]) -> dict[str, str]:
    memory = [row["memory_mb"] for row in rows if row["memory_mb"]]
    return {
        "phase": phase,
        "runs": f"{len(rows):,}",
        "hours": f"{sum(row['seconds'] or 0 for row in rows) / 3600:,.2f}",
        "GPU hours": f"{sum(map(gpu_hours, rows)):,.2f}",
        "images": f"{sum(row['images'] or 0 for row in rows):,}",
        "peak memory, MB": f"{max(memory):,.0f}" if memory else "",
    }


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


def short_names(fields: Sequence[str]) -> dict[str, str]:
    """Shorten field names to their last part, unless two of them would be the same."""
    last = [field.rpartition(".")[2] for field in fields]
    return {
        field: name if last.count(name) == 1 else field
        for field, name in zip(fields, last, strict=True)
    }


def value_text(value: Any) -> str:
    """Format the value of a setting; empty for None."""
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _time_span(rows: Sequence[Row]) -> str:
    """Format the first start and the last end of some runs; empty where there are none."""
    if not rows:
        return ""
    last = max(row["ended"] or row["started"] for row in rows)
    return f"{_time_text(rows[0]['started'])} to {_time_text(last)}"


def _time_text(when: Any) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"
