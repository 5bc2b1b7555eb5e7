"""Questions to the tables: SQL, and the few that are asked every day."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from sadcl.errors import UserError
from sadcl.results import schema
from sadcl.results.store import nearest, read


def sql(root: str, query: str) -> pa.Table:
    """Answer of DuckDB to a query over the tables ``trials``, ``epochs`` and ``labels``.

    The store is only read, and the query can reach no file and no network.

    Raises:
        UserError: for a query that is wrong, with the nearest name where one was mistyped.
    """
    if not query.strip():
        raise UserError("The query is empty. For example: select arm, avg(val_mAP) from trials group by arm")
    import duckdb

    with duckdb.connect(config={"enable_external_access": "false"}) as connection:
        for name in schema.TABLES:
            connection.register(name, read(root, name))
        connection.execute("set lock_configuration = true")
        try:
            relation = connection.sql(query)
            return relation.to_arrow_table() if relation is not None else pa.table({})
        except duckdb.Error as error:
            raise UserError(f"The query cannot be answered: {str(error).strip()}") from None


def top(root: str, study: str | None = None, metric: str = "val_mAP", n: int = 10) -> list[dict[str, Any]]:
    """The n best trials by a metric, best first, those without it left out.

    Raises:
        UserError: for an unknown study or metric.
    """
    trials = read(root, "trials")
    numbers = [f.name for f in trials.schema if pa.types.is_floating(f.type)]
    if metric not in numbers:
        raise UserError(f"The trials have no metric {metric!r}{nearest(metric, numbers)}")
    rows = [row for row in trials.to_pylist() if study is None or row["study"] == study]
    if study is not None and not rows:
        raise UserError(f"There is no study {study!r} here{nearest(study, sorted(set(trials['study'].to_pylist())))}")
    scored = [row for row in rows if row[metric] is not None and row[metric] == row[metric]]
    return sorted(scored, key=lambda row: -row[metric])[:n]


def show(root: str, key: str) -> dict[str, Any]:
    """One trial: its row with ``epochs`` and ``labels`` as lists.

    Raises:
        UserError: for an unknown key.
    """
    found = [row for row in read(root, "trials").to_pylist() if row["key"] == key]
    if not found:
        keys = sorted(read(root, "trials")["key"].to_pylist())
        raise UserError(f"There is no trial {key!r}{nearest(key, keys)}")
    parts = {name: [r for r in read(root, name).to_pylist() if r["key"] == key] for name in ("epochs", "labels")}
    return {**found[0], **parts}


def studies(root: str) -> list[dict[str, Any]]:
    """Each study with its trials by status and its best held-out mAP."""
    query = """
        select study, any_value(dataset) as dataset, any_value(scale) as scale, count(*) as trials,
               count(*) filter (status = 'complete') as complete, count(*) filter (status = 'pruned') as pruned,
               count(*) filter (status = 'failed') as failed, count(*) filter (status = 'running') as running,
               max(val_mAP) as best_val_mAP, min(started) as started
        from trials group by study order by started
    """
    return sql(root, query).to_pylist()
