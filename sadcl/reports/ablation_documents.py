"""An ablation as Markdown and as LaTeX, whatever its names hold."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sadcl.reports import ablation_text as words
from sadcl.reports.ablation import AblationReport
from sadcl.results.export import tex


@dataclass(frozen=True)
class Grid:
    """One table for all data sets: what an arm is, then what it came to on each.

    Attributes:
        about: the first columns.
        groups: each data set with its columns.
        rows: of cells, as many as columns.
    """

    about: list[str]
    groups: dict[str, list[str]]
    rows: list[list[str]]


def grid(report: AblationReport) -> Grid:
    tables = {dataset: words.ablation_table(report, dataset) for dataset in report.datasets}
    about = ["arm", *report.components]
    groups = {
        dataset: [name for name in lines[0] if name not in about]
        for dataset, lines in tables.items()
    }
    rows = [[line[name] for name in about] for line in next(iter(tables.values()), [])]
    for dataset, lines in tables.items():
        rows = [
            row + [line[name] for name in groups[dataset]]
            for row, line in zip(rows, lines, strict=True)
        ]
    return Grid(about, groups, rows)


def markdown(report: AblationReport) -> str:
    """Table, notes and sentences; and the runs that have no figure."""
    cells = grid(report)
    several = len(cells.groups) > 1
    own = [
        f"{dataset} {name}" if several else name
        for dataset, names in cells.groups.items()
        for name in names
    ]
    rule = ["---", *[":-:"] * (len(cells.about) - 1), *["--:"] * len(own)]
    parts = [
        f"### {_markdown(report.title)}",
        _lines([*cells.about, *own], rule, cells.rows),
        _markdown(" ".join(words.ablation_notes(report))),
        "\n".join(f"- {_markdown(text)}" for text in words.ablation_sentences(report)),
    ]
    if missing := words.runs_without_figure(report):
        head = list(missing[0])
        parts.append(
            _lines(
                head, ["---"] * len(head), [[str(row[name]) for name in head] for row in missing]
            )
        )
    return "\n\n".join(parts) + "\n"


def latex(report: AblationReport) -> str:
    """A table environment with its caption; what is shown stands in comments above it."""
    cells = grid(report)
    first = len(cells.about)
    columns = [*cells.about, *(name for names in cells.groups.values() for name in names)]
    heads, rules, at = [f"\\multicolumn{{{first}}}{{c}}{{}}"], [], first + 1
    for dataset, names in cells.groups.items():
        heads.append(f"\\multicolumn{{{len(names)}}}{{c}}{{{tex(dataset)}}}")
        rules.append(f"\\cmidrule(lr){{{at}-{at + len(names) - 1}}}")
        at += len(names)
    body = [
        [*map(tex, row[:first]), *(_number(tex(cell)) for cell in row[first:])]
        for row in cells.rows
    ]
    wide = "*" * (len(cells.groups) > 1)
    lines = [
        *_comments(report),
        f"\\begin{{table{wide}}}[t]",
        r"\centering\footnotesize",
        f"\\caption{{{tex(' '.join([report.question, *words.ablation_notes(report)]))}}}",
        f"\\label{{tab:{re.sub('[^A-Za-z0-9]+', '-', report.name).strip('-')}}}",
        f"\\begin{{tabular}}{{l{'c' * (first - 1)}{'r' * (len(columns) - first)}}}",
        r"\toprule",
        *([_row(heads), "".join(rules)] if cells.groups else []),
        _row(map(tex, columns)),
        r"\midrule",
        *map(_row, body),
        r"\bottomrule",
        r"\end{tabular}",
        f"\\end{{table{wide}}}",
    ]
    return "\n".join(lines) + "\n"


def _comments(report: AblationReport) -> list[str]:
    """What is shown, and what the table needs, for whoever opens the file."""
    lines = ["Needs the packages booktabs and amssymb.", *words.ablation_sentences(report)]
    if any(ord(c) > 0x17F for c in "".join([report.question, *report.arms, *report.components])):
        lines.insert(
            1,
            "Names have characters beyond Latin: compile with LuaLaTeX or XeLaTeX and a font that has them.",
        )
    return [f"% {' '.join(line.split())}" for line in lines]


def _lines(head: list[str], rule: list[str], rows: Iterable[list[str]]) -> str:
    """A table of Markdown."""
    escaped = [[_markdown(cell) for cell in row] for row in (head, *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [escaped[0], rule, *escaped[1:]])


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|$~&!])", r"\\\1", " ".join(text.split()))


def _number(cell: str) -> str:
    """Differences in mathematics mode, where a minus is one."""
    return re.sub(r"[+-][\d.]+", r"$\g<0>$", cell)
