"""The command ``sadcl results``: questions to the tables."""

from __future__ import annotations

from typing import Annotated

import typer

from sadcl.cli.shared_options import Key, Storage, StudyFlag, either
from sadcl.cli.table_options import prints_tables

results = typer.Typer(no_args_is_help=True, help="Query the tables of results.")


@results.command()
@prints_tables
def top(
    name: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="Look only at this study.")
    ] = None,
    storage: Storage = "runs",
    study: StudyFlag = None,
    metric: Annotated[
        str,
        typer.Option(
            metavar="COLUMN", help="Rank by this column of the trials table, which holds numbers."
        ),
    ] = "val_mAP",
    n: Annotated[int, typer.Option("-n", min=1, metavar="N", help="Print so many trials.")] = 10,
    phase: Annotated[
        str | None,
        typer.Option(
            metavar="PHASE",
            help="Rank the trials of this phase, such as arm or confirm, or of all phases "
            "(default: search where there are any, else arm or train).",
        ),
    ] = None,
) -> None:
    """Print the best trials, best first."""
    from sadcl.cli import trial_tables
    from sadcl.console import is_fitted, print_note, progress_bar, show_table
    from sadcl.results import query

    study = either(name, study)
    with progress_bar("reading") as show:
        progress = show("reading files for the first time")
        counts = query.phase_counts(storage, study, progress=progress)
        for phases in trial_tables.ranked_phases(counts, phase):
            rows = query.top(storage, study, metric, n, phases=phases, progress=progress)
            if rows:
                break
    rows = trial_tables.with_whole_numbers(rows)
    show_table(
        trial_tables.ranking(rows, metric),
        trial_tables.ranking_columns(metric),
        narrow=trial_tables.short_ranking(rows, metric),
    )
    if is_fitted() and phase is None and (others := trial_tables.other_phases(counts, phases)):
        print_note(others)


@results.command("studies")
@prints_tables
def print_studies(storage: Storage = "runs") -> None:
    """Print the studies: how many trials they have, how these ended, and the best held-out mAP."""
    from sadcl.cli import trial_tables
    from sadcl.console import show_table
    from sadcl.results import query

    rows = query.study_overview(storage)
    columns = list(rows[0]) if rows else ["study"]
    show_table(rows, columns, narrow=[trial_tables.short_study(row) for row in rows])


@results.command()
@prints_tables
def show(key: Key, storage: Storage = "runs") -> None:
    """Print everything about one trial: its row, its epochs, its labels."""
    from sadcl.cli import trial_tables
    from sadcl.console import is_exact, is_fitted, show_fields, show_table
    from sadcl.results import checkpoints, query

    trial = query.show(storage, key)
    trial["checkpoint"] = checkpoints.checkpoint_uri(storage, trial)
    epochs, labels = map(
        trial_tables.with_whole_numbers, (trial.pop("epochs"), trial.pop("labels"))
    )
    (trial,) = trial_tables.with_whole_numbers([trial])
    if is_fitted():
        show_fields(trial_tables.short_trial(trial))
    else:
        fields = {**trial, "params": trial_tables.params_of(trial)}  # rounded as on a terminal
        if not is_exact() and trial["config"]:
            fields["config"] = f"({len(trial['config']):,} characters of JSON: --raw shows them)"
        cells = [{"column": k, "value": v} for k, v in fields.items() if v is not None]
        show_table(cells, ["column", "value"])
    for title, rows in (("epochs", epochs), ("labels", labels)):
        columns = [
            name
            for name in (rows[0] if rows else {})
            if name not in ("key", "study") and any(row[name] is not None for row in rows)
        ]
        if rows:
            show_table(rows, columns, title=title, narrow=trial_tables.SHORT[title](rows))


@results.command()
@prints_tables
def sql(
    query: Annotated[
        str,
        typer.Argument(
            metavar="QUERY", help="For example: select arm, avg(val_mAP) from trials group by arm"
        ),
    ],
    storage: Storage = "runs",
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
) -> None:
    """Print the answer to a DuckDB query: one SELECT over the tables that `schema` lists."""
    from sadcl.cli import trial_tables
    from sadcl.console import progress_bar, show_table
    from sadcl.results import sql as query_tables

    with progress_bar("reading") as show:
        progress = show("reading files for the first time")
        table = query_tables(storage, query, progress=progress)
    if csv:
        from sadcl.results import export

        typer.echo(export.encode(table, "csv").decode(), nl=False)
        if note := export.formula_note(table):
            typer.echo(f"warning: {note}", err=True)
    else:
        rows = trial_tables.with_whole_numbers(table.to_pylist())
        show_table(rows, table.column_names)


@results.command()
def schema() -> None:
    """Print the tables and the meaning of each column."""
    from sadcl.console import show_table
    from sadcl.results import published
    from sadcl.results import schema as tables

    titles = {name: f"{name} (key: {', '.join(tables.KEYS[name])})" for name in tables.TABLES}
    columns = {titles[name]: tables.columns_of(name) for name in tables.TABLES}
    columns["published (the paper's tables)"] = published.COLUMNS
    for title, table in columns.items():
        rows = [
            {"column": name, "type": str(kind), "meaning": meaning}
            for name, (kind, meaning) in table.items()
        ]
        show_table(rows, title=title)


@results.command()
@prints_tables
def compare(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STUDY]...", help="The studies to compare (default: all)."),
    ] = None,
    storage: Storage = "runs",
) -> None:
    """Compare studies: the confirmed mean over seeds on the test images, and the best ever seen."""
    from sadcl.cli import trial_tables
    from sadcl.console import is_fitted, print_note, show_table
    from sadcl.reports import comparison

    compared = comparison.compare_studies(storage, names or ())
    rows = comparison.comparison_table(compared)
    narrow = [trial_tables.short_comparison(result) for result in compared]
    show_table(rows, list(rows[0]) if rows else ["study"], narrow=narrow)
    for note in trial_tables.comparison_notes(compared) if is_fitted() else ():
        print_note(note)


@results.command()
def export(
    query: Annotated[
        str, typer.Argument(metavar="TABLE|SQL", help="The name of a table, or a DuckDB query.")
    ],
    storage: Storage = "runs",
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write this file: a path, s3://... or gs://..."
        ),
    ] = None,
    csv: Annotated[
        bool, typer.Option("--csv", help="Write comma-separated values, with lists as JSON.")
    ] = False,
    arrow: Annotated[bool, typer.Option("--arrow", help="Write an Arrow file.")] = False,
    parquet: Annotated[bool, typer.Option("--parquet", help="Write a Parquet file.")] = False,
    latex: Annotated[
        bool, typer.Option("--latex", help="Write a LaTeX table for a paper.")
    ] = False,
) -> None:
    """Write a table, or the answer to a query, to a file; without --output to standard output."""
    import sys

    from sadcl import storage as files
    from sadcl.console import progress_bar
    from sadcl.results import export as exports

    flags = {"csv": csv, "arrow": arrow, "parquet": parquet, "latex": latex}
    kind = exports.file_kind([name for name, is_set in flags.items() if is_set], output)
    if output is not None:
        files.check_new(output)
    with progress_bar("reading") as show:
        table = exports.table_or_query(storage, query, show("reading files for the first time"))
    content = exports.encode(table, kind)
    if kind == "csv" and (note := exports.formula_note(table)):
        typer.echo(f"warning: {note}", err=True)
    if output is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    files.write(output, content)
    typer.echo(
        f"{output}: {table.num_rows:,} rows, {table.num_columns} columns, {len(content):,} bytes",
        err=True,
    )


@results.command()
def recipe(key: Key, storage: Storage = "runs") -> None:
    """Print a trial's setting as Python: the nearest recipe, and the fields that differ from it."""

    from sadcl import recipes
    from sadcl.config import Config
    from sadcl.errors import UserError
    from sadcl.results import query

    row = query.show(storage, key)
    if not row.get("config"):
        raise UserError(f"The trial {key!r} has no configuration in its row.")
    config = Config.stored(row["config"])
    typer.echo(recipes.code(config), nl=False)
    if row["config_digest"] != config.digest():
        typer.echo(
            "# The run was made by another version of the package: its configuration had the "
            f"digest {row['config_digest']};\n# with the fields that were added since then it has "
            f"{config.digest()}."
        )


@results.command()
def compact(storage: Storage = "runs") -> None:
    """Merge the small files of ended runs; other processes may read and write meanwhile."""
    from sadcl.console import progress_bar, show_table
    from sadcl.results import compact as compacting
    from sadcl.results import published_tables

    with progress_bar("merging") as show:
        merged = compacting.compact(storage, lambda table: show(f"merging {table}"))
        published_tables.publish(storage)
    rows = [{"table": m.table, "files before": m.before, "files now": m.after} for m in merged]
    show_table(rows, ["table", "files before", "files now"])


@results.command()
def publish(storage: Storage = "runs") -> None:
    """Write again the tables that other programs read; the runs keep them up to date."""
    from sadcl.results import compact as compacting
    from sadcl.results import published_tables

    compacting.compact(storage)  # moves what older versions wrote to where the others look
    published_tables.publish(storage)
    typer.echo(f"DuckDB, polars, pandas and Spark read {storage.rstrip('/')}/tables/TABLE now.")


@results.command()
def verify(
    storage: Storage = "runs",
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Read the local checkpoints too.")
    ] = False,
) -> None:
    """Look for faults in files, keys, duplicates, gaps, digests and figures.

    The exit code is 0 if there are none, else 1.
    """
    from sadcl.console import count_text, progress_bar
    from sadcl.results import verify as verifying

    with progress_bar("checking") as show:
        found = list(
            verifying.verify(
                storage, checkpoints=checkpoints, progress=lambda table: show(f"checking {table}")
            )
        )
    for fault in found:
        note = "Note: " if fault.is_note else ""
        typer.echo(f"{note}{fault.file}: {fault.problem}. {fault.remedy}")
    faults = [fault for fault in found if not fault.is_note]
    typer.echo(f"{count_text(len(faults), 'fault')}." if faults else "No fault was found.")
    raise typer.Exit(bool(faults))
