"""The command ``sadcl results``: questions to the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    pass


from sadcl.cli.options import Storage, Study

results = typer.Typer(no_args_is_help=True, help="Ask the tables of a study.")


@results.command()
def top(
    storage: Storage = "runs",
    study: Study = None,
    metric: Annotated[
        str, typer.Option(help="A column of numbers of the trials table.")
    ] = "val_mAP",
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 10,
) -> None:
    """The best trials, best first."""
    from sadcl.console import progress_bar
    from sadcl.results import query

    with progress_bar("reading") as show:
        rows = query.top(
            storage, study, metric, n, progress=show("reading files for the first time")
        )
    columns = [
        "key",
        "study",
        "phase",
        "arm",
        "seed",
        "status",
        *dict.fromkeys([metric, "val_mAP", "test_mAP"]),
        "settings",
    ]
    _table([{**row, "settings": _settings(row)} for row in rows], columns)


@results.command("studies")
def overview(storage: Storage = "runs") -> None:
    """The studies: how many trials, how they ended, the best held-out mAP."""
    from sadcl.results import query

    rows = query.studies(storage)
    _table(rows, list(rows[0]) if rows else ["study"])


@results.command()
def show(
    key: Annotated[str, typer.Argument(help="Of the trial, as `top` prints it.")],
    storage: Storage = "runs",
) -> None:
    """All that is known of one trial: its row, its epochs, its labels."""
    from sadcl.results import query

    trial = query.show(storage, key)
    epochs, labels = trial.pop("epochs"), trial.pop("labels")
    _table(
        [{"column": k, "value": v} for k, v in trial.items() if v is not None], ["column", "value"]
    )
    for title, rows in (("epochs", epochs), ("labels", labels)):
        used = [
            name
            for name in (rows[0] if rows else {})
            if name not in ("key", "study") and any(r[name] is not None for r in rows)
        ]
        if rows:
            _table(rows, used, title=title)


@results.command()
def sql(
    query: Annotated[
        str, typer.Argument(help="For example: select arm, avg(val_mAP) from trials group by arm")
    ],
    storage: Storage = "runs",
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
) -> None:
    """The answer to a DuckDB query, one SELECT over the tables (see `schema`), which are only read."""
    from sadcl.console import progress_bar
    from sadcl.results import sql as ask

    with progress_bar("reading") as show:
        table = ask(storage, query, progress=show("reading files for the first time"))
    if csv:
        from sadcl.results import export

        typer.echo(export.encode(table, "csv").decode(), nl=False)
    else:
        _table(table.to_pylist(), table.column_names)


@results.command()
def schema() -> None:
    """The tables, their columns and what they mean."""
    from sadcl.results import published
    from sadcl.results import schema as tables

    for name, columns in tables.TABLES.items():
        rows = [
            {"column": c, "type": str(kind), "meaning": meaning}
            for c, (kind, meaning) in columns.items()
        ]
        _table(
            rows,
            ["column", "type", "meaning"],
            title=f"{name} (key: {', '.join(tables.KEYS[name])})",
        )
    rows = [
        {"column": c, "type": str(kind), "meaning": meaning}
        for c, (kind, meaning) in published.COLUMNS.items()
    ]
    _table(rows, ["column", "type", "meaning"], title="published (the paper's tables)")


@results.command()
def ablation(
    study: Annotated[str, typer.Option(help="An ablation.")],
    storage: Storage = "runs",
    baseline: Annotated[
        str | None, typer.Option(help="The arm to compare with; the study's own.")
    ] = None,
    metric: Annotated[
        str, typer.Option(help="A column in percent of the trials table.")
    ] = "test_mAP",
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a document in Markdown.")
    ] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print a table for a paper.")] = False,
    plot: Annotated[
        str | None, typer.Option(help="Draw the differences there: .png, .svg or .pdf.")
    ] = None,
) -> None:
    """What each arm of an ablation gives, over the seeds that it shares with the baseline: table, intervals, verdicts."""
    from sadcl.errors import UserError
    from sadcl.reports import ablation as ablations
    from sadcl.reports import ablation_documents, forest_plot, plot_style
    from sadcl.reports import ablation_text as words

    if markdown and latex:
        raise UserError("--markdown and --latex cannot both be printed: give one of them.")
    if plot is not None:
        plot_style.check_ending(plot)
    found = ablations.ablation_report(storage, study, baseline, metric)
    if markdown or latex:
        typer.echo(
            ablation_documents.markdown(found) if markdown else ablation_documents.latex(found),
            nl=False,
        )
    else:
        typer.echo(found.title)
        for dataset in found.datasets:
            lines = words.ablation_table(found, dataset)
            _table(lines, list(lines[0]), title=dataset)
        for text in (*words.ablation_notes(found), *words.ablation_sentences(found)):
            typer.echo(text)
        if missing := words.runs_without_figure(found):
            _table(missing, list(missing[0]), title="runs without a figure")
    if plot is not None:
        forest_plot.draw_forest(found, plot)
        typer.echo(f"the differences are drawn in {plot}", err=True)


def _settings(row: Mapping[str, Any]) -> str:
    import json

    from sadcl.console import settings_text

    return settings_text(json.loads(row["params"] or "{}"))


def _table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str | None = None
) -> None:
    from sadcl.console import show_table

    show_table(rows, columns, title)


@results.command()
def compare(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[STUDY]...", help="All where none is given.")
    ] = None,
    storage: Storage = "runs",
) -> None:
    """Studies side by side: the confirmed mean over seeds on the test images, beside the best that was ever seen."""
    from sadcl.reports import comparison

    rows = comparison.comparison_table(comparison.compare_studies(storage, names or ()))
    _table(rows, list(rows[0]) if rows else ["study"])


@results.command()
def export(
    what: Annotated[str, typer.Argument(metavar="TABLE|SQL", help="A table's name, or a query.")],
    storage: Storage = "runs",
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="The file: local, s3://... or gs://...")
    ] = None,
    csv: Annotated[
        bool, typer.Option("--csv", help="Comma-separated values; lists as JSON.")
    ] = False,
    arrow: Annotated[bool, typer.Option("--arrow", help="An Arrow file.")] = False,
    parquet: Annotated[bool, typer.Option("--parquet", help="A Parquet file.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="A table for a paper.")] = False,
) -> None:
    """A table, or the answer to a query, as a file; without --output on standard output."""
    import sys

    from sadcl import storage as places
    from sadcl.console import progress_bar
    from sadcl.results import export as exports

    flags = {"csv": csv, "arrow": arrow, "parquet": parquet, "latex": latex}
    kind = exports.kind_of([name for name, given in flags.items() if given], output)
    if output is not None:
        places.check_new(output)
    with progress_bar("reading") as show:
        table = exports.answer(storage, what, show("reading files for the first time"))
    content = exports.encode(table, kind)
    if output is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    places.write(output, content)
    typer.echo(
        f"{output}: {table.num_rows:,} rows, {table.num_columns} columns, {len(content):,} bytes",
        err=True,
    )


@results.command()
def recipe(
    key: Annotated[str, typer.Argument(help="Of the trial, as `top` prints it.")],
    storage: Storage = "runs",
) -> None:
    """A trial's setting as Python to paste: the nearest recipe, and the fields that differ."""
    import json

    from sadcl import recipes
    from sadcl.config import Config
    from sadcl.errors import UserError
    from sadcl.results import query

    row = query.show(storage, key)
    if not row.get("config"):
        raise UserError(f"The trial {key!r} has no configuration in its row.")
    config = Config.parse(json.loads(row["config"]))
    typer.echo(recipes.code(config), nl=False)
    if row["config_digest"] != config.digest():
        typer.echo(
            f"# The run was made by another version of the package: its configuration had the digest {row['config_digest']}, "
            f"and with the fields that are new since then it has {config.digest()}."
        )


@results.command()
def compact(storage: Storage = "runs") -> None:
    """Merge the small files of runs that have ended; others may read and write meanwhile."""
    from sadcl.console import progress_bar
    from sadcl.results import compact as compacting

    with progress_bar("merging") as show:
        done = compacting.compact(storage, lambda table: show(f"merging {table}"))
    _table(
        [{"table": d.table, "files before": d.before, "files now": d.after} for d in done],
        ["table", "files before", "files now"],
    )


@results.command()
def verify(
    storage: Storage = "runs",
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Read the local checkpoints too.")
    ] = False,
) -> None:
    """Look for faults: files, keys, duplicates, gaps, digests, figures. Exit code 0 is right, 1 has faults."""
    from sadcl.console import progress_bar
    from sadcl.results import verify as verifying

    with progress_bar("looking") as show:
        faults = list(
            verifying.verify(
                storage, checkpoints=checkpoints, progress=lambda table: show(f"looking at {table}")
            )
        )
    for fault in faults:
        typer.echo(f"{fault.file}: {fault.what}. {fault.do}")
    typer.echo(f"{len(faults)} faults." if faults else "No fault was found.")
    raise typer.Exit(bool(faults))
