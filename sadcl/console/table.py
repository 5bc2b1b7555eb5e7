"""Tables on the terminal, in pipes and in files."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from sadcl.console.terminal import console, print_text
from sadcl.console.words import settings_text

_GAP = "  "
"""Between two columns."""
_LEAST_TEXT = 16
"""Characters of a text that are always shown."""


def show_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str] | None = None,
    title: str | None = None,
    *,
    narrow: Sequence[Mapping[str, Any]] | None = None,
    spare: Sequence[str] = (),
) -> None:
    """Print a table: fitted to the terminal, elsewhere tab-separated with the same rounding.

    Inside :func:`table_form` it is printed in that form.

    Args:
        rows: One mapping a row, which has all columns.
        columns: Their order; None takes that of the first row, and prints nothing where there is no
            row.
        title: A line above the table.
        narrow: The same rows in the words of people and with the columns that matter, for a
            terminal. A row takes one line there, and what is the same in all rows is said once
            above the table. None shows ``rows``, whose texts are wrapped between words.
        spare: Columns that a terminal leaves out first where the table is too wide for it.
    """
    if columns is None:
        if not rows:
            return
        columns = list(rows[0])
    if is_fitted():
        if narrow is not None:
            columns, title = _varying(narrow, title)
        _show_fitted(rows if narrow is None else narrow, columns, title, narrow is not None, spare)
    elif _form in ("json", "csv"):
        _collected.append((title, [{name: row[name] for name in columns} for row in rows]))
    else:
        is_wide = _form == "wide" and console.is_terminal
        fields = _fields_of(rows)
        cells = [
            [cell_text(row[name], exact=_form == "raw", fields=fields) for name in columns]
            for row in rows
        ]
        lines = [f"# {title}"] * bool(title)
        if is_wide:
            lines += table_lines(columns, cells, _widths(columns, cells, None))
        else:
            lines += ["\t".join(line) for line in (columns, *cells)]
        print("\n".join(lines))


def _fields_of(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """The fields of all settings in a table, so that a short name is of one field in all rows."""
    settings = [value for row in rows for value in row.values() if isinstance(value, Mapping)]
    return {field for one in settings for field in one}


def _varying(rows: Sequence[Mapping[str, Any]], title: str | None) -> tuple[list[str], str | None]:
    """The columns that differ between rows, and a title that says what is the same in all."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = {name: [cell_text(row.get(name)) for row in rows] for name in columns}
    same = {name: texts[0] for name, texts in cells.items() if len({*texts}) == 1}
    if len(rows) < 2:
        return [name for name in columns if same.get(name)], title
    text = ", ".join(f"{name} {text}" for name, text in same.items() if text)
    return [name for name in columns if name not in same], "; ".join(filter(None, (title, text)))


def _show_fitted(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    title: str | None,
    one_line: bool,
    spare: Sequence[str],
) -> None:
    """Print a table that is at most as wide as the terminal."""
    if title:
        print_text(title)
    shown: Sequence[str] = columns
    for shown in (columns, [name for name in columns if name not in spare]):
        texts = [[cell_text(row.get(name)) for name in shown] for row in rows]
        widths = _widths(shown, texts, console.width)
        if len(widths) == len(shown):
            break
    lines = table_lines(shown, texts, widths, one_line=one_line)
    rule = next(i for i, line in enumerate(lines) if not line.strip("- "))
    for number, line in enumerate(lines):
        console.print(Text(line, style="bold" if number < rule else ""), soft_wrap=True)
    if left_out := [name for name in columns if name not in shown[: len(widths)]]:
        print_text(f"Too wide for this terminal: {', '.join(left_out)}. --wide shows all.")


def show_fields(fields: Mapping[str, Any]) -> None:
    """Print names with their values, one below the other, for a terminal.

    Texts are wrapped between words, so that a path stays whole.
    """
    width = max(map(cell_len, fields), default=0)
    for name, value in fields.items():
        indent = name.ljust(width) + _GAP
        wrapped = textwrap.wrap(
            cell_text(value),
            max(console.width - len(indent), _LEAST_TEXT),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in wrapped or [""]:
            console.print(Text(f"{indent}{line}"), soft_wrap=True)
            indent = " " * len(indent)


def table_lines(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    widths: Sequence[int],
    *,
    one_line: bool = True,
) -> list[str]:
    """Lay out a table as lines of text: the headings, a rule, and the rows.

    Numbers are right-aligned. Headings take as many lines as they need.

    Args:
        headings: One for each column.
        rows: The cells of each row.
        widths: Of the columns that are shown, from the left.
        one_line: Whether each row takes one line; texts that are too long are cut there, and
            elsewhere wrapped between words.
    """
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in headings]
    right = [all(map(_is_number, filter(None, column))) for column in columns]
    aligned = [str.rjust if is_right else str.ljust for is_right in right]
    lines = []
    head = [_split_heading(text, w) for text, w in zip(headings, widths, strict=False)]
    height = max(map(len, head), default=0)
    for number in range(height):
        parts = [[""] * (height - len(words)) + words for words in head]
        cells = [part[number] for part in parts]
        lines.append(_line(cells, widths, aligned))
    lines.append(_GAP.join("-" * w for w in widths))
    for row in rows:
        cut = [_cell_lines(text, w, one_line) for text, w in zip(row, widths, strict=False)]
        for number in range(max(map(len, cut), default=0)):
            cells = [part[number] if number < len(part) else "" for part in cut]
            lines.append(_line(cells, widths, aligned))
    return lines


def _line(
    cells: Sequence[str], widths: Sequence[int], aligned: Sequence[Callable[..., str]]
) -> str:
    parts = zip(cells, widths, aligned, strict=False)
    return _GAP.join(
        align(text, w - cell_len(text) + len(text)) for text, w, align in parts
    ).rstrip()


def _widths(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> list[int]:
    """The width of each column, of as many columns as fit.

    Headings are broken first, between words and not within them, texts are shortened next, and then
    the last columns are left out.
    """
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in headings]
    natural = [max(map(cell_len, column), default=0) for column in columns]
    whole = [max(w, cell_len(text)) for w, text in zip(natural, headings, strict=True)]
    if width is None:
        return whole
    words = [max(cell_len(part.rstrip()) for part in _heading_parts(text)) for text in headings]
    least = [max(pair) for pair in zip(natural, words, strict=True)]
    texts = [i for i in range(len(least)) if not all(map(_is_number, columns[i]))]
    while _total(least) > width and texts:
        longest = max(texts, key=lambda i: least[i])
        if least[longest] <= max(_LEAST_TEXT, words[longest]):
            break
        least[longest] -= 1
    while len(least) > 1 and _total(least) > width:
        least.pop()
    for i in range(len(least)):  # headings that fit in fewer lines
        if least[i] >= natural[i]:
            least[i] = min(whole[i], least[i] + max(width - _total(least), 0))
    return least


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _heading_parts(text: str) -> list[str]:
    """Where a heading may be broken: after a blank, a dot, a hyphen or an underscore."""
    return re.findall(r"[^ ._-]+[ ._-]*", text) or [""]


def _split_heading(text: str, width: int) -> list[str]:
    lines = [""]
    for part in _heading_parts(text):
        if cell_len(lines[-1] + part.rstrip()) > width and lines[-1]:
            lines.append("")
        lines[-1] += part
        while cell_len(lines[-1].rstrip()) > width:
            lines[-1], rest = lines[-1][: width - 1] + "-", lines[-1][width - 1 :]
            lines.append(rest)
    return [line.rstrip() for line in lines]


def _cell_lines(text: str, width: int, one_line: bool) -> list[str]:
    if cell_len(text) <= width:
        return [text]
    if one_line:
        return [set_cell_size(text, max(width - 1, 0)).rstrip() + "…"]
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?[\d,.]+(e[-+]?\d+)?|[-+]?(nan|inf)|", text) is not None


def cell_text(value: Any, exact: bool = False, fields: Iterable[str] = ()) -> str:
    """Write a value for a table: two decimals, or three digits of what is below 0.1.

    Args:
        value: What the cell holds; None is empty.
        exact: Write every digit instead.
        fields: Of the settings in other cells, as for :func:`sadcl.console.settings_text`.
    """
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return json.dumps(value) if exact else settings_text(value, fields)
    if exact:
        return repr(value) if isinstance(value, float) else str(value)
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 0.1 or not value else f"{value:.3g}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return str(value)


@contextlib.contextmanager
def table_form(form: str) -> Iterator[None]:
    """Print the tables of a block in a form.

    Args:
        form: ``fit``: to the terminal's width, or tab-separated where there is no terminal.
            ``wide``: with all columns. ``raw``: tab-separated with all digits. ``json`` and
            ``csv``: written when the block has ended.
    """
    global _form
    _collected.clear()
    previous, _form = _form, form
    try:
        yield
        if form == "json":
            named = {title or "rows": rows for title, rows in _collected}
            whole = _collected[0][1] if len(_collected) == 1 else named
            print(json.dumps(_without_nan(whole), indent=1, ensure_ascii=False, default=str))
        elif form == "csv":
            for title, rows in _collected:
                if len(_collected) > 1:
                    print(f"# {title or 'rows'}")
                writer = csv.DictWriter(sys.stdout, list(rows[0]) if rows else [])
                writer.writeheader()
                writer.writerows(
                    {k: json.dumps(v) if isinstance(v, Mapping) else v for k, v in row.items()}
                    for row in rows
                )
    finally:
        _form = previous


_form = "fit"
_collected: list[tuple[str | None, list[dict[str, Any]]]] = []


def _without_nan(value: Any) -> Any:
    """Replace what JSON has no word for by null."""
    if isinstance(value, Mapping):
        return {name: _without_nan(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_fitted() -> bool:
    """Whether tables are fitted to a terminal, so that people read them."""
    return _form == "fit" and console.is_terminal


def is_exact() -> bool:
    """Whether tables are printed for programs, with every digit of every column."""
    return _form in ("raw", "json", "csv")


def print_note(text: str) -> None:
    """Print a sentence about a table; beside JSON and CSV it goes to standard error."""
    if _form in ("json", "csv"):
        print(text, file=sys.stderr)
    else:
        print_text(text)
