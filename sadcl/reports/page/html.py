"""A study as one HTML file that needs nothing else: what was asked, the answer, and what it stands on."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from sadcl.reports import ablation_text as words
from sadcl.reports.ablation import AblationReport
from sadcl.reports.page import figures as plots
from sadcl.reports.page import tables as parts
from sadcl.reports.page.study import (
    CONTROL,
    TUNED,
    Row,
    StudyData,
    count_ended,
    plain,
    study_data,
    title,
)
from sadcl.reports.statistics import Effect
from sadcl.search.ranking import ranked_trials


def html(
    root: str,
    name: str,
    *,
    recipe: Callable[[Row], str] = parts.recipe,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """The page of a study: one HTML file without scripts that asks no network for anything.

    Args:
        recipe: gives a row of the trials table as Python to paste.
        progress: called with how much is done, and how much there is.

    Raises:
        UserError: as :func:`load`, and as :func:`sadcl.reports.ablation.ablation_report` for an ablation.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    study = study_data(root, name)
    report, best = study.comparison(), study.best()
    heat, failed, pasted = (
        parts.label_tables(study),
        parts.failures(study),
        recipe(best) if best else "",
    )
    curves = plots.curves(study)
    titles = {
        "answer": "The answer",
        "asked": "What was asked",
        "leaderboard": {"ablation": "The arms", "search": "The result"}.get(study.kind, "The runs"),
        "curves": "Learning curves" if curves["panels"] else "",
        "search": "The search" if study.kind == "search" and study.own else "",
        "labels": "Labels" if heat else "",
        "cost": "Cost",
        "failures": f"Failures ({len(failed)})" if failed else "Failures",
        "provenance": "Provenance",
        "recipe": "The best setting" if pasted else "",
    }
    environment = Environment(
        loader=PackageLoader("sadcl.results", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "class": _class,
        "minus": _minus,
        "variable": plots.charts.COLOURS.get,
        "text": json.dumps,
    }
    page = environment.get_template("page.html").render(
        study=study,
        titles={id_: title for id_, title in titles.items() if title},
        report=report,
        banners=banners(study),
        answer=answer(study, report),
        sentences=[*words.ablation_sentences(report)] if report else [],
        notes=[*words.ablation_notes(replace(report, scale="full"))]
        if report
        else [],  # a banner has what is to be said of the scale
        asked=parts.asked(study),
        board=parts.leaderboard(study, report),
        published=parts.published(study),
        forest=plots.forest(report),
        curves=curves,
        best_and_last=parts.best_and_last(study),
        search=plots.search(study, progress) if titles["search"] else None,
        heat=heat,
        cost=parts.cost(study),
        failures=failed,
        made_by=parts.made_by(study),
        commands=parts.commands(study, best),
        best=best and title(best),
        recipe=pasted,
        now=datetime.now(UTC),
    )
    return plain(page)


def _class(rows: Sequence[Mapping[str, str]], name: str) -> str:
    """How a column is set: figures at its right edge, long text with room."""
    texts = [row[name] for row in rows if row[name]]
    if all(re.fullmatch(r"[<+-]?[\d.,]+( ±.*| \(.*)?", text) for text in texts):
        return "n"
    return "t" if max(map(len, texts)) > 24 else "s"


def _minus(text: str) -> str:
    """Negative figures with the sign that is as wide as a plus."""
    return re.sub(r"(?<![\w-])-(?=\d)", "\N{MINUS SIGN}", text)


def banners(study: StudyData) -> list[str]:
    """What a reader has to know before anything else."""
    found = []
    statuses = [row["status"] for row in study.own]
    over = sum(status != "running" for status in statuses)
    noun = "trials" if study.kind == "search" else "runs"
    pending = any(row["status"] == "running" for row in study.rows)
    of = f"{over} of {study.total or len(statuses)} {noun}"
    if not study.rows:
        found.append("No run of this study has started.")
    elif pending:
        found.append(
            f"Still running, or interrupted: {of} have ended. All that is below is of what has ended by now."
        )
    elif (
        study.total is not None
        and len(statuses) < study.total
        and not study.phase("confirm", "tuned")
    ):
        found.append(
            f"Not finished: {of} have ended. The command that started the study goes on with it."
        )
    if statuses and "complete" not in statuses and not pending:
        found.append(
            f"None of the {noun} is complete: {', '.join(f'{statuses.count(s)} {s}' for s in sorted(set(statuses)))}."
        )
    if study.kind == "search" and len(study.own) == 1:
        found.append("One trial: nothing was searched, and nothing is compared among trials.")
    if (
        study.kind == "search"
        and study.chosen() is not None
        and not count_ended(study.phase("confirm", "tuned"))
    ):
        found.append(
            "Not confirmed: the best trial was chosen on the images that its figure is of, which is optimistic."
        )
    if not study.full:
        found.append(
            "Demo scale: these figures prove the path, not the science, and do not stand beside the paper's."
        )
    return found


def answer(study: StudyData, report: AblationReport | None) -> str:
    """The study in a sentence that says no more than it shows."""
    done = count_ended(study.own)
    if not done:
        return "There is no answer yet: no run is complete."
    if study.kind == "ablation" and report is not None:
        return " ".join(_of_arms(report, dataset) for dataset in report.datasets)
    first = next(iter(ranked_trials(done)), None)
    split = words.SPLITS[report.split] if report else ""
    tuned = (
        next((effect for effect in report.effects if effect.arm == TUNED), None) if report else None
    )
    if tuned is None or not tuned.seeds:
        what = _count(len(done), f"complete {'trial' if study.kind == 'search' else 'run'}")
        reaches = (
            f"reaches {first['val_mAP']:.2f} % mAP on the held-out images that chose it"
            if first
            else "has no figure"
        )
        return f"The best of {what} {reaches}; nothing is compared over fresh seeds, so nothing is shown."
    figure, half = tuned.mean, tuned.half
    band = f" (95 % interval ± {half:.2f})" if math.isfinite(half) else ""
    start = f"The best setting reaches {figure:.2f} % mAP{band} on the {split} over {_count(len(tuned.seeds), 'fresh seed')}"
    if not tuned.pairs:
        return f"{start}; no run of the control has its seeds, so no gain is shown."
    return f"{start}; against {CONTROL} that is {_gain(tuned)}: {_verdict(tuned)}."


def _of_arms(report: AblationReport, dataset: str) -> str:
    compared = [effect for effect in report.on(dataset) if effect.verdict != "baseline"]
    shown = {verdict: [e for e in compared if e.verdict == verdict] for verdict in ("gain", "loss")}
    said = [
        f"a {verdict} is shown for " + ", ".join(f"{e.arm} ({_points(e)})" for e in found)
        for verdict, found in shown.items()
        if found
    ]
    rest = len(compared) - sum(map(len, shown.values()))
    if not shown["gain"]:
        said.insert(0, f"no gain is shown for any of {_count(len(compared), 'arm')}")
    elif rest:
        said.append(f"nothing is shown for the other {rest}")
    seeds = words.count_words([len(effect.pairs) for effect in compared])
    return (
        f"On {dataset}, against {report.baseline} over {seeds} (95 % interval): {'; '.join(said)}."
    )


def _points(effect: Effect) -> str:
    low, high = (
        effect.difference - effect.difference_half,
        effect.difference + effect.difference_half,
    )
    return f"{effect.difference:+z.2f} points, {low:+z.2f} to {high:+z.2f}"


def _gain(effect: Effect) -> str:
    low, high = (
        effect.difference - effect.difference_half,
        effect.difference + effect.difference_half,
    )
    band = f", 95 % interval {low:+z.2f} to {high:+z.2f}" if math.isfinite(low) else ""
    return f"{effect.difference:+z.2f} points{band} over {_count(len(effect.pairs), 'paired seed')}"


def _verdict(effect: Effect) -> str:
    return {"gain": "a gain is shown", "loss": "a loss is shown"}.get(
        effect.verdict, "no gain is shown"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
