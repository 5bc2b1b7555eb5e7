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
    kinds = [node.get(name) for node in nodes for name in ("class", "type", "ref_type")]
    if any(kind in _ALL for kind in kinds if isinstance(kind, str)):
        return None
    if any(node.get("column_name_alias") for node in nodes):  # `trials(a, b)` counts the columns
        return None
    functions = [node for node in nodes if node.get("class") == "FUNCTION"]
    # `query('...')` has columns in a text, and `device.upper()` one in place of a schema
    if any(
        one["function_name"] in ("query", "query_table") or one.get("schema") or one.get("catalog")
        for one in functions
    ):
        return None
    tables = {
        str(node[name]).lower() for node in nodes for name in ("alias", "table_name")
        if node.get("type") in ("BASE_TABLE", "SUBQUERY") and node.get(name)
    }  # fmt: skip
    references = [node["column_names"] for node in nodes if node.get("class") == "COLUMN_REF"]
    if any(names[-1].lower() in tables for names in references):
        return None  # `select t from trials t` is whole rows
    references += [node.get("using_columns") or [] for node in nodes]
    return {name.lower() for names in references for name in names}


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for name, part in value.items():
            if name == "modifiers":
                part = [_without_order_by_all(one) for one in part or ()]
            yield from _nodes(part)
    for part in value if isinstance(value, list) else ():
        yield from _nodes(part)


def _without_order_by_all(modifier: dict[str, Any]) -> dict[str, Any]:
    """Leave out ``order by all`` of a query, which means what is selected.

    In a function it means all columns of the table, and ``order by columns('...')`` those of a
    pattern.
    """
    orders = [
        order
        for order in modifier.get("orders") or ()
        if (one := order["expression"]).get("class") != "STAR" or one.get("expr")
    ]
    return modifier | {"orders": orders}
