"""Questions to the tables: SQL, and the few that are asked every day."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sadcl.errors import UserError
from sadcl.results import cache, files, schema, store
from sadcl.results.store import nearest, read

if TYPE_CHECKING:
    import duckdb


def sql(
    root: str, query: str, *, memory: str | None = None, progress: cache.Progress | None = None
) -> pa.Table:
    """Answer of DuckDB to a query over the tables: one SELECT, which reads no more than the columns that it uses.

    The store is only read; the query can reach no other file and no network. What does not fit into memory is kept in a
    folder of its own for as long as the query takes.

    Args:
        memory: that DuckDB may use, ``"2GB"`` for example; None is four fifths of what there is.
        progress: called while many files are read for the first time.

    Raises:
        UserError: for a query that is wrong, with the nearest name where one was mistyped.
    """
    if not query.strip():
        raise UserError(
            "The query is empty. For example: select arm, avg(val_mAP) from trials group by arm"
        )
    import duckdb

    store.check_root(root)
    used = [
        name for name in store.tables() if re.search(rf"\b{name}\b", query, re.IGNORECASE)
    ] or store.tables()
    try:
        return files.steady(lambda: _ask(root, query, used, memory, progress))
    except duckdb.CatalogException as error:
        missing = re.search(r"Table with name (.+?) does not exist", str(error))
        if missing:
            raise UserError(
                f"There is no table {missing[1]!r}{nearest(missing[1], store.tables())}"
            ) from None
        raise UserError(f"The query cannot be answered: {str(error).strip()}") from None
    except duckdb.Error as error:
        raise UserError(f"The query cannot be answered: {str(error).strip()}") from None


def _ask(
    root: str, query: str, used: Sequence[str], memory: str | None, progress: cache.Progress | None
) -> pa.Table:
    import duckdb

    with tempfile.TemporaryDirectory(prefix="sadcl-") as scratch:
        config: dict[str, str | bool | int | float | list[str]] = {
            "temp_directory": scratch,
            "python_enable_replacements": "false",  # names of variables of this program are no tables
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
        if memory is not None:
            config["memory_limit"] = memory
        with duckdb.connect(config=config) as connection:
            paths = [path for name in used for path in _view(connection, root, name, progress)]
            connection.execute(
                "set enable_progress_bar = false"
            )  # it would stand in the midst of the answer
            connection.execute(f"set allowed_paths = [{', '.join(map(_text, paths))}]")
            connection.execute("set enable_external_access = false")
            connection.execute("set lock_configuration = true")
            statements = connection.extract_statements(query)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise UserError(
                    "The query cannot be answered: it must be one SELECT (or WITH, FROM, DESCRIBE, SUMMARIZE), because the "
                    "tables are only read."
                )
            with _while_there(paths):
                return _named(connection.sql(query).to_arrow_table())


@contextlib.contextmanager
def _while_there(paths: Sequence[str]) -> Iterator[None]:
    """Turns DuckDB's errors about a file that is gone into :class:`files.Vanished`."""
    import duckdb

    try:
        yield
    except (
        duckdb.IOException,
        duckdb.PermissionException,
    ):  # what is gone, DuckDB looks for as a folder
        if all(os.path.exists(path) for path in paths):
            raise
        raise files.Vanished from None


def _named(table: pa.Table) -> pa.Table:
    """Columns of one name, as a join of a table with itself has them, told apart: ``mAP``, ``mAP_1``."""
    names: list[str] = []
    for name in table.column_names:
        others = itertools.chain([name], (f"{name}_{i}" for i in itertools.count(1)))
        names.append(next(other for other in others if other not in names))
    return table.rename_columns(names)


def _view(
    connection: duckdb.DuckDBPyConnection, root: str, name: str, progress: cache.Progress | None
) -> list[str]:
    """Make a table known to DuckDB; gives the files that it reads."""
    if name not in schema.BY_RUN:
        connection.register(name, read(root, name))
        return []
    parts = cache.parts(root, name, progress)
    schemas = parts.schemas()
    words = files.mixed(schemas)
    selects, plain = [], []
    for (path, without), one in zip(parts.paths.items(), schemas, strict=False):
        numbers = [c.name for c in one if c.name in words and pa.types.is_floating(c.type)]
        if not numbers and not without:
            plain.append(path)
            continue
        # as Arrow writes them
        as_text = ", ".join(
            f"regexp_replace({_name(c)}::varchar, '\\.0$', '') as {_name(c)}" for c in numbers
        )
        select = (
            f"select *{f' replace ({as_text})' * bool(numbers)} from read_parquet({_text(path)})"
        )
        if without:
            superseded = f"superseded in {path}"
            connection.register(superseded, pa.table({"key": pa.array(without, pa.string())}))
            select += f" where key not in (select key from {_name(superseded)})"
        selects.append(select)
    if plain:
        selects.append(
            f"select * from read_parquet([{', '.join(map(_text, plain))}], union_by_name = true)"
        )
    rows = files.together(parts.rows)
    there = {column for one in schemas[: len(parts.paths)] for column in one.names}
    if there.issuperset(rows.column_names) and not len(rows):
        rows = None
    elif name == "predictions":  # DuckDB takes float16 from files alone
        at = rows.column_names.index("logits")
        rows = rows.set_column(at, "logits", rows["logits"].cast(pa.list_(pa.float32())))
    if rows is not None:
        connection.register(f"{name} in memory", rows)
        selects.append(f"select * from {_name(f'{name} in memory')}")
    with _while_there(list(parts.paths)):
        connection.execute(f"create view {name} as {' union all by name '.join(selects)}")
    return list(parts.paths)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _name(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


def top(
    root: str,
    study: str | None = None,
    metric: str = "val_mAP",
    n: int = 10,
    *,
    progress: cache.Progress | None = None,
) -> list[dict[str, Any]]:
    """The n best trials by a metric, best first, those without it left out.

    Args:
        progress: called while many files are read for the first time.

    Raises:
        UserError: for an unknown study or metric.
    """
    only = f" and study = {_text(study)}" if study is not None else ""
    column = _name(metric)
    query = f"select * from trials where isfinite({column}){only} order by {column} desc, key limit {int(n)}"
    try:
        rows: list[dict[str, Any]] = sql(root, query, progress=progress).to_pylist()
        if rows and metric not in rows[0]:  # DuckDB does not tell capitals from others
            raise UserError(metric)
    except UserError:
        columns = read(root, "trials").schema
        numbers = [f.name for f in columns if pa.types.is_floating(f.type)]
        if metric in numbers:
            raise
        raise UserError(f"The trials have no metric {metric!r}{nearest(metric, numbers)}") from None
    if not rows and study is not None:
        names = set(read(root, "trials", ["study"])["study"].to_pylist()) - {None}
        if study not in names:
            raise UserError(f"There is no study {study!r} here{nearest(study, sorted(names))}")
    return rows


def show(root: str, key: str) -> dict[str, Any]:
    """One trial: its row with ``epochs`` and ``labels`` as lists.

    Raises:
        UserError: for an unknown key.
    """
    store.check_root(root)
    row = store.row_of(root, key)
    if row is None:
        keys = sorted(read(root, "trials", ["key"])["key"].to_pylist())
        raise UserError(f"There is no trial {key!r}{nearest(key, keys)}")
    return {
        **row,
        "epochs": store.epochs_of(root, key),
        "labels": store.rows_of(root, "labels", key),
    }


def studies(root: str) -> list[dict[str, Any]]:
    """Each study with its trials by status and its best held-out mAP."""
    query = """
        select study, any_value(dataset) as dataset, any_value(scale) as scale, count(*) as trials,
               count(*) filter (status = 'complete') as complete, count(*) filter (status = 'pruned') as pruned,
               count(*) filter (status = 'failed') as failed, count(*) filter (status = 'running') as running,
               max(val_mAP) filter (where isfinite(val_mAP)) as best_val_mAP, min(started) as started
        from trials group by study order by started
    """
    return sql(root, query).to_pylist()
