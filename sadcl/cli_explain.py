"""The command ``sadcl explain``: where a checkpoint looks for what it finds in photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sadcl.cli_results import Storage


def explain(
    checkpoint: Annotated[str, typer.Option(help="A best.pt, or the key of a trial in --storage.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    output: Annotated[str, typer.Option("--output", "-o", help="The figure: .png, .svg or .pdf.")],
    baseline: Annotated[
        str | None,
        typer.Option(help="The pooled baseline beside it: a best.pt or key; the study's own where it has one, '' for none."),
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="A label to show, again for others; those found.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Labels to show of each image at most.")] = 4,
    storage: Storage = "runs",
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; a GPU where there is one.")] = None,
) -> None:
    """Attention maps of the labels found in photographs, beside the baseline's class activation maps, as a figure."""
    from sadcl import figures, inference
    from sadcl.errors import UserError
    from sadcl.results import checkpoints
    from sadcl.results.forest import check

    check(output)
    main = inference.load(checkpoints.find(storage, checkpoint), device=device)
    networks = {figures.name_of(main): main}
    found = checkpoints.baseline(storage, checkpoint) if baseline is None else (baseline or None)
    if found is not None and figures.name_of(main) == "SADCL":
        beside = inference.load(checkpoints.find(storage, found), device=device)
        if figures.name_of(beside) != "baseline":
            raise UserError(f"--baseline {found!r} is not a pooled baseline (model.arch = 'pooled'): it has no such maps.")
        networks[figures.name_of(beside)] = beside
        typer.echo(f"baseline: {found}")
    shown: list[Any] = []
    mistakes = []
    for image in images:
        try:
            shown.append(figures.show(image, list(networks.values()), label, top))
        except UserError as error:  # the other images are drawn all the same
            mistakes.append(str(error))
            continue
        pairs = zip(shown[-1].labels, shown[-1].scores, strict=True)
        typer.echo(f"{image}: " + ", ".join(f"{name} {score:.3f}" for name, score in pairs))
    if shown:
        figures.draw_maps(shown, networks, output)
        typer.echo(output)
    if mistakes:
        raise UserError(" ".join(dict.fromkeys(mistakes)))
