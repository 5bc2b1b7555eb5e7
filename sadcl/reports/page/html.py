"""The page of a study: one HTML file that needs no network and runs no script."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sadcl.reports.ablation import AblationReport
from sadcl.reports.ablation_text import ablation_notes, ablation_sentences
from sadcl.reports.page import answers, figures, provenance, tables
from sadcl.reports.page.label_tables import label_tables
from sadcl.reports.page.study import Row, StudyData, printable, run_title, study_data


def study_page(
    root: str,
    name: str,
    *,
    recipe: Callable[[Row], str] = provenance.config_code,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Make the page of a study.

    Args:
        root: the storage.
        name: of the study.
        recipe: returns the Python code of the configuration of a row of the trials table.
        progress: called with the number of evaluations done and their total.

    Raises:
        UserError: as :func:`sadcl.reports.page.study.study_data`, and of an ablation as
            :func:`sadcl.reports.ablation.ablation_report`.
    """
    study = study_data(root, name)
    report, best = study.comparison(), study.best_run()
    sections = {
        "asked": _question_section(study),
        "result": _result_section(study, report),
        "curves": figures.curves_section(study),
        "search": figures.search_section(study, progress) if _has_search(study) else None,
        "label_tables": label_tables(study),
        "cost": tables.cost_table(study),
        "failures": tables.failure_table(study),
        "made_by": provenance.made_by(study),
        "commands": provenance.commands(study, best),
        "recipe": recipe(best) if best else "",
    }
    page = _template().render(
        study=study,
        titles=_titles(study, sections),
        banners=answers.banners(study),
        answer=answers.answer(study, report),
        best=best and run_title(best),
        now=datetime.now(UTC),
        **sections,
    )
    return printable(page)


def _has_search(study: StudyData) -> bool:
    return study.kind == "search" and bool(study.main_runs)


def _question_section(study: StudyData) -> dict[str, Any]:
    return {
        "facts": tables.study_facts(study),
        "table": tables.space_or_arms(study),
        "shared": tables.shared_config(study),
    }


def _result_section(study: StudyData, report: AblationReport | None) -> dict[str, Any]:
    return {
        "tables": tables.leaderboard(study, report),
        "published": tables.published_table(study),
        "forest": figures.forest(report),
        "sentences": list(ablation_sentences(report)) if report else [],
        # A banner states the scale already.
        "notes": list(ablation_notes(report, with_scale=False)) if report else [],
        "best_epochs": tables.best_epoch_table(study),
    }


def _titles(study: StudyData, sections: Mapping[str, Any]) -> dict[str, str]:
    """Return the title of each section that the page has, by its id."""
    num_failures = len(sections["failures"])
    titles = {
        "answer": "The answer",
        "asked": "The question",
        "leaderboard": {"ablation": "The arms", "search": "The result"}.get(study.kind, "The runs"),
        "curves": "Learning curves" if sections["curves"].panels else "",
        "search": "The search" if sections["search"] else "",
        "labels": "Labels" if sections["label_tables"] else "",
        "cost": "Cost",
        "failures": f"Failures ({num_failures})" if num_failures else "Failures",
        "provenance": "Provenance",
        "recipe": "The best setting" if sections["recipe"] else "",
    }
    return {id_: title for id_, title in titles.items() if title}


def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sadcl.reports.page", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"class": _column_class, "minus": _with_minus_signs, "text": json.dumps}
    return environment.get_template("page.html")


def _column_class(rows: Sequence[Mapping[str, str]], name: str) -> str:
    """Choose the style of a column: ``n`` for numbers, ``t`` for long text, ``s`` for short."""
    texts = [row[name] for row in rows if row[name]]
    if all(re.fullmatch(r"[<+-]?[\d.,]+( ±.*| \(.*)?", text) for text in texts):
        return "n"
    return "t" if max(map(len, texts)) > 24 else "s"


def _with_minus_signs(text: str) -> str:
    """Replace the hyphen of negative numbers by the minus sign, which is as wide as a plus."""
    return re.sub(r"(?<![\w-])-(?=\d)", "\N{MINUS SIGN}", text)
