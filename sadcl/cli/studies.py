"""The command ``sadcl studies``: what a storage holds, and its removal."""

from __future__ import annotations

from typing import Annotated

import typer

from sadcl.cli.options import Storage

studies = typer.Typer(no_args_is_help=True, help="List and remove studies.")


@studies.command("list")
def list_studies(storage: Storage = "runs") -> None:
    """List the studies as `sadcl results studies` does, with the bytes of their checkpoints."""
    from collections import Counter

    from sadcl.console import show_table
    from sadcl.results import query, read
    from sadcl.study import record

    by_key, by_study = record.checkpoint_bytes(storage), Counter[str]()
    for run in read(storage, "trials").select(["study", "key"]).to_pylist():
        by_study[run["study"]] += by_key[run["key"]]
    rows = [{**row, "checkpoint_bytes": by_study[row["study"]]} for row in query.studies(storage)]
    show_table(rows, list(rows[0]) if rows else ["study"])


@studies.command()
def delete(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the study, as `list` prints it.")
    ],
    storage: Storage = "runs",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a study's rows and checkpoints, except a stage 1 that other studies start from."""
    from sadcl.console import confirm
    from sadcl.errors import UserError
    from sadcl.results import store
    from sadcl.study import record

    if name not in (names := record.study_names(storage)):
        raise UserError(f"There is no study {name!r} in {storage!r}{store.nearest(name, names)}")
    with record.exclusive_runs(storage, name):
        text = _removal_text(storage, name)
        if yes:
            typer.echo(text)
        confirm(text, yes)
        record.remove_study(storage, name)
    typer.echo("Removed.")


def _removal_text(storage: str, name: str) -> str:
    """What the removal of a study takes away, and what it leaves."""
    from sadcl.console import count_text
    from sadcl.study import record

    removed, shared = record.split_rows(storage, name)
    sizes = record.freeable_bytes(storage, name)
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
    return f"This removes from the study {name!r} in {storage!r}: {runs}, and {checkpoints}.{kept}"
