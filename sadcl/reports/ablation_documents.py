"""An ablation as a Markdown or LaTeX document; every name is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sadcl.reports.ablation import AblationReport
from sadcl.reports.ablation_text import (
    ablation_notes,
    ablation_sentences,
    ablation_table,
    runs_without_figure,
    software_note,
)
from sadcl.results.export import tex


@dataclass(frozen=True)
class Grid:
    """One table for all data sets.

    Attributes:
        arm_columns: the first columns: the arm and its components.
        dataset_columns: for each data set the columns of its figures.
        rows: the cells of each arm, one for each column.
    """

    arm_columns: list[str]
    dataset_columns: dict[str, list[str]]
    rows: list[list[str]]


def grid(report: AblationReport) -> Grid:
    """Join the tables of all data sets side by side."""
    tables = {dataset: ablation_table(report, dataset) for dataset in report.datasets}
    arm_columns = ["arm", *report.components]
    dataset_columns = {
        dataset: [name for name in lines[0] if name not in arm_columns]
        for dataset, lines in tables.items()
    }
    rows = [[line[name] for name in arm_columns] for line in next(iter(tables.values()), [])]
    for dataset, lines in tables.items():
        rows = [
            row + [line[name] for name in dataset_columns[dataset]]
            for row, line in zip(rows, lines, strict=True)
        ]
    return Grid(arm_columns, dataset_columns, rows)


def markdown(report: AblationReport) -> str:
    """Format the table, notes and findings, the runs without a figure, and the versions."""
    cells = grid(report)
    is_multiple = len(cells.dataset_columns) > 1
    figure_columns = [
        f"{dataset} {name}" if is_multiple else name
        for dataset, names in cells.dataset_columns.items()
        for name in names
    ]
    rule = ["---", *[":-:"] * (len(cells.arm_columns) - 1), *["--:"] * len(figure_columns)]
    parts = [
        f"### {_markdown(report.title)}",
        _markdown_table([*cells.arm_columns, *figure_columns], rule, cells.rows),
        _markdown(" ".join(ablation_notes(report))),
        "\n".join(f"- {_markdown(text)}" for text in ablation_sentences(report)),
    ]
    if missing := runs_without_figure(report):
        head = list(missing[0])
        rows = [[str(row[name]) for name in head] for row in missing]
        parts.append(_markdown_table(head, ["---"] * len(head), rows))
    if footer := software_note(report):
        parts.append(_markdown(footer))
    return "\n\n".join(parts) + "\n"


def latex(report: AblationReport) -> str:
    """Format a table environment with a caption; the findings are comments above it."""
    cells = grid(report)
    first = len(cells.arm_columns)
    columns = [*cells.arm_columns, *(n for names in cells.dataset_columns.values() for n in names)]
    body = [
        [*map(tex, row[:first]), *(_math_signs(tex(cell)) for cell in row[first:])]
        for row in cells.rows
    ]
    environment = "table*" if len(cells.dataset_columns) > 1 else "table"
    lines = [
        *_latex_comments(report),
        f"\\begin{{{environment}}}[t]",
        r"\centering\footnotesize",
        f"\\caption{{{tex(' '.join([report.question, *ablation_notes(report)]))}}}",
        f"\\label{{tab:{re.sub('[^A-Za-z0-9]+', '-', report.name).strip('-')}}}",
        f"\\begin{{tabular}}{{l{'c' * (first - 1)}{'r' * (len(columns) - first)}}}",
        r"\toprule",
        *_latex_dataset_heads(cells),
        _latex_row(map(tex, columns)),
        r"\midrule",
        *map(_latex_row, body),
        r"\bottomrule",
        r"\end{tabular}",
        f"\\end{{{environment}}}",
    ]
    return "\n".join(lines) + "\n"


def _latex_dataset_heads(cells: Grid) -> list[str]:
    """Format a row with each data set's name over its columns, and the rules below it."""
    if not cells.dataset_columns:
        return []
    column = len(cells.arm_columns) + 1
    heads, rules = [f"\\multicolumn{{{column - 1}}}{{c}}{{}}"], []
    for dataset, names in cells.dataset_columns.items():
        heads.append(f"\\multicolumn{{{len(names)}}}{{c}}{{{tex(dataset)}}}")
        rules.append(f"\\cmidrule(lr){{{column}-{column + len(names) - 1}}}")
        column += len(names)
    return [_latex_row(heads), "".join(rules)]


def _latex_comments(report: AblationReport) -> list[str]:
    """Format the required packages, the findings and the versions as comments."""
    lines = ["Needs the packages booktabs and amssymb."]
    if any(ord(c) > 0x17F for c in "".join([report.question, *report.arms, *report.components])):
        lines.append(
            "Some names have characters beyond Latin: compile with LuaLaTeX or XeLaTeX and a font "
            "that has them."
        )
    lines += ablation_sentences(report)
    if footer := software_note(report):
        lines.append(footer)
    return [f"% {' '.join(line.split())}" for line in lines]


def _markdown_table(head: list[str], rule: list[str], rows: Iterable[list[str]]) -> str:
    escaped = [[_markdown(cell) for cell in row] for row in (head, *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [escaped[0], rule, *escaped[1:]])


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _markdown(text: str) -> str:
    """Escape text for Markdown, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|$~&!])", r"\\\1", " ".join(text.split()))


def _math_signs(cell: str) -> str:
    """Set signed numbers in mathematics mode, where the minus is not a hyphen."""
    return re.sub(r"[+-][\d.]+", r"$\g<0>$", cell)
