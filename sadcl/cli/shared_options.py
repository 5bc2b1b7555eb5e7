"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Storage = Annotated[
    str,
    typer.Option(
        metavar="ROOT", help="The root of tables and checkpoints: a folder, s3://... or gs://..."
    ),
]
StudyName = Annotated[
    str | None,
    typer.Argument(metavar="STUDY", help="The study's name, as `sadcl studies list` has it."),
]
StudyFlag = Annotated[
    str | None, typer.Option("--study", metavar="NAME", help="The same as STUDY.")
]
Key = Annotated[
    str,
    typer.Argument(
        metavar="KEY", help="The key of the trial, or any unique end of it, or STUDY/END."
    ),
]
Baseline = Annotated[
    str | None,
    typer.Option(metavar="ARM", help="The arm to compare with (default: the study's own)."),
]
Plot = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Draw the differences into this file: .png, .svg or .pdf."),
]
Checkpoint = Annotated[
    str,
    typer.Option(
        metavar="KEY",
        help="The key of a trial in --storage, or any unique end of it, or STUDY/END, or the path "
        "of a best.pt.",
    ),
]
OptionalCheckpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        metavar="KEY",
        help="The key of a trial in --storage, or the path of a best.pt; it is required.",
    ),
]
HiddenKey = Annotated[str | None, typer.Argument(metavar="KEY", hidden=True)]
Images = Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="The image files.")]
AnyImages = Annotated[
    list[Path] | None, typer.Argument(metavar="[IMAGE]...", help="The image files.")
]
DataRoot = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Where the data set is; not needed for the drawn scenes."),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE",
        help="The device: cpu, cuda, cuda:1, mps, or auto, which takes a GPU where there is one "
        "(default: auto).",
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS", help="The side of the input in pixels (default: that of training)."
    ),
]
Policies = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="POLICY=VALUE",
        help="A policy of the data set, such as missing=drop or voc2012_test=server; may be "
        "repeated.",
    ),
]


def study_of(name: str | None, flag: str | None, command: str) -> str:
    """The study that a command is told, as an argument or with --study.

    Raises:
        UserError: Where there is none, or where the two differ.
    """
    study = either(name, flag)
    if study is None:
        from sadcl.errors import UserError

        raise UserError(
            f"Which study? Give its name: `sadcl results {command} NAME`; `sadcl studies list` "
            "prints the names."
        )
    return study


def either(name: str | None, flag: str | None) -> str | None:
    """The study that is given as an argument or with --study; None for neither.

    Raises:
        UserError: Where the two differ.
    """
    if name is not None and flag is not None and name != flag:
        from sadcl.errors import UserError

        raise UserError(f"Give one study, but got {name!r} and --study {flag!r}.")
    return flag if name is None else name
