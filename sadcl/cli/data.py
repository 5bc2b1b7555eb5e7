"""The command ``sadcl data``: a copy of a data set checked, or prepared for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sadcl.config import Data
    from sadcl.data.audit.findings import Audit, Finding


app = typer.Typer(
    no_args_is_help=True, help="Check a copy of a data set, or prepare it for training."
)
EXAMPLES, LABELS = 3, 5
"""Files of each kind of finding, and labels at either end, that are printed."""


@app.command()
def check(
    name: Annotated[
        str,
        typer.Argument(
            help="coco, coco14, coco17, voc2007, voc2012, nuswide, vg500, folder or scenes."
        ),
    ],
    data_root: Annotated[
        str | None, typer.Option(help="Where the copy lies; not needed for the embedded scenes.")
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Do not open the image files.")] = False,
    report: Annotated[
        str | None, typer.Option(help="Write all findings there, as Parquet, one row each.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A policy, such as missing=drop or voc2012_test=server; repeat it."
        ),
    ] = None,
) -> None:
    """Is my copy right? Exit code 0: it is; 1: it has errors; 2: it cannot be read."""
    from sadcl import storage
    from sadcl.console import progress_bar
    from sadcl.data import prepared
    from sadcl.data.audit import findings
    from sadcl.data.load import annotation_folder
    from sadcl.errors import UserError

    config = _config(name, changes or [])
    if (
        data_root is not None
        and (mark := prepared.mark_of(annotation_folder(data_root))) is not None
    ):
        config = config.model_copy(
            update={"prepared": mark["size"]}
        )  # a copy that says so is checked as what it is
    if report is not None:
        storage.check_new(report)
    try:
        with progress_bar("reading the lists") as show:
            found = findings.audit_copy(config, data_root, fast=fast, progress=show)
    except UserError as error:
        _write(report, [findings.Finding("unreadable copy", "error", detail=str(error))])
        raise
    except KeyboardInterrupt:
        typer.echo("stopped; no report was written.", err=True)
        raise typer.Exit(130) from None
    _write(report, found.findings)
    _tell(found, fast, data_root, report)
    if not found.right:
        raise typer.Exit(1)


@app.command()
def prepare(
    name: Annotated[str, typer.Argument(help="coco, voc2007, voc2012, nuswide, vg500 or folder.")],
    data_root: Annotated[
        str, typer.Option(help="Where the photographs lie: a folder, s3://... or gs://...")
    ],
    to: Annotated[
        Path,
        typer.Option(help="A new folder for the copy, which is the data root to train on then."),
    ],
    size: Annotated[
        int,
        typer.Option(
            min=32, max=2048, help="Side in pixels; at least what the augmentation resizes to."
        ),
    ] = 512,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A policy that decides which images there are, as missing=drop."
        ),
    ] = None,
) -> None:
    """A copy of a data set with its images decoded and resized once; the same command goes on where it was stopped."""
    from sadcl.console import guarded, progress_bar
    from sadcl.data.prepare import prepare as write

    config = _config(name, changes or [])
    with guarded(), progress_bar("reading the data") as show:  # typer says nothing after Ctrl-C
        done = write(config, data_root, to.expanduser().absolute(), size, show("resizing"))
    typer.echo(
        f"{done.images:,} images of {size} x {size} pixels, {done.bytes / 1e9:,.2f} GB, in {to} ({done.written:,} written "
        f"now; digest {done.digest}, as in the source). To train on them: --data-root {to} and data.prepared = {size}."
    )


def _config(name: str, changes: Sequence[str]) -> Data:
    from typing import get_args

    from sadcl.config import Config, Data
    from sadcl.errors import UserError, did_you_mean

    names = get_args(Data.model_fields["name"].annotation)
    if name not in names:
        raise UserError(f"There is no data set {name!r}{did_you_mean(name, names)}")
    policies = {"data.name": name}
    for change in changes:
        field, equals, value = change.partition("=")
        if not equals:
            raise UserError(
                f"--set {change!r} is not possible: a policy and its value are needed, such as missing=drop."
            )
        if field.removeprefix("data.") == "name":
            raise UserError(
                f"--set {change!r} is not possible: the data set is the first argument, {name!r} here."
            )
        policies[f"data.{field.removeprefix('data.')}"] = value
    return Config().override(policies).data


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
        raise UserError(
            f"The report {report!r} cannot be written: {error.strerror or error}."
        ) from None


def _tell(found: Audit, fast: bool, root: str | None, report: str | None) -> None:
    from sadcl.console import clock_text, console, show_table
    from sadcl.data.audit.published_counts import CountLine

    title = f"{found.name} in {root}" if root else found.name
    show_table([line._asdict() for line in found.lines], CountLine._fields, title)
    if rows := _kinds(found):
        show_table(rows, ["severity", "number", "split", "what", "examples"], "findings")
    show_table(_labels(found), ["label", "train", "test"], "images of a label")
    if fast:
        console.print(
            "No image file was opened (--fast): damage and duplicates are not known.",
            highlight=False,
        )
    else:
        speed = found.opened / max(found.seconds, 1e-9)
        console.print(
            f"{found.opened:,} image files read and decoded in {clock_text(found.seconds)} ({speed:,.0f} images/s).",
            highlight=False,
        )
    errors = sum(row.severity == "error" for row in found.findings)
    rest = (
        f"all findings are in {report}" if report else "--report FILE.parquet writes all findings"
    )
    verdict = "RIGHT: no errors" if found.right else f"WRONG: {errors:,} error{'s' * (errors != 1)}"
    console.print(f"{verdict}; {rest}.", highlight=False, markup=False)


def _kinds(found: Audit) -> list[Mapping[str, Any]]:
    """Findings of one kind and split in one row."""
    from sadcl.data.audit.findings import KINDS

    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for row in found.findings:
        if row.severity != "fact" and row.kind != "count":  # which the first table has
            groups.setdefault((row.severity, row.kind, row.split), []).append(row)
    rows: list[Mapping[str, Any]] = []
    for (severity, kind, split), group in groups.items():
        shown = [
            " ".join(filter(None, [one.file or one.label, _short(one)])) for one in group[:EXAMPLES]
        ]
        more = f"and {len(group) - EXAMPLES:,} more" if len(group) > EXAMPLES else ""
        number = sum(one.number or 1 for one in group)
        what = f"{kind}: {KINDS[kind][1]}"
        examples = "; ".join(filter(None, [*shown, more]))
        rows.append(
            {
                "severity": severity,
                "number": f"{number:,}",
                "split": split,
                "what": what,
                "examples": examples,
            }
        )
    return rows


def _short(row: Finding) -> str:
    """What is of this one alone; long details are in the report."""
    if row.kind in ("leak", "duplicate", "box", "misnamed", "rotated", "hole"):
        return f"({row.label}{', ' * bool(row.label)}{row.detail})"
    return (
        f"({row.label})" if row.file and row.label else "" if row.file or row.label else row.detail
    )


def _labels(found: Audit) -> list[Mapping[str, Any]]:
    counts: dict[str, dict[str, int | None]] = {}
    for row in found.findings:
        if row.kind == "frequency":
            counts.setdefault(row.label, {})[row.split] = row.number
    ranked = sorted(counts, key=lambda label: -sum(n or 0 for n in counts[label].values()))
    shown = ranked if len(ranked) <= 2 * LABELS else [*ranked[:LABELS], "...", *ranked[-LABELS:]]
    return [
        {"label": label, **{part: counts.get(label, {}).get(part) for part in ("train", "test")}}
        for label in shown
    ]
