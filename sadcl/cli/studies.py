"""The command ``sadcl studies``: what a storage holds, and its removal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sadcl.study.record import StoredStudy

from sadcl.cli.shared_options import Storage
from sadcl.cli.table_options import prints_tables

studies = typer.Typer(no_args_is_help=True, help="List and remove studies.")


@studies.command("list")
@prints_tables
def list_studies(storage: Storage = "runs") -> None:
    """List the studies as `sadcl results studies` does, with the bytes of their checkpoints."""
    from collections import Counter

    from sadcl.cli import trial_tables
    from sadcl.console import show_table
    from sadcl.results import query, read
    from sadcl.study import record

    by_key, by_study = record.checkpoint_bytes(storage), Counter[str]()
    for run in read(storage, "trials").select(["study", "key"]).to_pylist():
        by_study[run["study"]] += by_key[run["key"]]
    rows = [
        {**row, "checkpoint_bytes": by_study[row["study"]]} for row in query.study_overview(storage)
    ]
    columns = list(rows[0]) if rows else ["study"]
    show_table(rows, columns, narrow=[trial_tables.short_study(row) for row in rows])


@studies.command()
def delete(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The name of the study, as `list` prints it.")
    ],
    storage: Storage = "runs",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a study's rows and checkpoints, except a stage 1 that other studies start from."""
    from sadcl.console import confirm
    from sadcl.errors import UserError, did_you_mean
    from sadcl.study import record

    if name not in (names := record.study_names(storage)):
        raise UserError(f"There is no study {name!r} in {storage!r}{did_you_mean(name, names)}")
    study = record.StoredStudy(storage, name)
    with study.locked_with_runs():
        text = _removal_text(study)
        if yes:
            typer.echo(text)
        confirm(text, yes)
        study.remove()
    typer.echo("Removed.")


def _removal_text(study: StoredStudy) -> str:
    """What the removal of a study takes away, and what it leaves."""
    from sadcl.console import count_text

    removed, shared = study.split_rows()
    sizes = study.freeable_bytes()
    running = sum(row["status"] == "running" for row in removed)
    interrupted = f" ({running} of them interrupted)" if running else ""
    runs = f"{count_text(len(removed), 'run')}{interrupted} with all rows"
    checkpoints = (
        f"{count_text(len(sizes), 'checkpoint folder')} ({count_text(sum(sizes), 'byte')})"
    )
    kept = (
        f" It keeps {count_text(len(shared), 'stage-1 run')} that other studies start from."
        if shared
        else ""
    )
    return (
        f"This removes from the study {study.name!r} in {study.root!r}: {runs}, and "
        f"{checkpoints}.{kept}"
    )
