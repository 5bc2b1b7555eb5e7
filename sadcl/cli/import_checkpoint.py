"""The command ``sadcl import``: a checkpoint of the published code becomes one of ours."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sadcl.training.published_checkpoint import Imported

WIDTH = 80


def import_checkpoint(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT", help="A checkpoint of the published SADCL or Query2Label."
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The new file, such as best.pt.")
    ],
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What it was trained on: coco14, voc2007, voc2012, nuswide or vg500 (default: "
            "the only one with as many labels).",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Names of its labels in their order, one a line."),
    ] = None,
    heads: Annotated[
        int, typer.Option(min=1, metavar="N", help="Attention heads; the file does not tell.")
    ] = 4,
    image_size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            help="Side of its images, for a file without position encoding (default: the "
            "recipe's).",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="raw or ema: which weights to take from a file with both, or what a file without "
            "the prefix 'module.' holds (default: ema, the average).",
        ),
    ] = None,
) -> None:
    """Turn a checkpoint of the published SADCL or Query2Label into a best.pt.

    No code in the file is executed.
    """
    from sadcl import storage
    from sadcl.console import bytes_text
    from sadcl.training import published_checkpoint

    imported = published_checkpoint.import_checkpoint(
        checkpoint,
        output,
        dataset=dataset,
        labels=labels,
        heads=heads,
        image_size=image_size,
        weights=weights,
    )
    for line in summary(imported):
        typer.echo(line)
    size = storage.stamp(output)
    typer.echo(f"{output}: {bytes_text(size[0] if size else 0)}")


def summary(imported: Imported) -> list[str]:
    """Say in lines of at most 80 characters what was found, what was dropped, and which labels."""
    model, count = imported.config.model, len(imported.labels)
    epoch = f", epoch {imported.epoch}" if imported.epoch else ""
    weights = "averaged weights" if imported.weights == "ema" else "raw weights"
    if imported.weights_assumed:
        weights += " (without the prefix 'module.', as the published code saves them)"
    size = f"{imported.config.data.image_size} px"
    examples = ", ".join(imported.labels[:3]) + (", ..." if count > 3 else "")
    rows = {
        "network": f"{imported.method}{epoch}, {weights}",
        "backbone": model.backbone,
        "images": size if imported.has_image_size else f"{size} (the file does not tell)",
        "transformer": f"{model.encoder_layers} encoder and {model.decoder_layers} decoder layers, "
        f"hidden {model.hidden}, feed-forward {model.feedforward}, {model.heads} heads "
        "(--heads; the file does not tell)",
        "projection": str(model.projection) if imported.has_projection else "none: not trained",
        "prototypes": f"{imported.prototypes} of {count}"
        + (", the others are zero and not valid" if 0 < imported.prototypes < count else ""),
        "labels": f"{count} {imported.label_source}: {examples}",
        "data set": imported.dataset
        + (" (your own images; another one: --dataset)" if imported.dataset == "folder" else ""),
    }
    if imported.mAP is not None:
        rows["recorded"] = (
            f"mAP {imported.mAP:.2f}, by which the published code chose this epoch on its test "
            "images"
        )
    if imported.dropped:
        rows["dropped"] = ", ".join(imported.dropped)
    return [
        line
        for name, text in rows.items()
        for line in textwrap.wrap(
            text, WIDTH, initial_indent=f"{name:13}", subsequent_indent=" " * 13
        )
    ]
