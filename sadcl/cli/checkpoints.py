"""The commands ``sadcl evaluate``, ``predict``, ``explain`` and ``export``: checkpoints in use."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sadcl.cli.shared_options import (
    AnyImages,
    Checkpoint,
    DataRoot,
    Device,
    HiddenKey,
    Images,
    ImageSize,
    OptionalCheckpoint,
    Storage,
)
from sadcl.cli.table_options import prints_tables

if TYPE_CHECKING:
    from sadcl.inference import Predictor


@prints_tables
def evaluate(
    key: HiddenKey = None,
    checkpoint: OptionalCheckpoint = None,
    data_root: DataRoot = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="SPLIT",
            help="val (held-out training images) or test (default: the one with recorded metrics).",
        ),
    ] = None,
    image_size: ImageSize = None,
    storage: Storage = "runs",
    device: Device = None,
) -> None:
    """Compute a checkpoint's metrics from the images, and print the recorded ones next to them."""
    from sadcl.console import progress_bar, show_table
    from sadcl.results import checkpoints
    from sadcl.study.process import large_pages

    uri = checkpoints.find_checkpoint(storage, _only_checkpoint(key, checkpoint))
    with large_pages(), progress_bar("reading the data") as show:
        from sadcl import inference

        evaluation = inference.evaluate(
            uri,
            data_root=data_root,
            split=split,
            device=device,
            image_size=image_size,
            progress=show("evaluating"),
        )
    rows = [
        {
            "metric": f"{evaluation.split}_{name}",
            "now": evaluation.metrics.get(name),
            "recorded": evaluation.recorded.get(name),
        }
        for name in {**evaluation.metrics, **evaluation.recorded}
    ]
    title = f"{evaluation.images} images, {evaluation.weights} weights"
    if evaluation.image_size != evaluation.training_size:
        sizes = (evaluation.image_size, evaluation.training_size)
        title += ", {} px (trained and recorded at {} px)".format(*sizes)
    if evaluation.labels_only:
        title += "; imported: of the data, only the names of the labels could be checked"
    show_table(rows, ["metric", "now", "recorded"], title=title)


def _only_checkpoint(key: str | None, checkpoint: str | None) -> str:
    """The checkpoint, which may be given as --checkpoint KEY or as KEY alone."""
    from sadcl.errors import UserError

    given = [text for text in (key, checkpoint) if text is not None]
    if len(given) != 1:
        raise UserError("Give one checkpoint: --checkpoint KEY.")
    return given[0]


def predict(
    checkpoint: Checkpoint,
    images: AnyImages = None,
    top: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of labels for each image.")
    ] = 5,
    voc2012_submission: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.tar.gz",
            help="Write the archive for the VOC 2012 evaluation server instead, for the test "
            "images in --data-root.",
        ),
    ] = None,
    data_root: DataRoot = None,
    image_size: ImageSize = None,
    storage: Storage = "runs",
    device: Device = None,
) -> None:
    """Print the labels of photographs with their scores, highest first."""
    from sadcl import storage as files
    from sadcl.errors import UserError
    from sadcl.results import checkpoints

    wants_archive = voc2012_submission is not None
    if bool(images) == wants_archive or (data_root is not None) != wants_archive:
        raise UserError(
            "Give either image files, or --voc2012-submission FILE.tar.gz together with "
            "--data-root."
        )
    if voc2012_submission is not None:
        files.check_new(voc2012_submission)
    uri = checkpoints.find_checkpoint(storage, checkpoint)
    predictor = _load(uri, device, image_size)
    if voc2012_submission is not None:
        _write_submission(predictor, str(data_root), voc2012_submission)
        return

    def print_labels(image: Path) -> None:
        (scored,) = predictor.predict(image)
        labels = ", ".join(f"{label} {score:.3f}" for label, score in scored[:top])
        typer.echo(f"{image}: {labels}")

    if mistakes := _for_each_image(images or (), print_labels):
        raise UserError(" ".join(mistakes))


def _load(uri: str, device: str | None, image_size: int | None = None) -> Predictor:
    """Load a checkpoint, and show that this takes seconds: PyTorch is imported first."""
    from sadcl.console import progress_bar

    with progress_bar("loading the network"):
        from sadcl import inference

        return inference.load(uri, device=device, image_size=image_size)


def _write_submission(predictor: Predictor, data_root: str, output: str) -> None:
    from sadcl import inference
    from sadcl import storage as files
    from sadcl.console import progress_bar
    from sadcl.data.readers import voc
    from sadcl.study.process import large_pages

    with large_pages(), progress_bar("reading the lists") as show:
        progress = show("evaluating the test images")
        archive = inference.voc2012_submission(predictor, data_root, progress)
    files.write(output, archive)
    count = len(voc.server_images(Path(data_root).expanduser().absolute()))
    warning = ""
    if count != voc.SERVER:
        warning = f" WARNING: it has {count:,} images; the server expects {voc.SERVER:,}."
    typer.echo(f"{output}: {len(archive):,} bytes, for the evaluation server.{warning}")


def _for_each_image(images: Iterable[Path], action: Callable[[Path], None]) -> list[str]:
    """Do something with each image; return why others cannot be used, each reason once."""
    from sadcl.errors import UserError

    mistakes = []
    for image in images:
        try:
            action(image)
        except UserError as error:
            mistakes.append(str(error))
    return list(dict.fromkeys(mistakes))


def explain(
    checkpoint: Checkpoint,
    images: Images,
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The figure's file: .png, .svg or .pdf."
        ),
    ],
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Key or path of a pooled baseline to draw next to it (default: that of the "
            "study, if any; '' for none).",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL", help="A label to show; may be repeated (default: the predicted ones)."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Most labels for each image.")] = 4,
    storage: Storage = "runs",
    device: Device = None,
) -> None:
    """Draw attention maps of the labels in photographs next to the baseline's activation maps."""
    from sadcl.errors import UserError
    from sadcl.reports.plot_style import check_ending
    from sadcl.results import checkpoints

    check_ending(output)
    main = _load(checkpoints.find_checkpoint(storage, checkpoint), device)
    from sadcl import figures  # imports PyTorch

    networks = {figures.network_name(main): main}
    if baseline is None:
        baseline = checkpoints.baseline_trial_key(storage, checkpoint)
    if baseline and figures.network_name(main) == "SADCL":
        uri = checkpoints.find_checkpoint(storage, baseline)
        networks["baseline"] = _load_baseline(uri, baseline, device)
        typer.echo(f"baseline: {baseline}")
    photos: list[figures.PhotoMaps] = []

    def explain_image(image: Path) -> None:
        photo = figures.map_photo(image, list(networks.values()), label, top)
        photos.append(photo)
        pairs = zip(photo.labels, photo.scores, strict=True)
        typer.echo(f"{image}: " + ", ".join(f"{name} {score:.3f}" for name, score in pairs))

    mistakes = _for_each_image(images, explain_image)
    if photos:
        figures.draw_maps(photos, networks, output)
        typer.echo(output)
    if mistakes:
        raise UserError(" ".join(mistakes))


def _load_baseline(uri: str, name: str, device: str | None) -> Predictor:
    from sadcl import figures
    from sadcl.errors import UserError

    network = _load(uri, device)
    if figures.network_name(network) != "baseline":
        raise UserError(
            f"--baseline {name!r} is no pooled baseline (model.head = 'sadcl.model.heads:Pooled'), "
            "so that it has no class activation maps."
        )
    return network


def export(
    key: HiddenKey = None,
    checkpoint: OptionalCheckpoint = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write an ONNX file.")] = False,
    safetensors: Annotated[
        bool, typer.Option("--safetensors", help="Write the weights alone, with what they are.")
    ] = False,
    torch_export: Annotated[
        bool, typer.Option("--torch-export", help="Write what torch.export.load reads (.pt2).")
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The new file (default: KEY in this folder, with the ending of its kind).",
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            metavar="SCORE",
            min=0,
            max=1,
            help="The score above which a label is predicted; it is only recorded.",
        ),
    ] = 0.5,
    image_size: ImageSize = None,
    storage: Storage = "runs",
) -> None:
    """Write a checkpoint's network for other programs, and a JSON that says how to read it."""
    from sadcl.console import bytes_text, print_text
    from sadcl.errors import UserError
    from sadcl.inference.export import export_checkpoint
    from sadcl.results import checkpoints

    checkpoint = _only_checkpoint(key, checkpoint)
    flags = {"onnx": onnx, "safetensors": safetensors, "torch-export": torch_export}
    kinds = [kind for kind, given in flags.items() if given]
    if len(kinds) != 1:
        raise UserError("Give one of --onnx, --safetensors and --torch-export.")
    exported = export_checkpoint(
        checkpoints.find_checkpoint(storage, checkpoint),
        kinds[0],
        output,
        threshold=threshold,
        image_size=image_size,
        tell=print_text,
    )
    size = bytes_text(exported.bytes)
    print_text(f"{exported.file}: {size}; {exported.json_file} says how to read it.")
