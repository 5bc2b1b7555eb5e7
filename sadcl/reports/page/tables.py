"""The parts of a study's page as plain tables and charts; what other modules know better is asked of them in one place."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from sadcl.reports import ablation_text as words
from sadcl.reports import best_epoch as best_ever
from sadcl.reports import importance as importances
from sadcl.reports import label_gains, label_gains_text
from sadcl.reports.ablation import AblationReport
from sadcl.reports.comparison import gpu_hours
from sadcl.reports.page.study import Row, StudyData, count_ended, flat, mean, title
from sadcl.reports.statistics import interval
from sadcl.results import published as paper
from sadcl.search.ranking import is_finite, ranked_trials
from sadcl.search.study_file import described_space, described_stopping, read_space

Cells = list[dict[str, str]]
Progress = Callable[[int, int], None]
MOST_ROWS, MOST_LABELS = 100, 120
"""What one chart or table holds; where there is more, the page says so."""
MADE_BY = (
    *(
        "revision",
        "code",
        "version",
        "data_digest",
        "start_digest",
        "python",
        "torch",
        "torchvision",
        "timm",
        "ray",
        "optuna",
    ),
    *(
        "numpy",
        "pyarrow",
        "cuda",
        "cudnn",
        "device",
        "cpu",
        "host",
        "workers",
        "gpus",
        "schema_version",
    ),
)


# What other modules know.


def published(study: StudyData) -> Cells:
    """The paper's rows for the study's data sets, the best first; none beside figures of demo scale."""
    datasets = {row["dataset"] for row in study.rows} if study.full else set()
    metrics = ("mAP", "CF1", "OF1")
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for cell in paper.table().to_pylist() if datasets else ():
        whole = (
            cell["label"] is None
            and cell["arm"] is None
            and cell["metric"] in metrics
            and cell["value"] is not None
        )
        if cell["dataset"] in datasets and whole:
            at = (
                cell["dataset"],
                cell["method"],
                cell["source"],
                str(cell["test_px"] or ""),
                cell["backbone"] or "",
            )
            heads = ("data", "method", "where", "px", "backbone")
            line = lines.setdefault(
                at, dict(zip(heads, at, strict=True)) | dict.fromkeys((*metrics, "note"), "")
            )
            line[cell["metric"]] = f"{cell['value']:.1f}"
            line["note"] = cell["footnote"] or ""
    figure = study.about.get("published")
    if not lines and datasets and isinstance(figure, (int, float)):
        return [{"method": "SADCL, as published", "mAP": f"{figure:.1f}"}]
    ranked = sorted(lines.values(), key=lambda line: (line["data"], -float(line["mAP"] or 0)))
    return [{k: v for k, v in line.items() if k != "data" or len(datasets) > 1} for line in ranked]


def importance(study: StudyData, progress: Progress | None) -> tuple[list[Row], str]:
    """Each field's share in what sets trials apart, the most first, and what has to be said of it."""
    found = importances.importances(
        study.name, study.phase("search"), read_space(study.about), progress=progress
    )
    names = short_names([*(one.field for one in found.fields), *found.constant])
    rows: list[Row] = [
        {**dataclasses.asdict(one), "name": names[one.field]} for one in found.fields
    ]
    return rows, " ".join(importances.importance_sentences(found))


def gains(
    study: StudyData, dataset: str, split: str, names: Sequence[str]
) -> list[tuple[str, list[str]]]:
    """What each arm gives to the labels beside the first, in sentences."""
    arms = {
        arm: [{**row, "arm": arm} for row in count_ended(rows)]
        for arm, rows in study.arms(dataset).items()
    }
    first, *others = names
    found = []
    for arm in others:
        rows = [*arms[first], *arms[arm]]
        labels = [
            label
            for row in rows
            for label in study.labels.get(row["key"], ())
            if label["split"] == split
        ]
        start = f"On {dataset}, {arm} against {first}: "
        texts = [
            text.removeprefix(start)
            for text in label_gains_text.gains_sentences(
                label_gains.gains_of(rows, labels, arm, first, split)
            )
        ]
        found.append((f"{arm} against {first}", [text[0].upper() + text[1:] for text in texts]))
    return found


def best_and_last(study: StudyData) -> Cells:
    """The best epoch ever, which is optimistic, beside the last."""
    rows = [{**row, "arm": arm, "phase": ""} for arm, rows in study.arms().items() for row in rows]
    epochs = [epoch for row in rows for epoch in study.epochs.get(row["key"], ())]
    return [
        {
            "arm": one.arm,
            "data": one.dataset,
            "seeds": str(len(one.seeds)),
            "best-ever, optimistic": plus_minus(one.best_ever, one.best_ever_half),
            "last epoch": plus_minus(one.last_epoch, one.last_epoch_half),
            "optimism": plus_minus(one.optimism, one.optimism_half),
        }
        for one in best_ever.best_epoch(rows, epochs)
    ]


def recipe(row: Row) -> str:
    """A run's setting as Python to paste."""
    if not row["config"]:
        return ""
    config = json.dumps(json.loads(row["config"]), indent=1)
    load = f'sadcl.Config.parse(json.loads(r"""\n{config}\n"""))'
    return f"import json\n\nimport sadcl\n\nconfig = {load}\nassert config.digest() == {row['config_digest']!r}\n"


# The sections.


def asked(study: StudyData) -> dict[str, Any]:
    """The question, and all that was fixed beforehand."""
    about, rows = study.about, list(study.rows)
    configs = [flat(row) for row in study.own or rows]
    base = max(configs, key=lambda config: config.get("stage2.epochs", 0), default={})
    facts = {
        "data": ", ".join(about.get("datasets") or dict.fromkeys(row["dataset"] for row in rows)),
        "scale": "full" if study.full else "demo",
        "network": base.get("model.backbone")
        and f"{base['model.backbone']}, {base['data.image_size']} px",
        "training": base
        and f"{base['stage1.epochs']} epochs of stage 1 and {base['stage2.epochs']} of stage 2 at most, "
        f"batch {base['optim.batch_size']}",
        "budget": study.total
        and f"{study.total:,} {'trials' if study.kind == 'search' else 'runs'}",
        "sampler": about.get("sampler"),
        "early stopping": described_stopping(about),
        "seeds": ", ".join(map(str, about.get("seeds") or ())),
        "confirmed over": about.get("confirm_seeds")
        and f"seeds {', '.join(map(str, about['confirm_seeds']))}",
        "selection": base
        and f"{100 * base['data.holdout']:g} % of the training images are held out and choose epoch, weights "
        "and setting; the test images choose nothing",
        "first and last run": rows
        and f"{_day(rows[0]['started'])} to {_day(max(r['ended'] or r['started'] for r in rows))}",
        "base configuration": about.get("base"),
    }
    arms = {
        arm: ", ".join(f"{k} = {v}" for k, v in changes.items())
        for arm, changes in (about.get("arms") or {}).items()
    }
    space = [{"field": field, "searched": text} for field, text in described_space(about).items()]
    return {
        "facts": {name: str(value) for name, value in facts.items() if value},
        "table": space
        or [
            {"arm": arm, "what it changes": changes or "the base as it is"}
            for arm, changes in arms.items()
        ],
        "same": {
            k: v
            for k, v in base.items()
            if k != "seed" and all(config.get(k) == v for config in configs)
        },
    }


def leaderboard(study: StudyData, report: AblationReport | None) -> dict[str, Cells]:
    """The result by data set or as one table: arms, or the steps of a search, or the best runs."""
    if study.kind == "ablation" and report is not None:
        return {dataset: words.ablation_table(report, dataset) for dataset in report.datasets}
    if study.kind != "search":
        return {
            "": [
                _line(row["key"], row["arm"], [row])
                for row in ranked_trials(study.rows)[:MOST_ROWS]
            ]
        }
    chosen = study.chosen()
    start = {"stage1_key": None, "params": None, "key": None} | dict(chosen or {})
    same = [row for row in study.rows if row["params"] == start["params"]]
    lines = [
        ("baseline", "pooled network, epochs of both stages", study.phase("baseline", "baseline")),
        (
            "stage 1",
            "SARL alone; the trials start from it",
            [r for r in study.rows if r["key"] == start["stage1_key"]],
        ),
        ("control", "stage 2 without contrasts", study.phase("baseline", "stage2")),
        (
            "best of search",
            "chosen on these images: optimistic",
            [r for r in same if r["key"] == start["key"]],
        ),
        (
            "control, confirmed",
            "fresh seeds, a stage 1 of its own each",
            study.phase("confirm", "stage2"),
        ),
        (
            "tuned, confirmed",
            "the best setting, the same fresh seeds",
            [r for r in same if r["phase"] == "confirm"],
        ),
        ("tuned, final", "all training images, once", [r for r in same if r["phase"] == "final"]),
    ]
    return {
        "": [_line(name, what, found) for name, what, rows in lines if (found := count_ended(rows))]
    }


def label_tables(study: StudyData) -> list[dict[str, Any]]:
    """By data set, AP of each label on average over seeds, and how far it is from that of the first arm."""
    tables = []
    for dataset in dict.fromkeys(row["dataset"] for row in study.rows):
        there = {
            arm: [r for r in count_ended(rows) if r["key"] in study.labels]
            for arm, rows in study.arms(dataset).items()
        }
        arms = {
            arm: {row["seed"]: row["key"] for row in rows} for arm, rows in there.items() if rows
        }
        splits = {
            row["split"]
            for keys in arms.values()
            for key in keys.values()
            for row in study.labels[key]
        }
        split = "test" if "test" in splits else "val"
        found: dict[str, dict[str, dict[int, float]]] = {arm: {} for arm in arms}
        support: dict[str, float] = {}
        for arm, keys in arms.items():
            for seed, key in keys.items():
                for row in study.labels[key]:
                    if row["split"] == split and is_finite(row["AP"]):
                        found[arm].setdefault(row["label"], {})[seed] = row["AP"]
                        support[row["label"]] = row["support"] or 0
        first = next(iter(arms), "")
        lines = []
        for label in sorted(support, key=lambda name: (-support[name], name)):
            cells = []
            for arm in arms:
                own, other = found[arm].get(label, {}), found[first].get(label, {})
                pairs = [own[seed] - other[seed] for seed in own if seed in other and arm != first]
                cells.append((mean(own.values()), mean(pairs), len(pairs)))
            lines.append((label, support[label], cells))
        if lines:
            shown, of = lines, len(lines)
            if of > MOST_LABELS:
                apart = sorted(
                    lines, key=lambda line: -max((abs(d) for _, d, n in line[2] if n), default=0)
                )[:MOST_LABELS]
                shown = [line for line in lines if line in apart]
            apart_most = max((abs(d) for line in lines for _, d, n in line[2] if n), default=0) or 1
            about = {
                "dataset": dataset,
                "split": words.SPLITS[split],
                "arms": list(arms),
                "of": of,
                "most": apart_most,
            }
            tables.append(
                {**about, "lines": shown, "gains": gains(study, dataset, split, list(arms))}
            )
    return tables


def cost(study: StudyData) -> Cells:
    """What each phase took, and all together."""
    phases = {
        phase: study.phase(phase) for phase in dict.fromkeys(row["phase"] for row in study.rows)
    }
    if len(phases) > 1:
        phases["all"] = list(study.rows)
    return [
        {
            "phase": phase,
            "runs": f"{len(rows):,}",
            "hours": f"{sum(r['seconds'] or 0 for r in rows) / 3600:,.2f}",
            "GPU hours": f"{sum(map(gpu_hours, rows)):,.2f}",
            "images": f"{sum(r['images'] or 0 for r in rows):,}",
            "peak memory, MB": f"{max(used):,.0f}"
            if (used := [r["memory_mb"] for r in rows if r["memory_mb"]])
            else "",
        }
        for phase, rows in phases.items()
    ]


def failures(study: StudyData) -> Cells:
    """Runs that have failed or have not ended, and complete ones whose figure is not a number."""

    def what(row: Row) -> str:
        held = (
            flat(row).get("data.holdout", 0) > 0
        )  # without held-out images there is no such figure
        odd = [
            name
            for name in ("val_mAP",) * held + ("test_mAP",)
            if row[name] is not None and not is_finite(row[name])
        ]
        return {"failed": "failed", "running": "not ended"}.get(
            row["status"], f"{odd[0]} is not a number" if odd else ""
        )

    return [
        {
            "run": title(row),
            "seed": str(row["seed"]),
            "what": said,
            "cause": row["cause"] or "",
            "key": row["key"],
        }
        for row in study.rows
        if (said := what(row))
    ]


def made_by(study: StudyData) -> Cells:
    """Where the rows come from; several values where the runs differ."""
    lines = []
    for name in MADE_BY:
        counts = Counter(str(row[name]) for row in study.rows if row.get(name) not in (None, ""))
        texts = [
            value if len(counts) == 1 else f"{value} ({n} runs)"
            for value, n in counts.most_common(6)
        ]
        more = f" and {len(counts) - 6} more" if len(counts) > 6 else ""
        if counts:
            lines.append({"what": name.replace("_", " "), "value": ", ".join(texts) + more})
    return lines


def commands(study: StudyData, best: Row | None) -> list[str]:
    """What to type to come to all this again."""
    revision = Counter(row["revision"] for row in study.rows if row["revision"]).most_common(1)
    changed = (
        "   # and there were changes beside it" if revision and revision[0][0].endswith("+") else ""
    )
    where = f"--storage {shlex.quote(study.root)}"
    lines = [f"git checkout {shlex.quote(revision[0][0].rstrip('+'))}{changed}"] if revision else []
    versions = {
        name: best[name]
        for name in ("torch", "torchvision", "timm", "ray", "optuna", "numpy")
        if best and best[name]
    }
    pins = " ".join(shlex.quote(f"{name}=={version}") for name, version in versions.items())
    lines.append(f"pip install -e . {pins}".strip())
    if study.kind != "runs":
        lines.append(
            f"python experiments/FILE.py --storage NEW   # the file that defines the study {shlex.quote(study.name)}"
        )
    lines.append(f"sadcl results report {shlex.quote(study.name)} {where} -o report.html")
    if best and best["checkpoint"]:
        lines.append(
            f"sadcl evaluate --checkpoint {shlex.quote(best['key'])} {where}   # its figures, from the images"
        )
    return lines


def _line(name: str, what: str, rows: Sequence[Row]) -> dict[str, str]:
    return {
        "run": name,
        "seeds": str(len(rows)),
        "held-out mAP": _spread([r["val_mAP"] for r in rows if is_finite(r["val_mAP"])]),
        "test mAP": _spread([r["test_mAP"] for r in rows if is_finite(r["test_mAP"])]),
        "what it is": what,
    }


def _spread(values: Sequence[float]) -> str:
    return plus_minus(*interval(values)) if values else ""


def plus_minus(mean: float, half: float) -> str:
    """A figure with half of its interval, where there is one."""
    return f"{mean:.2f}" if math.isnan(half) else f"{mean:.2f} ± {half:.2f}"


def short_names(fields: Sequence[str]) -> dict[str, str]:
    """The last part of each field's name where that tells them apart, else the whole."""
    last = [field.rpartition(".")[2] for field in fields]
    return {
        field: name if last.count(name) == 1 else field
        for field, name in zip(fields, last, strict=True)
    }


def number(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _day(when: Any) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"
