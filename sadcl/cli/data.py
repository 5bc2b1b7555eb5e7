"""The command ``sadcl data``: checks a copy of a data set, converts one, or prepares it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sadcl.cli.shared_options import DataRoot, Policies

if TYPE_CHECKING:
    from sadcl.config import Data
    from sadcl.data.audit.findings import Audit, Finding
    from sadcl.data.convert import Converted

app = typer.Typer(
    no_args_is_help=True,
    help="Check a copy of a data set, convert one, or prepare it for training.",
)
_SIZES = ("data.image_size", "stage1.augmentation.resize", "stage2.augmentation.resize")
EXAMPLES, LABELS, ROWS = 3, 5, 20
"""How many files of each kind of finding, labels at either end, and bad rows are printed."""


@app.command()
def check(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="coco, coco14, coco17, voc2007, voc2012, nuswide, vg500, folder, scenes, or the "
            "import path of your own, such as my_lab.birds:birds.",
        ),
    ],
    data_root: DataRoot = None,
    fast: Annotated[bool, typer.Option("--fast", help="Do not open the image files.")] = False,
    report: Annotated[
        str | None,
        typer.Option(metavar="FILE.parquet", help="Write all findings here, one row each."),
    ] = None,
    changes: Policies = None,
) -> None:
    """Check a copy of a data set against the published counts, and every image file.

    It ends with RIGHT, UNSURE (there are warnings) or WRONG. Whether an image shows its labels is
    for your eyes. The exit code is 0 without errors, 1 with errors, 2 if it cannot be read.
    """
    from sadcl.console import progress_bar

    with progress_bar("reading the lists") as show:  # importing PyTorch takes seconds
        audit = _audit(name, data_root, fast, report, changes or [], show)
    _write(report, audit.findings)
    _print_audit(audit, fast, data_root, report)
    if not audit.right:
        raise typer.Exit(1)


def _audit(
    name: str,
    data_root: str | None,
    fast: bool,
    report: str | None,
    changes: Sequence[str],
    show: Callable[[str], Callable[[int, int], None]],
) -> Audit:
    """Audit a copy; a report is written here where the copy cannot be read."""
    from sadcl import storage
    from sadcl.data import prepared
    from sadcl.data.audit import findings
    from sadcl.data.load import annotation_folder
    from sadcl.errors import UserError

    config = _config(name, changes)
    if data_root is not None:
        mark = prepared.mark_of(annotation_folder(data_root))
        if mark is not None:  # a prepared copy is checked as one
            config = config.model_copy(update={"prepared": mark["size"]})
    if report is not None:
        storage.check_new(report)
    try:
        return findings.audit_copy(config, data_root, fast=fast, progress=show)
    except UserError as error:
        _write(report, [findings.Finding("unreadable copy", "error", detail=str(error))])
        raise
    except KeyboardInterrupt:
        typer.echo("Stopped. No report was written.", err=True)
        raise typer.Exit(130) from None


@app.command()
def prepare(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="coco, voc2007, voc2012, nuswide, vg500 or folder."),
    ],
    data_root: Annotated[
        str,
        typer.Option(
            metavar="DIR", help="Where the photographs are: a folder, s3://... or gs://..."
        ),
    ],
    to: Annotated[
        Path,
        typer.Option(metavar="DIR", help="A new folder for the copy, to train on as --data-root."),
    ],
    size: Annotated[
        int,
        typer.Option(
            min=32,
            max=2048,
            metavar="PIXELS",
            help="Side of the images, 32 to 2048; at least what the augmentation resizes to.",
        ),
    ] = 512,
    changes: Policies = None,
) -> None:
    """Copy a data set with its images decoded and resized once.

    The same command resumes a copy that was interrupted.
    """
    from sadcl.console import guarded, progress_bar, resumable
    from sadcl.data.prepare import prepare as write

    config = _config(name, changes or [])
    # After Ctrl-C typer alone would print nothing useful.
    with (
        guarded(),
        resumable(lambda: f"Stopping the copy to {to}."),
        progress_bar("reading the data") as show,
    ):
        copy = write(config, data_root, to.expanduser().absolute(), size, show("resizing"))
    typer.echo(
        f"{to} has {copy.images:,} images of {size} x {size} pixels, {copy.bytes / 1e9:,.2f} GB "
        f"({copy.written:,} written now; digest {copy.digest}, as in the source). To train on "
        f"them: --data-root {to} and data.prepared = {size}."
    )


@app.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="What a tool exported: a folder, or a file of it."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="A new folder, to train on.")
    ],
    to: Annotated[
        str, typer.Option(metavar="LAYOUT", help="The layout to write; folder is the only one.")
    ] = "folder",
    kind: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FORMAT",
            help="coco, voc, yolo, cvat, label-studio, huggingface, table or class-folders "
            "(default: what is recognised).",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The images are below this folder (default: SOURCE)."),
    ] = None,
    test: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="SHARE",
            help="Draw this share of the images to test, stratified by label, where SOURCE does "
            "not say which test.",
        ),
    ] = None,
    between: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="What stands between labels in a table (default: ; or |)."
        ),
    ] = "",
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy the images instead of linking to them.")
    ] = False,
) -> None:
    """Write what another tool exported as a folder with labels.csv, which trains as it is.

    It reads COCO's JSON, VOC's XML, YOLO's text files, CVAT's XML, Label Studio's JSON, image
    folders of Hugging Face, a folder for each class, and tables: a column of labels, or one for
    each label with 0 and 1.
    """
    from sadcl.console import print_text, progress_bar, show_table
    from sadcl.data import label_names
    from sadcl.data.convert import FORMATS
    from sadcl.data.convert import convert as write
    from sadcl.errors import UserError, did_you_mean

    if to != "folder":
        raise UserError(f"--to {to!r} is not possible; folder is the only layout.")
    if kind is not None and kind not in FORMATS:
        raise UserError(f"There is no format {kind!r}{did_you_mean(kind, FORMATS)}")
    target = output.expanduser().absolute()
    with progress_bar("reading the export") as show:
        done = write(
            source.expanduser().absolute(),
            target,
            kind=kind,
            images=images and images.expanduser().absolute(),
            test=test,
            between=between,
            copy=copy,
            progress=show("placing the images"),
        )
    rows = [
        {"number": f"{number:,}", "what": what, "examples": "; ".join(done.examples[what])}
        for what, number in done.remarks.most_common()
    ]
    if rows:
        show_table(rows, title="skipped, or read in a way that is worth a look")
    print_text(_converted_text(done, output, copy))
    if warning := label_names.warning_of(done.labels):
        print_text(f"warning: {warning}")


def _converted_text(done: Converted, output: Path, copy: bool) -> str:
    from sadcl.console import count_text

    files = f"{done.sources[0]}{f' and {len(done.sources) - 1:,} more' * (len(done.sources) > 1)}"
    images = "are copies" if copy else "are links to the source"
    return (
        f"{output} has {done.train:,} train and {done.test:,} test images "
        f"({done.unlabelled:,} without a label), which {images}, and "
        f"{count_text(len(done.labels), 'label')}; read as {done.kind} from {files}. Next: sadcl "
        f"data check folder --data-root {output}"
    )


def _config(name: str, changes: Sequence[str]) -> Data:
    from sadcl.config import Config, component
    from sadcl.config.sections import DATASETS
    from sadcl.errors import UserError, did_you_mean

    if name not in DATASETS and not component.is_path(name):
        raise UserError(f"There is no data set {name!r}{did_you_mean(name, DATASETS)}")
    policies = {"data.name": name}
    for change in changes:
        field, equals, value = change.partition("=")
        if not equals:
            raise UserError(
                f"--set {change!r} is not possible: give a policy and its value, such as "
                "missing=drop."
            )
        if field.removeprefix("data.") == "name":
            raise UserError(
                f"--set {change!r} is not possible: the data set is the first argument, {name!r} "
                "here."
            )
        policies[f"data.{field.removeprefix('data.')}"] = value
    # here no network has a size that a prepared copy could be too small for
    small = dict.fromkeys(_SIZES, 32) if "data.prepared" in policies else {}
    return Config().override({**small, **policies}).data


def _write(report: str | None, findings: Sequence[Finding]) -> None:
    if report is None:
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sadcl import storage
    from sadcl.data.audit.findings import findings_table
    from sadcl.errors import UserError

    sink = pa.BufferOutputStream()
    pq.write_table(findings_table(findings), sink, compression="zstd")
    try:
        storage.write(report, sink.getvalue())
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"The report {report!r} cannot be written: {reason}.") from None


def _print_audit(audit: Audit, fast: bool, root: str | None, report: str | None) -> None:
    from sadcl.console import clock_text, count_text, print_text, show_table
    from sadcl.data.audit.published_counts import CountLine

    title = f"{audit.name} in {root}" if root else audit.name
    show_table([line._asdict() for line in audit.lines], CountLine._fields, title)
    show_table(_kinds(audit), title="findings")
    _print_rows([one for one in audit.findings if one.kind == "row"])
    show_table(_labels(audit), ["label", "train", "test"], "images of a label")
    if fast:
        print_text("No image file was opened (--fast), so damage and duplicates are unknown.")
    else:
        speed = audit.opened / max(audit.seconds, 1e-9)
        print_text(
            f"{audit.opened:,} image files were read and decoded in {clock_text(audit.seconds)} "
            f"({speed:,.0f} images/s)."
        )
    if audit.held_out is not None:
        print_text(
            f"Training will hold out {count_text(audit.held_out, 'training image')} to select by "
            "(data.holdout)."
        )
    errors, warnings = audit.number("error"), audit.number("warning")
    looked_at = "lists and label names" if fast else "lists, label names and image files"
    if errors:
        verdict = f"WRONG: {count_text(errors, 'error')}"
    elif warnings:
        verdict = f"UNSURE: no errors, but {count_text(warnings, 'warning')} to look at"
    else:
        verdict = f"RIGHT: no errors in {looked_at}"
    more = "all findings are in" if report else "to write all findings, pass --report"
    print_text(f"{verdict}; {more} {report or 'FILE.parquet'}.")


def _print_rows(rows: Sequence[Finding]) -> None:
    """Print what is wrong with the first rows of a table, and how many more there are."""
    from sadcl.console import print_text

    for row in rows[:ROWS]:
        print_text(row.detail)
    if more := sum(row.number or 1 for row in rows[ROWS:]):
        print_text(f"... and {more:,} more rows.")


def _kinds(audit: Audit) -> list[Mapping[str, Any]]:
    """Findings of one kind and split in one row; counts are left to the first table."""
    from sadcl.data.audit.findings import KINDS

    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for row in audit.findings:
        if row.severity != "fact" and row.kind != "count":
            groups.setdefault((row.severity, row.kind, row.split), []).append(row)
    return [
        {
            "severity": severity,
            "number": f"{sum(one.number or 1 for one in group):,}",
            "split": split,
            "what": f"{kind}: {KINDS[kind][1]}",
            "examples": _examples(group),
        }
        for (severity, kind, split), group in groups.items()
    ]


def _examples(group: Sequence[Finding]) -> str:
    if group[0].kind == "row":
        return "see below"
    texts = [
        " ".join(filter(None, [one.file or one.label, _detail(one)])) for one in group[:EXAMPLES]
    ]
    if len(group) > EXAMPLES:
        texts.append(f"and {len(group) - EXAMPLES:,} more")
    return "; ".join(texts)


def _detail(row: Finding) -> str:
    """What distinguishes a finding from others of its kind; long details are in the report only."""
    if row.kind == "label":
        return f"({row.detail})"
    if row.kind in (
        "leak",
        "duplicate",
        "box",
        "misnamed",
        "rotated",
        "hole",
        "damaged",
        "flat",
        "range",
        "frames",
    ):
        return f"({row.label}{', ' * bool(row.label)}{row.detail})"
    if row.file and row.label:
        return f"({row.label})"
    return "" if row.file or row.label else row.detail


def _labels(audit: Audit) -> list[Mapping[str, Any]]:
    """The most and the least frequent labels."""
    counts: dict[str, dict[str, int | None]] = {}
    for row in audit.findings:
        if row.kind == "frequency":
            counts.setdefault(row.label, {})[row.split] = row.number
    ranked = sorted(counts, key=lambda label: -sum(n or 0 for n in counts[label].values()))
    if len(ranked) > 2 * LABELS:
        ranked = [*ranked[:LABELS], "...", *ranked[-LABELS:]]
    return [
        {"label": label, **{part: counts.get(label, {}).get(part) for part in ("train", "test")}}
        for label in ranked
    ]
