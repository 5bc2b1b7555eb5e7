"""Is my copy right? Everything that can be known of a copy, as one list of findings.

What no reader can go on with (a list that is missing, JSON that was cut, a category that is not listed) is its UserError,
here as in training; everything else is a finding. Axes: N images, L labels.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sadcl import data
from sadcl.config import Data
from sadcl.data import remote
from sadcl.data.audit.image_file import inspect_files
from sadcl.data.audit.published_counts import CountLine, compare_counts
from sadcl.data.base import ImageSet, Progress
from sadcl.data.readers import files

PARTS = ("train", "test")
KINDS = {
    "count": ("error", "a number differs from the published one"),
    "missing": ("error", "listed, but not on disk (data.missing = 'drop' leaves them out)"),
    "unreadable": ("error", "the file cannot be read"),
    "empty": ("error", "the file has zero bytes"),
    "corrupt": ("error", "damaged, cut short or no image"),
    "leak": ("error", "a test image has the same bytes as a training image"),
    "duplicate": ("warning", "same bytes as another image of the split"),
    "hole": ("warning", "zero bytes amid the picture's data, as interrupted downloads leave them"),
    "absent": ("warning", "no image of the split shows the label"),
    "label": (
        "warning",
        "a comma or a bracket in a label's name: is it several names? ';' goes between names",
    ),
    "box": ("note", "a box without area"),
    "unlabelled": ("note", "an image without a label"),
    "ignored": ("note", "whether the image shows the label is left open"),
    "misnamed": ("note", "another format than its name says"),
    "grayscale": ("note", "no colours"),
    "CMYK": ("note", "colours for printing"),
    "rotated": ("note", "turned upright by its EXIF orientation"),
    "frequency": ("fact", "images that show the label"),
}
"""Severity and meaning. An error makes training fail or figures wrong, a warning is worth a look, a note is good to know."""


class Finding(NamedTuple):
    """One row of the report."""

    kind: str
    severity: str
    split: str = ""
    file: str = ""
    label: str = ""
    detail: str = ""
    number: int | None = None
    """Of images, where the row is about several."""


@dataclass
class Audit:
    """What was found."""

    name: str
    lines: list[CountLine]
    findings: list[Finding] = field(default_factory=list)
    opened: int = 0
    """Image files that were read whole, in ``seconds``."""
    seconds: float = 0.0

    @property
    def right(self) -> bool:
        return not any(finding.severity == "error" for finding in self.findings)


def findings_table(findings: Sequence[Finding]) -> pa.Table:
    """The report."""
    kinds = [pa.int64() if name == "number" else pa.string() for name in Finding._fields]
    columns = zip(*findings, strict=True) if findings else [()] * len(kinds)
    arrays = [pa.array(list(values), kind) for values, kind in zip(columns, kinds, strict=True)]
    return pa.table(arrays, names=list(Finding._fields))


def audit_copy(
    config: Data,
    root: str | Path | None,
    *,
    fast: bool = False,
    progress: Callable[[str], Progress] | None = None,
) -> Audit:
    """Look at a copy: its lists, its labels, its boxes and all of its image files.

    Args:
        config: which data set, by which policies; nothing is dropped or held out.
        root: as for :func:`sadcl.data.load`.
        fast: do not open image files.
        progress: gives the progress of what it is told.

    Returns:
        Errors first; how frequent each label is comes last.

    Raises:
        UserError: for a copy that cannot be read.
    """
    show = progress or (lambda what: lambda done, of: None)
    copy = data.read_listed(config, root, progress=show("drawing the scenes"))
    splits = copy.splits
    result = Audit(copy.config.name, compare_counts(copy.config, splits))
    for line in result.lines:
        if line.severity:
            detail = f"{line.what}: {line.here} here, {line.published} published; {line.remark}"
            result.findings.append(Finding("count", line.severity, detail=detail))

    there = []
    final = [files.on_disk(images) for images in splits]
    files.disjoint(*(named for named, _ in final))
    for part, images, (named, positions) in zip(PARTS, splits, final, strict=True):
        there.append(
            (remote.moved(named, copy.place, root) if root is not None else named, positions)
        )
        for i in np.setdiff1d(np.arange(len(images)), positions).tolist():
            row = _finding(
                "missing", part, images.files[i].as_py(), detail=f"not in {images.folder}"
            )
            dropped = row._replace(severity="note", detail="left out: data.missing = 'drop'")
            result.findings.append(dropped if config.missing == "drop" else row)
        result.findings += _labels(part, images)
    if copy.config.name == "folder":
        odd = [
            label
            for label in splits[0].labels
            if "," in label or label.startswith("[") or label.endswith("]")
        ]
        result.findings += [_finding("label", label=label) for label in odd]
    if (boxes := getattr(copy.reader, "flat_boxes", None)) is not None:
        show("looking at the boxes")(0, 0)
        for split, file, label, detail in boxes(copy.place, copy.reading, splits):
            result.findings.append(_finding("box", PARTS[split], file, label, detail))
    if not fast:
        began = time.monotonic()
        result.findings += _contents(there, show("looking at the images"))
        result.opened, result.seconds = (
            sum(len(positions) for _, positions in there),
            time.monotonic() - began,
        )
    order = list(KINDS)
    result.findings.sort(
        key=lambda row: (
            ("error", "warning", "note", "fact").index(row.severity),
            order.index(row.kind),
        )
    )
    return result


def _finding(
    kind: str, split: str = "", file: str = "", label: str = "", detail: str = ""
) -> Finding:
    return Finding(kind, KINDS[kind][0], split, file, label, detail)


def _labels(part: str, images: ImageSet) -> Iterator[Finding]:
    """What the targets of a split say."""
    if len(images) and (images.targets < 0).all():
        yield _finding("ignored", part, detail="no label of this split is known")._replace(
            number=len(images)
        )
        return
    for i in np.flatnonzero((images.targets == 0).all(axis=1)).tolist():
        yield _finding("unlabelled", part, images.files[i].as_py())
    for i, column in np.argwhere(images.targets == -1).tolist():
        yield _finding("ignored", part, images.files[i].as_py(), images.labels[column])
    for label, count in zip(images.labels, (images.targets == 1).sum(axis=0).tolist(), strict=True):
        if not count:
            detail = (
                "it cannot be learned"
                if part == "train"
                else "it has no AP, and is left out of mAP"
            )
            yield _finding("absent", part, "", label, detail)
        yield _finding("frequency", part, "", label)._replace(number=count)


def _contents(
    splits: Sequence[tuple[ImageSet, np.ndarray]], progress: Progress
) -> Iterator[Finding]:
    """What the bytes of the image files say."""
    where = [(part, int(i)) for part, (_, positions) in enumerate(splits) for i in positions]
    paths = [splits[part][0].path(i) for part, i in where]
    first: list[dict[bytes, int]] = [{}, {}]
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # Pillow's, of odd EXIF data and the like, without the name of the file
        for done, ((part, i), found) in enumerate(
            zip(where, inspect_files(paths), strict=True), start=1
        ):
            images = splits[part][0]
            name = images.files[i].as_py()
            for kind, detail in found.remarks:
                yield _finding(kind, PARTS[part], name, detail=detail)
            for other, kind in ((part, "duplicate"), *([(0, "leak")] if part == 1 else [])):
                twin = first[other].get(found.digest) if found.digest else None
                if twin is not None:
                    same = (splits[other][0].targets[twin] == images.targets[i]).all()
                    detail = f"same bytes as {splits[other][0].files[twin].as_py()}{'' if same else ', but other labels'}"
                    yield _finding(kind, PARTS[part], name, detail=detail)
            first[part].setdefault(found.digest, i)
            if done % 64 == 0 or done == len(paths):
                progress(done, len(paths))
