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
Study = Annotated[str | None, typer.Option(metavar="NAME", help="Look only at this study.")]
Key = Annotated[
    str,
    typer.Argument(metavar="KEY", help="The key of the trial, or any unique end of it."),
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
        help="The key of a trial in --storage, or any unique end of it, or the path of a best.pt.",
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
