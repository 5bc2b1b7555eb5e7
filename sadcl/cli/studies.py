"""The command ``sadcl studies``: what lies in a storage, and its removal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    pass

from sadcl.cli.options import Storage
from sadcl.cli.tables import _table

studies = typer.Typer(no_args_is_help=True, help="See and remove studies.")


@studies.command("list")
def listing(storage: Storage = "runs") -> None:
    """The studies as `sadcl results studies` has them, with the bytes that their checkpoints take."""
    from collections import Counter

    from sadcl.results import query, read
    from sadcl.study import record

    by_key, by_study = record.checkpoint_bytes(storage), Counter[str]()
    for run in read(storage, "trials").select(["study", "key"]).to_pylist():
        by_study[run["study"]] += by_key[run["key"]]
    rows = [
        {**row, "checkpoint_bytes": by_study[row["study"]]} for row in query.study_overview(storage)
    ]
    _table(rows, list(rows[0]) if rows else ["study"])


@studies.command()
def delete(
    name: Annotated[str, typer.Argument(help="Of the study, as `list` prints it.")],
    storage: Storage = "runs",
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
) -> None:
    """Remove a study's rows and checkpoints; a stage 1 that other studies start from stays."""
    import sys

    from sadcl.errors import UserError, did_you_mean
    from sadcl.study import record

    if name not in (known := record.study_names(storage)):
        raise UserError(f"There is no study {name!r} in {storage!r}{did_you_mean(name, known)}")
    study = record.StoredStudy(storage, name)
    with study.locked_with_runs():
        going, staying = study.split_rows()
        sizes = study.freeable_bytes()
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
        study.remove()
    typer.echo("Removed.")
