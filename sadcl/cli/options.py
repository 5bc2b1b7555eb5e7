"""Options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    pass


Storage = Annotated[
    str, typer.Option(help="Root of tables and checkpoints: a folder, s3://... or gs://...")
]
Study = Annotated[str | None, typer.Option(help="Only this study.")]
