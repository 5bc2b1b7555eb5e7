"""The commands of ``sadcl results`` that put studies side by side, give tables away, and look after the files."""

from __future__ import annotations

from typing import Annotated

import typer

from sadcl.cli_results import Storage, _table, results


@results.command()
def compare(
    names: Annotated[list[str] | None, typer.Argument(metavar="[STUDY]...", help="All where none is given.")] = None,
    storage: Storage = "runs",
) -> None:
    """Studies side by side: the confirmed mean over seeds on the test images, beside the best that was ever seen."""
    from sadcl.results import comparison

    rows = comparison.compare(storage, names or ())
    _table(rows, list(rows[0]) if rows else ["study"])


@results.command()
def export(
    what: Annotated[str, typer.Argument(metavar="TABLE|SQL", help="A table's name, or a query.")],
    storage: Storage = "runs",
    output: Annotated[str | None, typer.Option("--output", "-o", help="The file: local, s3://... or gs://...")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values; lists as JSON.")] = False,
    arrow: Annotated[bool, typer.Option("--arrow", help="An Arrow file.")] = False,
    parquet: Annotated[bool, typer.Option("--parquet", help="A Parquet file.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="A table for a paper.")] = False,
) -> None:
    """A table, or the answer to a query, as a file; without --output on standard output."""
    import sys

    from sadcl import storage as places
    from sadcl.console import bar
    from sadcl.results import export as exports

    flags = {"csv": csv, "arrow": arrow, "parquet": parquet, "latex": latex}
    kind = exports.kind_of([name for name, given in flags.items() if given], output)
    if output is not None:
        places.check_new(output)
    with bar("reading") as show:
        table = exports.answer(storage, what, show("reading files for the first time"))
    content = exports.encode(table, kind)
    if output is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    places.write(output, content)
    typer.echo(f"{output}: {table.num_rows:,} rows, {table.num_columns} columns, {len(content):,} bytes", err=True)


@results.command()
def recipe(key: Annotated[str, typer.Argument(help="Of the trial, as `top` prints it.")], storage: Storage = "runs") -> None:
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
    from sadcl.console import bar
    from sadcl.results import compact as compacting

    with bar("merging") as show:
        done = compacting.compact(storage, lambda table: show(f"merging {table}"))
    _table(
        [{"table": d.table, "files before": d.before, "files now": d.after} for d in done],
        ["table", "files before", "files now"],
    )


@results.command()
def verify(
    storage: Storage = "runs",
    checkpoints: Annotated[bool, typer.Option("--checkpoints", help="Read the local checkpoints too.")] = False,
) -> None:
    """Look for faults: files, keys, duplicates, gaps, digests, figures. Exit code 0 is right, 1 has faults."""
    from sadcl.console import bar
    from sadcl.results import verify as verifying

    with bar("looking") as show:
        faults = list(verifying.verify(storage, checkpoints=checkpoints, progress=lambda table: show(f"looking at {table}")))
    for fault in faults:
        typer.echo(f"{fault.file}: {fault.what}. {fault.do}")
    typer.echo(f"{len(faults)} faults." if faults else "No fault was found.")
    raise typer.Exit(bool(faults))
