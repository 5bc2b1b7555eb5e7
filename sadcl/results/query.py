"""Answer questions from the tables: SQL, the best trials, one trial, an overview of the studies."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import os
import re
import tempfile
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sadcl.errors import UserError
from sadcl.results import cache, files, schema, store, table_file
from sadcl.results.errors import FileVanished, UnknownName
from sadcl.results.status import ENDED, Status
from sadcl.results.store import SEE_SCHEMA, read
from sadcl.results.used_columns import used_columns

if TYPE_CHECKING:
    import duckdb


def sql(
    storage: str, query: str, *, memory: str | None = None, progress: cache.Progress | None = None
) -> pa.Table:
    """Answer a DuckDB query over the tables: one SELECT, which reads only the columns that it uses.

    The store is only read; the query reaches no other file and no network. What does not fit into
    memory goes to a temporary folder for as long as the query takes.

    Args:
        storage: root of the tables: a folder, s3://... or gs://...
        query: the SQL; tables have the names that :func:`sadcl.results.store.table_names` returns.
        memory: the most that DuckDB may use, ``"2GB"`` for example; None is four fifths of the
            machine's.
        progress: called while many files are read for the first time.

    Raises:
        UnknownName: for a table or column that does not exist.
        UserError: for another mistake in the query, or if the storage holds no tables.
    """
    if not query.strip():
        raise UserError(
            "The query is empty. For example: select arm, avg(val_mAP) from trials group by arm"
        )
    import duckdb

    store.check_store(storage)
    names = store.table_names()
    used = [name for name in names if re.search(rf"\b{name}\b", query, re.IGNORECASE)] or names
    try:
        return files.retry_if_vanished(lambda: _answer(storage, query, used, memory, progress))
    except duckdb.Error as error:
        raise _query_error(error, storage, query, used) from None


def _answer(
    root: str,
    query: str,
    used: Sequence[str],
    memory: str | None,
    progress: cache.Progress | None,
    all_columns: bool = False,
) -> pa.Table:
    import duckdb

    with tempfile.TemporaryDirectory(prefix="sadcl-") as scratch:
        config: dict[str, str | bool | int | float | list[str]] = {
            "temp_directory": scratch,
            "python_enable_replacements": "false",  # variables of this program are not tables
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
        if memory is not None:
            config["memory_limit"] = memory
        with duckdb.connect(config=config) as connection:
            columns = None if all_columns else used_columns(connection, query)
            paths = [
                path
                for name in used
                for path in _create_view(connection, root, name, progress, columns)
            ]
            connection.execute(
                "set enable_progress_bar = false"
            )  # it would be printed amid the answer
            connection.execute(f"set allowed_paths = [{', '.join(map(_literal, paths))}]")
            connection.execute("set enable_external_access = false")
            connection.execute("set lock_configuration = true")
            statements = connection.extract_statements(query)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise UserError(
                    "The query cannot be answered: it must be one SELECT (or WITH, FROM, DESCRIBE, "
                    "SUMMARIZE), because the tables are only read."
                )
            try:
                with _detect_vanished(paths):
                    return _with_unique_names(connection.sql(query).to_arrow_table())
            except duckdb.BinderException:
                if columns is None:
                    raise
    # the query uses a column that its text does not show, or one that does not exist
    return _answer(root, query, used, memory, progress, all_columns=True)


def _query_error(error: duckdb.Error, root: str, query: str, used: Sequence[str]) -> UserError:
    """Turn an error of DuckDB into ours.

    DuckDB's exceptions have no field for the name that does not exist, so it is read from their
    text, here only. If a version of DuckDB words it otherwise, its own text is shown.
    """
    text = str(error).strip()
    if match := re.search(r"Table with name (.+?) does not exist", text):
        return UnknownName("table", match[1], store.table_names(), remedy=SEE_SCHEMA)
    if match := re.search(r'Referenced column "(.+?)" not found|a column named "(.+?)"', text):
        column = match[1] or match[2]
        columns = dict.fromkeys(column for name in used for column in _columns(root, name))
        is_nested = re.search(r"\(\s*(select|from|with)\b|\bwith\b", query, re.IGNORECASE)
        if column not in columns and not is_nested:  # a nested query may have other columns
            place = f"the table{'s' if len(used) > 1 else ''} {', '.join(used)}"
            return UnknownName("column", column, columns, place, SEE_SCHEMA)
    return UserError(f"The query cannot be answered: {text}")


def _columns(root: str, table: str) -> list[str]:
    if table not in schema.TRIAL_TABLES:
        names: list[str] = read(root, table).column_names
        return names
    schemas = files.retry_if_vanished(lambda: cache.table_parts(root, table).schemas())
    return [column for one in schemas for column in one.names]


@contextlib.contextmanager
def _detect_vanished(paths: Sequence[str]) -> Iterator[None]:
    """Turn DuckDB's errors into :class:`FileVanished` if one of the files is gone."""
    import duckdb

    try:
        yield
    except (duckdb.IOException, duckdb.PermissionException):
        # A file that is gone is taken for a folder, to which there is no permission.
        if all(os.path.exists(path) for path in paths):
            raise
        raise FileVanished from None


def _with_unique_names(table: pa.Table) -> pa.Table:
    """Rename columns of the same name, as a self-join gives them: ``mAP``, ``mAP_1``."""
    names: list[str] = []
    for name in table.column_names:
        candidates = itertools.chain([name], (f"{name}_{i}" for i in itertools.count(1)))
        names.append(next(candidate for candidate in candidates if candidate not in names))
    return table.rename_columns(names)


def _create_view(
    connection: duckdb.DuckDBPyConnection,
    root: str,
    name: str,
    progress: cache.Progress | None,
    columns: Collection[str] | None,
) -> list[str]:
    """Hand DuckDB a table with at least these columns, and return the files that it reads."""
    if name not in schema.TRIAL_TABLES:
        connection.register(name, read(root, name))
        return []
    parts = cache.table_parts(root, name, progress, columns)
    schemas = parts.schemas()
    selects = _selects_from_files(connection, parts, schemas)
    in_memory = _rows_in_memory(name, parts, schemas[: len(parts.paths)])
    if in_memory is not None:
        connection.register(f"{name} in memory", in_memory)
        selects.append(f"select * from {_identifier(f'{name} in memory')}")
    with _detect_vanished(list(parts.paths)):
        connection.execute(f"create view {name} as {' union all by name '.join(selects)}")
    return list(parts.paths)


def _selects_from_files(
    connection: duckdb.DuckDBPyConnection, parts: cache.TableParts, schemas: Sequence[pa.Schema]
) -> list[str]:
    """Write the SELECTs that read the files.

    Each file with superseded rows or conflicting columns has one, and all others share one.
    """
    as_text = table_file.conflicting_columns(schemas)
    selects, plain = [], []
    for (path, superseded), one in zip(parts.paths.items(), schemas, strict=False):
        numbers = [c.name for c in one if c.name in as_text and pa.types.is_floating(c.type)]
        if not numbers and not superseded:
            plain.append(path)
            continue
        replacements = ", ".join(  # 3.0 becomes '3', as Arrow casts it
            f"regexp_replace({_identifier(c)}::varchar, '\\.0$', '') as {_identifier(c)}"
            for c in numbers
        )
        replace = f" replace ({replacements})" if numbers else ""
        select = f"select *{replace} from read_parquet({_literal(path)})"
        if superseded:
            keys = f"superseded in {path}"
            connection.register(keys, pa.table({"key": pa.array(superseded, pa.string())}))
            select += f" where key not in (select key from {_identifier(keys)})"
        selects.append(select)
    if plain:
        paths = ", ".join(map(_literal, plain))
        selects.append(f"select * from read_parquet([{paths}], union_by_name = true)")
    return selects


def _rows_in_memory(
    name: str, parts: cache.TableParts, file_schemas: Sequence[pa.Schema]
) -> pa.Table | None:
    """Join the rows in memory; None if there is no row, nor a column that the files lack."""
    rows = table_file.concatenate(parts.rows)
    in_files = {column for one in file_schemas for column in one.names}
    if in_files.issuperset(rows.column_names) and not len(rows):
        return None
    if name == "predictions":  # DuckDB reads float16 from files, but not from Arrow tables
        position = rows.column_names.index("logits")
        logits = rows["logits"].cast(pa.list_(pa.float32()))
        rows = rows.set_column(position, "logits", logits)
    return rows


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _identifier(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


def top(
    root: str,
    study: str | None = None,
    metric: str = "val_mAP",
    n: int = 10,
    *,
    phases: Sequence[str] | None = None,
    progress: cache.Progress | None = None,
) -> list[dict[str, Any]]:
    """Return the n best trials by a metric, best first; trials without it are left out.

    Args:
        root: of the store.
        study: None is all studies.
        metric: a column of numbers of the trials table.
        n: how many.
        phases: only trials of these phases; None is all.
        progress: called while many files are read for the first time.

    Raises:
        UnknownName: for a study or metric that does not exist.
    """
    condition = f" and study = {_literal(study)}" if study is not None else ""
    if phases is not None:
        condition += f" and phase in ({', '.join(map(_literal, phases))})"
    column = _identifier(metric)
    query = (
        f"select key from trials where isfinite({column}){condition} "
        f"order by {column} desc, key limit {int(n)}"
    )
    try:
        keys: list[str] = sql(root, query, progress=progress)["key"].to_pylist()
    except UserError:
        _check_metric(root, metric)
        raise
    rows = store.trials_of(root, keys)
    if rows and metric not in rows[0]:  # DuckDB takes val_map for val_mAP
        _check_metric(root, metric)
    if not rows and study is not None:
        names = set(read(root, "trials", ["study"])["study"].to_pylist()) - {None}
        if study not in names:
            raise UnknownName("study", study, sorted(names), repr(str(root)))
    return rows


def phase_counts(
    root: str, study: str | None = None, *, progress: cache.Progress | None = None
) -> dict[str, int]:
    """Return the number of trials of each phase, of a study or of all, most frequent first."""
    condition = "" if study is None else f" where study = {_literal(study)}"
    query = f"select phase, count(*) as n from trials{condition} group by phase order by n desc"
    return {row["phase"]: row["n"] for row in sql(root, query, progress=progress).to_pylist()}


def _check_metric(root: str, metric: str) -> None:
    columns = read(root, "trials").schema
    numbers = [column.name for column in columns if pa.types.is_floating(column.type)]
    if metric not in numbers:
        raise UnknownName("metric", metric, numbers, "the table trials", SEE_SCHEMA)


def show(root: str, key: str) -> dict[str, Any]:
    """Return one trial: its row, with its ``epochs`` and ``labels`` as lists of rows.

    Args:
        root: of the store.
        key: of the trial, or a part of it as :func:`find_key` takes it.

    Raises:
        UnknownName, UserError: as :func:`find_key`.
    """
    key = find_key(root, key)
    row = store.row_of(root, key)
    assert row is not None
    return {
        **row,
        "epochs": store.epochs_of(root, key),
        "labels": store.rows_of(root, "labels", key),
    }


def find_key(root: str, text: str) -> str:
    """Return the key of the trial that a text means: the key, or an end or a part of one trial's.

    Studies that try the same setting have trials whose keys end alike; ``STUDY/END`` is the one of
    a study.

    Raises:
        UnknownName: if no key has it, with the three that are most like it.
        UserError: if several keys have it.
    """
    store.check_store(root)
    if store.row_of(root, text) is not None:
        return text
    table = read(root, "trials", ["key", "study"])
    studies = dict(sorted(zip(*(table[n].to_pylist() for n in ("key", "study")), strict=True)))
    study, _, end = text.rpartition("/")
    keys = [key for key in studies if study in ("", studies[key])]
    if end:
        for matches in ([k for k in keys if k.endswith(end)], [k for k in keys if end in k]):
            if len(matches) == 1:
                return matches[0]
            if matches:
                first = studies[matches[0]]
                others = [key for key in matches[1:] if studies[key] == first]
                remedy = "" if study or others else f", or its study: '{first}/{text}'"
                raise UserError(
                    f"{text!r} is a part of {len(matches)} keys in {str(root)!r}, such as "
                    f"{', '.join(map(repr, matches[:3]))}. Give more of the key{remedy}."
                )
    raise UnknownName("trial", text, _nearest(end, keys or [*studies]), repr(str(root)), SEE_TOP)


def _nearest(text: str, keys: Sequence[str]) -> list[str]:
    """Return the three keys that are most like a text: as a whole, or in their ends."""

    def likeness(key: str) -> float:
        ends = (key, key[-len(text) :]) if text else (key,)
        return max(difflib.SequenceMatcher(None, text, end).ratio() for end in ends)

    return sorted(keys, key=likeness, reverse=True)[:3]


SEE_TOP = "`sadcl results top` prints keys; a unique end is enough."


def study_overview(root: str) -> list[dict[str, Any]]:
    """Return a row for each study: its trials by status, and its best held-out mAP in percent.

    A shared stage 1 is no answer to a study's question, and left out of the best.
    """
    counts = ", ".join(
        f"count(*) filter (status = {_literal(status)}) as {status}"
        for status in (*ENDED, Status.RUNNING)
    )
    query = f"""
        select study, any_value(dataset) as dataset, any_value(scale) as scale, count(*) as trials,
               {counts},
               max(val_mAP) filter (
                   where isfinite(val_mAP) and phase is distinct from 'stage1'
               ) as best_val_mAP,
               min(started) as started
        from trials group by study order by started
    """
    return sql(root, query).to_pylist()
