"""The page of a study, or of two: one HTML file that needs no network and runs no script."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sadcl.errors import UserError
from sadcl.reports.ablation import AblationReport
from sadcl.reports.ablation_text import ablation_notes, ablation_sentences
from sadcl.reports.effect_text import arm_text
from sadcl.reports.page import answers, provenance, tables
from sadcl.reports.page.curves import curves_section
from sadcl.reports.page.label_tables import label_tables
from sadcl.reports.page.lead import HISTORY_CAPTION, Lead, lead_picture
from sadcl.reports.page.search_section import Progress, search_section
from sadcl.reports.page.side_by_side import SideBySide, side_by_side
from sadcl.reports.page.study import Row, StudyData, printable, run_title, study_data
from sadcl.reports.page.svg import ids_begin_with

MAX_ARMS = 8
"""The largest number of arms of a table of labels that fits across an upright sheet of paper."""


def study_page(
    root: str,
    *names: str,
    recipe: Callable[[Row], str] = provenance.config_code,
    progress: Progress | None = None,
) -> str:
    """Make the page of a study, or of two studies side by side.

    Args:
        root: the storage.
        names: of one study or of two.
        recipe: returns the Python code of the configuration of a row of the trials table.
        progress: called with the number of evaluations done and their total.

    Raises:
        UserError: as :func:`sadcl.reports.page.study.study_data`, of an ablation as
            :func:`sadcl.reports.ablation.ablation_report`, and for more than two studies or the
            same one twice.
    """
    if not 1 <= len(names) <= 2 or len(set(names)) < len(names):
        raise UserError(
            f"A report is of one study or of two different ones, but got {', '.join(names)}."
        )
    studies = [study_data(root, name) for name in names]
    reports = [study.comparison() for study in studies]
    sides = []
    for i, (study, report) in enumerate(zip(studies, reports, strict=True)):
        with ids_begin_with(f"study{i}-" if len(names) > 1 else ""):
            beside = [(studies[k], reports[k]) for k in range(len(studies)) if k != i]
            lead = lead_picture(study, report, beside)
            sides.append(_side(study, report, lead, recipe, progress))
    both = None
    if len(studies) == 2:
        both = side_by_side((studies[0], studies[1]), tuple(reports))
    page = _template().render(
        sides=sides,
        both=both,
        title=" and ".join(names),
        questions=list(dict.fromkeys(filter(None, map(_question, studies)))),
        titles=_titles(sides, both),
        wide_labels=any(len(t.arms) > MAX_ARMS for side in sides for t in side["label_tables"]),
        history_caption=HISTORY_CAPTION,
        root=root,
        now=datetime.now(UTC),
    )
    return printable(page)


def _question(study: StudyData) -> str:
    return study.description.get("question") or ""


def _side(
    study: StudyData,
    report: AblationReport | None,
    lead: Lead,
    recipe: Callable[[Row], str],
    progress: Progress | None,
) -> dict[str, Any]:
    """Make the texts, tables and charts of a study."""
    best = study.best_run()
    return {
        "study": study,
        "banners": answers.banners(study),
        "answer": answers.answer(study, report),
        "lead": lead,
        "best": best and run_title(best),
        "asked": {"facts": tables.study_facts(study), "table": tables.space_or_arms(study)},
        "result": _result_section(study, report),
        "curves": curves_section(study),
        "search": search_section(study, progress, with_history=lead.kind != "history")
        if study.kind == "search" and study.main_runs
        else None,
        "label_tables": label_tables(study),
        "cost": tables.cost_table(study),
        "failures": tables.failure_table(study),
        "made_by": provenance.made_by(study),
        "has_changes": any((row["revision"] or "").endswith("+") for row in study.rows),
        "commands": [provenance.wrapped(line) for line in provenance.commands(study, best)],
        "shared": tables.shared_config(study),
        "recipe": recipe(best) if best else "",
    }


def _result_section(study: StudyData, report: AblationReport | None) -> dict[str, Any]:
    return {
        "tables": tables.leaderboard(study, report),
        "published": tables.published_table(study),
        "sentences": list(ablation_sentences(report)) if report else [],
        # A banner states the scale already.
        "notes": list(ablation_notes(report, with_scale=False)) if report else [],
        "best_epochs": tables.best_epoch_table(study),
    }


def _titles(sides: Sequence[Mapping[str, Any]], both: SideBySide | None) -> dict[str, str]:
    """Return the title of each section that the page has, by its id."""
    num_failures = sum(len(side["failures"]) for side in sides)
    kinds = {side["study"].kind for side in sides}
    kind = kinds.pop() if len(kinds) == 1 else "several"
    results = {"ablation": "The arms", "runs": "The runs"}
    titles = {
        "answer": "The answer",
        "both": "The two studies compared" if both else "",
        "asked": "The question",
        "leaderboard": results.get(kind, "The result"),
        "curves": "Learning curves" if any(_has_curves(side) for side in sides) else "",
        "search": "The search" if any(side["search"] for side in sides) else "",
        "labels": "Labels" if any(side["label_tables"] for side in sides) else "",
        "cost": "Cost",
        "failures": f"Failures ({num_failures})" if num_failures else "",
        "provenance": "Provenance",
        "recipe": "The best setting" if any(side["recipe"] for side in sides) else "",
    }
    return {id_: title for id_, title in titles.items() if title}


def _has_curves(side: Mapping[str, Any]) -> bool:
    return bool(side["curves"].panels or side["curves"].tiles)


def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sadcl.reports.page", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "arm": arm_text,
        "breaks": _with_breaks,
        "class": _column_class,
        "minus": _with_minus_signs,
        "text": json.dumps,
    }
    return environment.get_template("page.html")


def _column_class(rows: Sequence[Mapping[str, str]], name: str) -> str:
    """Choose the style of a column: ``n`` for numbers, ``t`` for long text, ``s`` for short."""
    texts = [row[name] for row in rows if row[name]]
    if all(re.fullmatch(r"[<+-]?[\d.,]+( ±.*| \(.*)?", text) for text in texts):
        return "n"
    return "t" if max(map(len, texts)) > 24 else "s"


def _with_breaks(text: str) -> Any:
    """Escape a text, and let names such as ``loss.prototype_tau`` break after dots and the like."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"(?<=[A-Za-z])([._])(?=[A-Za-z])", r"\1<wbr>", str(escape(text))))


def _with_minus_signs(text: str) -> str:
    """Replace the hyphen of negative numbers by the minus sign, which is as wide as a plus."""
    return re.sub(r"(?<![\w-])-(?=\d)", "\N{MINUS SIGN}", text)
