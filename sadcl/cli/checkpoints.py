"""The commands ``sadcl evaluate``, ``predict`` and ``explain``: a checkpoint at work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sadcl.cli.options import Storage

DataRoot = Annotated[
    str | None, typer.Option(help="Where the data set lies; not needed for the embedded scenes.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; a GPU where there is one.")]
ImageSize = Annotated[
    int | None, typer.Option(help="Side of the input in pixels; that of training.")
]
Checkpoint = Annotated[str, typer.Option(help="A best.pt, or the key of a trial in --storage.")]


def evaluate(
    checkpoint: Checkpoint,
    data_root: DataRoot = None,
    split: Annotated[
        str | None, typer.Option(help="val (held-out training images) or test; the recorded one.")
    ] = None,
    image_size: ImageSize = None,
    storage: Storage = "runs",
    device: Device = None,
) -> None:
    """A checkpoint's figures, computed anew from the images, beside those recorded when it was made."""
    from sadcl import inference
    from sadcl.console import progress_bar, show_table
    from sadcl.results import checkpoints

    uri = checkpoints.find_checkpoint(storage, checkpoint)
    with progress_bar("reading the data") as show:
        found = inference.evaluate(
            uri,
            data_root=data_root,
            split=split,
            device=device,
            image_size=image_size,
            progress=show("evaluating"),
        )
    rows = [
        {"metric": f"{found.split}_{name}", "now": value, "recorded": found.recorded.get(name)}
        for name, value in found.metrics.items()
    ]
    title = f"{found.images} images, {found.weights} weights"
    if found.image_size != found.training_size:
        title += f", {found.image_size} px (trained and recorded at {found.training_size} px)"
    show_table(rows, ["metric", "now", "recorded"], title=title)


def predict(
    checkpoint: Checkpoint,
    images: Annotated[list[Path] | None, typer.Argument(help="Image files.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Labels to print for each image.")] = 5,
    voc2012_submission: Annotated[
        str | None,
        typer.Option(
            help="Write the archive of VOC 2012's server (.tar.gz) for the test images in --data-root."
        ),
    ] = None,
    data_root: DataRoot = None,
    image_size: ImageSize = None,
    storage: Storage = "runs",
    device: Device = None,
) -> None:
    """Labels of photographs with their scores, highest first; or what VOC 2012's evaluation server takes."""
    from sadcl import inference
    from sadcl import storage as files
    from sadcl.console import progress_bar
    from sadcl.data.readers import voc
    from sadcl.errors import UserError
    from sadcl.results import checkpoints

    if bool(images) == (voc2012_submission is not None) or (data_root is None) == (
        voc2012_submission is not None
    ):
        raise UserError(
            "Give image files, or --voc2012-submission OUT.tar.gz with --data-root, not both and not neither."
        )
    if voc2012_submission is not None:
        files.check_new(voc2012_submission)
    predictor = inference.load(
        checkpoints.find_checkpoint(storage, checkpoint), device=device, image_size=image_size
    )
    if voc2012_submission is not None:
        with progress_bar("reading the lists") as show:
            archive = inference.voc2012_submission(
                predictor, str(data_root), show("looking at the test images")
            )
        files.write(voc2012_submission, archive)
        count = len(voc.server_images(Path(str(data_root)).expanduser().absolute()))
        odd = (
            f" WARNING: it has {count:,} images; the server expects {voc.SERVER:,}."
            if count != voc.SERVER
            else ""
        )
        typer.echo(f"{voc2012_submission}: {len(archive):,} bytes, for the evaluation server.{odd}")
        return
    mistakes = []
    for image in images or ():
        try:
            (scored,) = predictor.predict(image)
        except UserError as error:  # the other images are named all the same
            mistakes.append(str(error))
            continue
        typer.echo(
            f"{image}: " + ", ".join(f"{label} {score:.3f}" for label, score in scored[:top])
        )
    if mistakes:
        raise UserError(" ".join(mistakes))


def explain(
    checkpoint: Annotated[str, typer.Option(help="A best.pt, or the key of a trial in --storage.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    output: Annotated[str, typer.Option("--output", "-o", help="The figure: .png, .svg or .pdf.")],
    baseline: Annotated[
        str | None,
        typer.Option(
            help="The pooled baseline beside it: a best.pt or key; the study's own where it has one, '' for none."
        ),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="A label to show, again for others; those found.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Labels to show of each image at most.")] = 4,
    storage: Storage = "runs",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:1; a GPU where there is one.")
    ] = None,
) -> None:
    """Attention maps of the labels found in photographs, beside the baseline's class activation maps, as a figure."""
    from sadcl import figures, inference
    from sadcl.errors import UserError
    from sadcl.reports.plot_style import check_ending
    from sadcl.results import checkpoints

    check_ending(output)
    main = inference.load(checkpoints.find_checkpoint(storage, checkpoint), device=device)
    networks = {figures.network_name(main): main}
    found = (
        checkpoints.baseline_checkpoint(storage, checkpoint)
        if baseline is None
        else (baseline or None)
    )
    if found is not None and figures.network_name(main) == "SADCL":
        beside = inference.load(checkpoints.find_checkpoint(storage, found), device=device)
        if figures.network_name(beside) != "baseline":
            raise UserError(
                f"--baseline {found!r} is not a pooled baseline (model.arch = 'pooled'): it has no such maps."
            )
        networks[figures.network_name(beside)] = beside
        typer.echo(f"baseline: {found}")
    shown: list[Any] = []
    mistakes = []
    for image in images:
        try:
            shown.append(figures.map_photo(image, list(networks.values()), label, top))
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
