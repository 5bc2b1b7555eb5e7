"""The command line: questions to the tables, and a checkpoint at work. Each command imports what it needs itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sadcl import cli_data, cli_explain, cli_report, cli_results, cli_stats, cli_store
from sadcl.cli_results import Storage

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
cli_stats.add_to(cli_store.results)
cli_store.results.command("report")(cli_report.report)
app.add_typer(cli_store.results, name="results")
app.add_typer(cli_results.studies, name="studies")
app.add_typer(cli_data.app, name="data")
app.command()(cli_explain.explain)

DataRoot = Annotated[str | None, typer.Option(help="Where the data set lies; not needed for the embedded scenes.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; a GPU where there is one.")]
ImageSize = Annotated[int | None, typer.Option(help="Side of the input in pixels; that of training.")]
Checkpoint = Annotated[str, typer.Option(help="A best.pt, or the key of a trial in --storage.")]


@app.command()
def evaluate(
    checkpoint: Checkpoint,
    data_root: DataRoot = None,
    split: Annotated[str | None, typer.Option(help="val (held-out training images) or test; the recorded one.")] = None,
    image_size: ImageSize = None,
    storage: Storage = "runs",
    device: Device = None,
) -> None:
    """A checkpoint's figures, computed anew from the images, beside those recorded when it was made."""
    from sadcl import inference
    from sadcl.console import bar, show_table
    from sadcl.results import checkpoints

    uri = checkpoints.find(storage, checkpoint)
    with bar("reading the data") as show:
        found = inference.evaluate(
            uri, data_root=data_root, split=split, device=device, image_size=image_size, progress=show("evaluating")
        )
    rows = [
        {"metric": f"{found.split}_{name}", "now": value, "recorded": found.recorded.get(name)}
        for name, value in found.metrics.items()
    ]
    title = f"{found.images} images, {found.weights} weights"
    if found.image_size != found.trained_at:
        title += f", {found.image_size} px (trained and recorded at {found.trained_at} px)"
    show_table(rows, ["metric", "now", "recorded"], title=title)


@app.command()
def predict(
    checkpoint: Checkpoint,
    images: Annotated[list[Path] | None, typer.Argument(help="Image files.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Labels to print for each image.")] = 5,
    voc2012_submission: Annotated[
        str | None, typer.Option(help="Write the archive of VOC 2012's server (.tar.gz) for the test images in --data-root.")
    ] = None,
    data_root: DataRoot = None,
    image_size: ImageSize = None,
    storage: Storage = "runs",
    device: Device = None,
) -> None:
    """Labels of photographs with their scores, highest first; or what VOC 2012's evaluation server takes."""
    from sadcl import inference
    from sadcl import storage as files
    from sadcl.console import bar
    from sadcl.data import voc
    from sadcl.errors import UserError
    from sadcl.results import checkpoints

    if bool(images) == (voc2012_submission is not None) or (data_root is None) == (voc2012_submission is not None):
        raise UserError("Give image files, or --voc2012-submission OUT.tar.gz with --data-root, not both and not neither.")
    if voc2012_submission is not None:
        files.check_new(voc2012_submission)
    predictor = inference.load(checkpoints.find(storage, checkpoint), device=device, image_size=image_size)
    if voc2012_submission is not None:
        with bar("reading the lists") as show:
            archive = inference.voc2012_submission(predictor, str(data_root), show("looking at the test images"))
        files.write(voc2012_submission, archive)
        count = len(voc.server_images(Path(str(data_root)).expanduser().absolute()))
        odd = f" WARNING: it has {count:,} images; the server expects {voc.SERVER:,}." if count != voc.SERVER else ""
        typer.echo(f"{voc2012_submission}: {len(archive):,} bytes, for the evaluation server.{odd}")
        return
    mistakes = []
    for image in images or ():
        try:
            (scored,) = predictor.predict(image)
        except UserError as error:  # the other images are named all the same
            mistakes.append(str(error))
            continue
        typer.echo(f"{image}: " + ", ".join(f"{label} {score:.3f}" for label, score in scored[:top]))
    if mistakes:
        raise UserError(" ".join(mistakes))


def main() -> None:
    """The command ``sadcl``."""
    import gc
    import sys

    gc.set_threshold(50_000)  # importing makes much that lives on, and looking through it again and again takes a tenth
    from sadcl.console import guarded

    with guarded():
        if sys.argv[1:2] in (["results"], ["studies"]):
            _leave_pandas_out()
        app()


def _leave_pandas_out() -> None:
    """Arrow looks for pandas with the first array that it makes, and its import is half of the time that a question takes."""
    import sys

    class Nowhere:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> None:
            if name == "pandas":
                raise ModuleNotFoundError(name)

    finder: Any = Nowhere
    sys.meta_path.insert(0, finder)
    try:
        import pyarrow as pa

        pa.array([], pa.null())
    finally:
        sys.meta_path.remove(finder)
