"""The command line: questions to the tables, and a checkpoint at work. Each command imports what it needs itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pyarrow as pa

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
results = typer.Typer(no_args_is_help=True, help="Ask the tables of a study.")
app.add_typer(results, name="results")
data = typer.Typer(no_args_is_help=True, help="Look at a data set, or prepare it.")
app.add_typer(data, name="data")

Storage = Annotated[str, typer.Option(help="Root of tables and checkpoints: a folder, s3://... or gs://...")]
Study = Annotated[str | None, typer.Option(help="Only this study.")]
DataRoot = Annotated[str | None, typer.Option(help="Where the data set lies; not needed for the embedded scenes.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; a GPU where there is one.")]
Checkpoint = Annotated[str, typer.Option(help="A best.pt, or the key of a trial in --storage.")]


@results.command()
def top(
    storage: Storage = "runs",
    study: Study = None,
    metric: Annotated[str, typer.Option(help="A column of numbers of the trials table.")] = "val_mAP",
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 10,
) -> None:
    """The best trials, best first."""
    from sadcl.results import query

    rows = query.top(storage, study, metric, n)
    columns = ["key", "study", "phase", "arm", "seed", "status", *dict.fromkeys([metric, "val_mAP", "test_mAP"]), "settings"]
    _table([{**row, "settings": _settings(row)} for row in rows], columns)


@results.command()
def studies(storage: Storage = "runs") -> None:
    """The studies: how many trials, how they ended, the best held-out mAP."""
    from sadcl.results import query

    rows = query.studies(storage)
    _table(rows, list(rows[0]) if rows else ["study"])


@results.command()
def show(key: Annotated[str, typer.Argument(help="Of the trial, as `top` prints it.")], storage: Storage = "runs") -> None:
    """All that is known of one trial: its row, its epochs, its labels."""
    from sadcl.results import query

    trial = query.show(storage, key)
    epochs, labels = trial.pop("epochs"), trial.pop("labels")
    _table([{"column": k, "value": v} for k, v in trial.items() if v is not None], ["column", "value"])
    for title, rows in (("epochs", epochs), ("labels", labels)):
        used = [
            name
            for name in (rows[0] if rows else {})
            if name not in ("key", "study") and any(r[name] is not None for r in rows)
        ]
        if rows:
            _table(rows, used, title=title)


@results.command()
def sql(
    query: Annotated[str, typer.Argument(help="For example: select arm, avg(val_mAP) from trials group by arm")],
    storage: Storage = "runs",
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
) -> None:
    """The answer to a DuckDB query over the tables trials, epochs and labels, which are only read."""
    from sadcl.results import sql as ask

    table = ask(storage, query)
    if csv:
        _print_csv(table)
    else:
        _table(table.to_pylist(), table.column_names)


@results.command()
def schema() -> None:
    """The tables, their columns and what they mean."""
    from sadcl.results import schema as tables

    for name, columns in tables.TABLES.items():
        rows = [{"column": c, "type": str(kind), "meaning": meaning} for c, (kind, meaning) in columns.items()]
        _table(rows, ["column", "type", "meaning"], title=f"{name} (key: {', '.join(tables.KEYS[name])})")


@app.command()
def evaluate(
    checkpoint: Checkpoint,
    data_root: DataRoot = None,
    split: Annotated[str | None, typer.Option(help="val (held-out training images) or test; the recorded one.")] = None,
    storage: Storage = "runs",
    device: Device = None,
) -> None:
    """A checkpoint's figures, computed anew from the images, beside those recorded when it was made."""
    from sadcl import inference

    found = inference.evaluate(_checkpoint(checkpoint, storage), data_root=data_root, split=split, device=device)
    rows = [
        {"metric": f"{found.split}_{name}", "now": value, "recorded": found.recorded.get(name)}
        for name, value in found.metrics.items()
    ]
    _table(rows, ["metric", "now", "recorded"], title=f"{found.images} images, {found.weights} weights")


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    checkpoint: Checkpoint,
    top: Annotated[int, typer.Option(min=1, help="Labels to print for each image.")] = 5,
    storage: Storage = "runs",
    device: Device = None,
) -> None:
    """Labels of photographs with their scores, highest first."""
    from sadcl import inference
    from sadcl.errors import UserError

    predictor = inference.load(_checkpoint(checkpoint, storage), device=device)
    mistakes = []
    for image in images:
        try:
            (scored,) = predictor.predict(image)
        except UserError as error:  # the other images are named all the same
            mistakes.append(str(error))
            continue
        typer.echo(f"{image}: " + ", ".join(f"{label} {score:.3f}" for label, score in scored[:top]))
    if mistakes:
        raise UserError(" ".join(mistakes))


@data.command()
def prepare(
    name: Annotated[str, typer.Argument(help="coco, voc2007, voc2012, nuswide, vg500 or folder.")],
    data_root: Annotated[str, typer.Option(help="Where the photographs lie: a folder, s3://... or gs://...")],
    to: Annotated[Path, typer.Option(help="A new folder for the copy, which is the data root to train on then.")],
    size: Annotated[
        int, typer.Option(min=32, max=2048, help="Side in pixels; at least what the augmentation resizes to.")
    ] = 512,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A policy that decides which images there are, as missing=drop.")
    ] = None,
) -> None:
    """A copy of a data set with its images decoded and resized once; the same command goes on where it was stopped."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from sadcl.config import Data
    from sadcl.console import console, guarded
    from sadcl.data.prepare import prepare as write
    from sadcl.errors import UserError

    if wrong := [text for text in set_ or () if "=" not in text]:
        raise UserError(f"--set {wrong[0]!r} is not possible: a field of the data and its value, such as missing=drop.")
    config = Data(**{"name": name, **dict(text.split("=", 1) for text in set_ or ())})  # type: ignore[arg-type]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with guarded(), Progress(*columns, console=console, transient=True) as bar:  # typer says nothing after Ctrl-C
        task = bar.add_task("reading the data", total=None)
        done = write(
            config,
            data_root,
            to.expanduser().absolute(),
            size,
            lambda done, all_: bar.update(task, description="resizing", completed=done, total=all_),
        )
    typer.echo(
        f"{done.images:,} images of {size} x {size} pixels, {done.bytes / 1e9:,.2f} GB, in {to} ({done.written:,} written "
        f"now; digest {done.digest}, as in the source). To train on them: --data-root {to} and data.prepared = {size}."
    )


def main() -> None:
    """The command ``sadcl``."""
    from sadcl.console import guarded

    with guarded():
        app()


def _checkpoint(given: str, storage: str) -> str:
    """A checkpoint's URI from itself or from the key of a trial."""
    from sadcl import storage as files
    from sadcl.results import query

    if given and files.exists(files.join(given, "best.pt")):
        return files.join(given, "best.pt")
    if given.endswith(".pt") or (given and files.exists(given)):
        return given
    uri: str | None = query.show(storage, given)["checkpoint"]
    if uri is None:
        from sadcl.errors import UserError

        raise UserError(f"The trial {given!r} has no checkpoint: it is not complete.")
    return uri


def _settings(row: Mapping[str, Any]) -> str:
    import json

    from sadcl.console import settings

    return settings(json.loads(row["params"] or "{}"))


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str | None = None) -> None:
    """Aligned on a terminal; tab-separated and uncut elsewhere, for the next program."""
    from rich.table import Table

    from sadcl.console import console

    if not console.is_terminal:
        if title:
            typer.echo(f"# {title}")
        typer.echo("\t".join(columns))
        for row in rows:
            typer.echo("\t".join(_text(row[name], full=True) for name in columns))
        return
    table = Table(title=title, title_justify="left")
    for name in columns:
        number = any(isinstance(row[name], (int, float)) for row in rows)
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_text(row[name]) for name in columns))
    console.print(table)


def _text(value: Any, full: bool = False) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value) if full else f"{value:.4f}"
    return str(value)


def _print_csv(table: pa.Table) -> None:
    import sys

    from pyarrow import csv

    csv.write_csv(table, sys.stdout.buffer)
