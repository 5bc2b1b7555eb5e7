"""A table, or the answer to a query, as a file for other programs or for a paper."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sadcl.errors import UserError
from sadcl.results import cache, query, store

SUFFIXES = {
    ".csv": "csv",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".parquet": "parquet",
    ".tex": "latex",
}
"""Kind of file by suffix."""
_TEX_ESCAPES = (
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "|": r"\textbar{}",
    }
    | {
        c: f"{{{c}}}" for c in "[]*"
    }  # the \\ that ends the row before would take them for its options
    | {"<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$", "✓": r"\checkmark{}"}
)


def table_or_query(root: str, name_or_sql: str, progress: cache.Progress | None = None) -> pa.Table:
    """Read a table by its name, or answer a query.

    Raises:
        UserError: for a table that does not exist, or a query that cannot be answered.
    """
    if re.fullmatch(r"\w+", name_or_sql):
        return store.read(root, name_or_sql, progress=progress)
    return query.sql(root, name_or_sql, progress=progress)


def file_kind(flags: Iterable[str], path: str | None) -> str:
    """Return the kind of file to write: by flag, else by the path's suffix, else CSV.

    Args:
        flags: the kinds that were given as flags.
        path: of the file; None is standard output.

    Raises:
        UserError: for several flags, or a suffix that is not in :data:`SUFFIXES`.
    """
    kinds = list(flags)
    if len(kinds) > 1:
        raise UserError(
            "Only one kind of file can be written, but got "
            f"{' and '.join(f'--{kind}' for kind in kinds)}."
        )
    if kinds:
        return kinds[0]
    if path is None:
        return "csv"
    suffix = f".{path.rsplit('.', 1)[-1].lower()}" if "." in path.rsplit("/", 1)[-1] else ""
    if suffix not in SUFFIXES:
        raise UserError(
            f"{path!r} does not say what kind of file it is: end it in {', '.join(SUFFIXES)}, or "
            "give --csv, --arrow, --parquet or --latex."
        )
    return SUFFIXES[suffix]


def encode(table: pa.Table, kind: str) -> bytes:
    """Return the table as a file of the kind ``csv``, ``arrow``, ``parquet`` or ``latex``."""
    buffer = io.BytesIO()
    if kind == "latex":
        return latex(table).encode()
    if kind == "parquet":
        import pyarrow.parquet as pq

        pq.write_table(_durations_as_seconds(table), buffer, compression="zstd")
    elif kind == "arrow":
        with pa.ipc.new_file(buffer, table.schema) as writer:
            writer.write_table(table)
    else:
        from pyarrow import csv

        csv.write_csv(_lists_as_json(_durations_as_seconds(table)), buffer)
    return buffer.getvalue()


def formula_note(table: pa.Table) -> str:
    """Return a warning of cells that a spreadsheet takes for formulas; empty if there are none.

    They stay as they are in CSV, because other programs read exactly what is there.
    """
    texts = [column for column in table.columns if pa.types.is_string(column.type)]
    first = ""
    for column in texts:
        begins = pc.match_substring_regex(column, r"^[=+\-@\t\r]").fill_null(False)
        is_number = pc.match_substring_regex(column, r"^[+-]?[\d.]+([eE][+-]?\d+)?$")
        found = column.filter(pc.and_not(begins, is_number.fill_null(False)))
        first = first or (found[0].as_py() if len(found) else "")
    if not first:
        return ""
    return (
        f"A spreadsheet takes cells such as {first[:40]!r} for formulas and computes them: import "
        "the columns as text there, or export --parquet."
    )


def _durations_as_seconds(table: pa.Table) -> pa.Table:
    """Replace durations by seconds in a column ``NAME_seconds``.

    Neither CSV nor Parquet has a type for them as DuckDB returns them.
    """
    for i, column in enumerate(table.schema):
        if pa.types.is_interval(column.type) or pa.types.is_duration(column.type):
            seconds = [_seconds(value) for value in table[i].to_pylist()]
            table = table.set_column(i, f"{column.name}_seconds", pa.array(seconds, pa.float64()))
    return table


def _seconds(value: Any) -> float | None:
    if value is None or isinstance(value, timedelta):
        return None if value is None else value.total_seconds()
    return (value.months * 30 + value.days) * 86_400 + value.nanoseconds / 1e9


def _lists_as_json(table: pa.Table) -> pa.Table:
    """Replace lists, which CSV does not have, by JSON, and columns without a type by text."""
    for i, column in enumerate(table.schema):
        if pa.types.is_nested(column.type):
            texts = [
                None if value is None else json.dumps(value, ensure_ascii=False, default=str)
                for value in table[i].to_pylist()
            ]
            table = table.set_column(i, column.name, pa.array(texts, pa.string()))
        elif pa.types.is_null(column.type):
            table = table.set_column(i, column.name, table[i].cast(pa.string()))
    return table


def tex(text: str) -> str:
    """Escape text for LaTeX, in one line."""
    return "".join(_TEX_ESCAPES.get(c, c) for c in " ".join(text.split()))


def latex(table: pa.Table) -> str:
    """Return a LaTeX tabular in the style of booktabs; names and cells may hold any character."""
    is_number = [
        pa.types.is_floating(c.type) or pa.types.is_integer(c.type) or pa.types.is_decimal(c.type)
        for c in table.schema
    ]
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    lines = [
        "% Needs the package booktabs.",
        f"\\begin{{tabular}}{{{''.join('r' if number else 'l' for number in is_number)}}}",
        r"\toprule",
        " & ".join(map(tex, table.column_names)) + r" \\",
        r"\midrule",
        *(" & ".join(tex(_cell(cell)) for cell in row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3g}"
    return value.isoformat(" ", "seconds") if isinstance(value, datetime) else str(value)
