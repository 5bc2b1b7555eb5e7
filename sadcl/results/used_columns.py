"""Which columns of the tables a query may use, from DuckDB's own parser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

_ALL = {"STAR", "NATURAL", "SHOW_REF", "PIVOT", "POSITIONAL_REFERENCE"}
"""Nodes of a parsed query that may stand for columns which it does not name."""


def used_columns(connection: duckdb.DuckDBPyConnection, query: str) -> set[str] | None:
    """Return, in lower case, every name in a query that may be that of a column.

    New names that the query gives are among them, and names of tables.

    Args:
        connection: Any; the query is only parsed.
        query: One SELECT.

    Returns:
        The names; None if the query may use all columns, or cannot be parsed.
    """
    import duckdb

    try:
        rows = connection.execute("select json_serialize_sql(?::varchar)", [query]).fetchall()
    except duckdb.Error:  # it has no parser that could be asked
        return None
    parsed = json.loads(rows[0][0])
    if parsed.get("error", True):
        return None
    nodes = list(_nodes(parsed))
    if any(_ALL & {node.get(name) for name in ("class", "type", "ref_type")} for node in nodes):
        return None
    if any(node.get("column_name_alias") for node in nodes):  # `trials(a, b)` counts the columns
        return None
    tables = {
        str(node[name]).lower() for node in nodes for name in ("alias", "table_name")
        if node.get("type") in ("BASE_TABLE", "SUBQUERY") and node.get(name)
    }  # fmt: skip
    references = [node["column_names"] for node in nodes if node.get("class") == "COLUMN_REF"]
    if any(len(names) == 1 and names[0].lower() in tables for names in references):
        return None  # `select t from trials t` is whole rows
    references += [node.get("using_columns") or [] for node in nodes]
    return {name.lower() for names in references for name in names}


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if _is_order_by_all(value):
            return
        yield value
        value = list(value.values())
    for part in value if isinstance(value, list) else ():
        yield from _nodes(part)


def _is_order_by_all(node: dict[str, Any]) -> bool:
    """Return whether a node is that of ``order by all``, which means what is selected."""
    expression = node.get("expression")
    return (
        "null_order" in node and isinstance(expression, dict) and expression.get("class") == "STAR"
    )
