"""The command ``sadcl results report``: a study as a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from sadcl.cli_results import Storage


def report(
    study: Annotated[str, typer.Argument(help="Its name, as `studies` prints it.")],
    out: Annotated[str, typer.Option("-o", "--out", help="The HTML file: a path, s3://... or gs://...")] = "report.html",
    storage: Storage = "runs",
) -> None:
    """A study as one HTML file that opens without a network: the question, the answer, and what it stands on."""
    from sadcl import storage as files
    from sadcl.console import bar, in_bytes
    from sadcl.errors import UserError
    from sadcl.results import page

    if not out.lower().endswith((".html", ".htm")):
        raise UserError(f"The report {out!r} cannot be written: its name must end in .html.")
    files.check_new(out)
    with bar("reading the tables") as show:
        content = page.html(storage, study, recipe=_recipe, progress=show("resampling the trials")).encode()
    files.write(out, content)
    typer.echo(f"{out}: {in_bytes(len(content))}")


def _recipe(row: Mapping[str, Any]) -> str:
    """A run's setting as Python to paste; the whole configuration where this version's recipes do not give it."""
    import json

    from sadcl import recipes
    from sadcl.config import Config
    from sadcl.errors import UserError
    from sadcl.results import page_parts

    try:
        return recipes.code(Config.parse(json.loads(row["config"])))
    except (UserError, TypeError):
        return page_parts.recipe(row)
