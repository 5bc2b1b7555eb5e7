"""The commands ``sadcl results`` and ``sadcl studies``: questions to the tables, and what lies in a storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    pass

results = typer.Typer(no_args_is_help=True, help="Ask the tables of a study.")
studies = typer.Typer(no_args_is_help=True, help="See and remove studies.")

Storage = Annotated[str, typer.Option(help="Root of tables and checkpoints: a folder, s3://... or gs://...")]
Study = Annotated[str | None, typer.Option(help="Only this study.")]


@results.command()
def top(
    storage: Storage = "runs",
    study: Study = None,
    metric: Annotated[str, typer.Option(help="A column of numbers of the trials table.")] = "val_mAP",
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 10,
) -> None:
    """The best trials, best first."""
    from sadcl.console import bar
    from sadcl.results import query

    with bar("reading") as show:
        rows = query.top(storage, study, metric, n, progress=show("reading files for the first time"))
    columns = ["key", "study", "phase", "arm", "seed", "status", *dict.fromkeys([metric, "val_mAP", "test_mAP"]), "settings"]
    _table([{**row, "settings": _settings(row)} for row in rows], columns)


@results.command("studies")
def overview(storage: Storage = "runs") -> None:
    """The studies: how many trials, how they ended, the best held-out mAP."""
    from sadcl.results import query

    rows = query.studies(storage)
    _table(rows, list(rows[0]) if rows else ["study"])


@results.command()
def show(key: Annotated[str, typer.Argument(help="Of the trial, as `top` prints it.")], storage: Storage = "runs") -> None:
    """All that is known of one trial: its row, its epochs, its labels."""
    from sadcl.results import query

    trial = query.show(storage, key)
    epochs, labels = trial.pop("epochs"), trial.pop("labels")
    _table([{"column": k, "value": v} for k, v in trial.items() if v is not None], ["column", "value"])
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
    query: Annotated[str, typer.Argument(help="For example: select arm, avg(val_mAP) from trials group by arm")],
    storage: Storage = "runs",
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
) -> None:
    """The answer to a DuckDB query, one SELECT over the tables (see `schema`), which are only read."""
    from sadcl.console import bar
    from sadcl.results import sql as ask

    with bar("reading") as show:
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
        rows = [{"column": c, "type": str(kind), "meaning": meaning} for c, (kind, meaning) in columns.items()]
        _table(rows, ["column", "type", "meaning"], title=f"{name} (key: {', '.join(tables.KEYS[name])})")
    rows = [{"column": c, "type": str(kind), "meaning": meaning} for c, (kind, meaning) in published.COLUMNS.items()]
    _table(rows, ["column", "type", "meaning"], title="published (the paper's tables)")


@results.command()
def ablation(
    study: Annotated[str, typer.Option(help="An ablation.")],
    storage: Storage = "runs",
    baseline: Annotated[str | None, typer.Option(help="The arm to compare with; the study's own.")] = None,
    metric: Annotated[str, typer.Option(help="A column in percent of the trials table.")] = "test_mAP",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a document in Markdown.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print a table for a paper.")] = False,
    plot: Annotated[str | None, typer.Option(help="Draw the differences there: .png, .svg or .pdf.")] = None,
) -> None:
    """What each arm of an ablation gives, over the seeds that it shares with the baseline: table, intervals, verdicts."""
    from sadcl.errors import UserError
    from sadcl.results import ablation as ablations
    from sadcl.results import documents, forest
    from sadcl.results import report as words

    if markdown and latex:
        raise UserError("--markdown and --latex cannot both be printed: give one of them.")
    if plot is not None:
        forest.check(plot)
    found = ablations.load(storage, study, baseline, metric)
    if markdown or latex:
        typer.echo(documents.markdown(found) if markdown else documents.latex(found), nl=False)
    else:
        typer.echo(found.title)
        for dataset in found.datasets:
            lines = words.table(found, dataset)
            _table(lines, list(lines[0]), title=dataset)
        for text in (*words.notes(found), *words.sentences(found)):
            typer.echo(text)
        if missing := words.left_out(found):
            _table(missing, list(missing[0]), title="runs without a figure")
    if plot is not None:
        forest.draw(found, plot)
        typer.echo(f"the differences are drawn in {plot}", err=True)


@studies.command("list")
def listing(storage: Storage = "runs") -> None:
    """The studies as `sadcl results studies` has them, with the bytes that their checkpoints take."""
    from collections import Counter

    from sadcl import study
    from sadcl.results import query, read

    by_key, by_study = study.checkpoint_bytes(storage), Counter[str]()
    for run in read(storage, "trials").select(["study", "key"]).to_pylist():
        by_study[run["study"]] += by_key[run["key"]]
    rows = [{**row, "checkpoint_bytes": by_study[row["study"]]} for row in query.studies(storage)]
    _table(rows, list(rows[0]) if rows else ["study"])


@studies.command()
def delete(
    name: Annotated[str, typer.Argument(help="Of the study, as `list` prints it.")],
    storage: Storage = "runs",
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
) -> None:
    """Remove a study's rows and checkpoints; a stage 1 that other studies start from stays."""
    import sys

    from sadcl import study
    from sadcl.errors import UserError
    from sadcl.results import store

    if name not in (known := study.names(storage)):
        raise UserError(f"There is no study {name!r} in {storage!r}{store.nearest(name, known)}")
    with study.stopped(storage, name):
        going, staying = study.parts(storage, name)
        sizes = study.freed(storage, name)
        running = sum(row["status"] == "running" for row in going)
        what = (
            f"The study {name!r} in {storage!r}: {len(going)} runs{f' ({running} interrupted)' * bool(running)} with all "
            f"their rows, and the checkpoints of {len(sizes)} ({sum(sizes):,} bytes), would be removed"
            f"{f'; {len(staying)} runs of stage 1 that other studies start from stay' * bool(staying)}."
        )
        if not yes and not sys.stdin.isatty():
            raise UserError(f"{what} Give --yes to go on without being asked.")
        typer.echo(what)
        if not yes and not typer.confirm("Go on?"):
            raise UserError("Nothing was done.")
        study.remove(storage, name)
    typer.echo("Removed.")


def _settings(row: Mapping[str, Any]) -> str:
    import json

    from sadcl.console import settings

    return settings(json.loads(row["params"] or "{}"))


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str | None = None) -> None:
    from sadcl.console import show_table

    show_table(rows, columns, title)
