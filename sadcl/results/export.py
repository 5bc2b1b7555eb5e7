"""A table or an answer as a file for other programs, and for a paper."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from sadcl.errors import UserError
from sadcl.results import cache, query, store

SUFFIXES = {
    ".csv": "csv",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".parquet": "parquet",
    ".tex": "latex",
}
_TEX = (
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "|": r"\textbar{}",
    }
    | {c: f"{{{c}}}" for c in "[]*"}  # which a row's \\ before them would take for its own
    | {"<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$", "✓": r"\checkmark{}"}
)


def answer(root: str, what: str, progress: cache.Progress | None = None) -> pa.Table:
    """A table by its name, or the answer to a query.

    Raises:
        UserError: for neither.
    """
    if re.fullmatch(r"\w+", what):
        return store.read(root, what, progress=progress)
    return query.sql(root, what, progress=progress)


def kind_of(given: Iterable[str], path: str | None) -> str:
    """The kind of file that was asked for, by name or by the file's suffix; CSV where nothing says.

    Raises:
        UserError: for several, or another suffix.
    """
    names = list(given)
    if len(names) > 1:
        raise UserError(
            f"One kind of file at a time, but got {' and '.join(f'--{name}' for name in names)}."
        )
    if names:
        return names[0]
    if path is None:
        return "csv"
    suffix = f".{path.rsplit('.', 1)[-1].lower()}" if "." in path.rsplit("/", 1)[-1] else ""
    if suffix not in SUFFIXES:
        raise UserError(
            f"{path!r} does not say what kind of file it is: end it in {', '.join(SUFFIXES)}, or give --csv, ..."
        )
    return SUFFIXES[suffix]


def encode(table: pa.Table, kind: str) -> bytes:
    """The table as ``csv``, ``arrow`` (an Arrow file), ``parquet`` or ``latex``."""
    buffer = io.BytesIO()
    if kind == "latex":
        return latex(table).encode()
    if kind == "parquet":
        import pyarrow.parquet as pq

        pq.write_table(_spans(table), buffer, compression="zstd")
    elif kind == "arrow":
        with pa.ipc.new_file(buffer, table.schema) as writer:
            writer.write_table(table)
    else:
        from pyarrow import csv

        csv.write_csv(_flat(_spans(table)), buffer)
    return buffer.getvalue()


def _spans(table: pa.Table) -> pa.Table:
    """Differences of times, which neither CSV nor Parquet has as DuckDB gives them, as seconds."""
    for i, column in enumerate(table.schema):
        if pa.types.is_interval(column.type) or pa.types.is_duration(column.type):
            seconds = [_seconds(value) for value in table[i].to_pylist()]
            table = table.set_column(i, f"{column.name}_seconds", pa.array(seconds, pa.float64()))
    return table


def _seconds(value: Any) -> float | None:
    if value is None or isinstance(value, timedelta):
        return None if value is None else value.total_seconds()
    return (value.months * 30 + value.days) * 86_400 + value.nanoseconds / 1e9


def _flat(table: pa.Table) -> pa.Table:
    """Lists, which CSV does not have, as JSON."""
    for i, column in enumerate(table.schema):
        if pa.types.is_nested(column.type):
            texts = [
                None if v is None else json.dumps(v, ensure_ascii=False, default=str)
                for v in table[i].to_pylist()
            ]
            table = table.set_column(i, column.name, pa.array(texts, pa.string()))
        elif pa.types.is_null(column.type):
            table = table.set_column(i, column.name, table[i].cast(pa.string()))
    return table


def tex(text: str) -> str:
    """Text as LaTeX prints it, in one line."""
    return "".join(_TEX.get(c, c) for c in " ".join(text.split()))


def latex(table: pa.Table) -> str:
    """A tabular environment in the manner of booktabs, whatever names and cells hold."""
    numbers = [
        pa.types.is_floating(c.type) or pa.types.is_integer(c.type) or pa.types.is_decimal(c.type)
        for c in table.schema
    ]
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    lines = [
        "% Needs the package booktabs.",
        f"\\begin{{tabular}}{{{''.join('r' if number else 'l' for number in numbers)}}}",
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
