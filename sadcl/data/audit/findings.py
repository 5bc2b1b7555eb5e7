"""Check a copy of a data set and list everything that is noticed in it, as findings.

What no reader can work with (a missing list, truncated JSON, an unknown category) is the reader's
UserError, here as in training. Everything else is a finding.

Axes: N images, L labels.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sadcl import data
from sadcl.config import Data
from sadcl.data import label_names, remote
from sadcl.data.audit.image_file import inspect_files
from sadcl.data.audit.published_counts import CountLine, compare_counts
from sadcl.data.bad_rows import BadRows
from sadcl.data.base import ImageSet, Progress
from sadcl.data.load import READERS
from sadcl.data.readers import files
from sadcl.data.split import hold_out

PARTS = ("train", "test")
MIN_IMAGES = 50
"""Fewer held-out or test images are warned of, as in the plan of a study."""
SEVERITIES = ("error", "warning", "note", "fact")
KINDS = {
    "count": ("error", "a number differs from the published one"),
    "row": ("error", "rows of the table that cannot be used, and are left out below"),
    "missing": ("error", "listed, but not on disk (data.missing = 'drop' leaves them out)"),
    "unreadable": ("error", "the file cannot be read"),
    "empty": ("error", "the file has zero bytes"),
    "corrupt": ("error", "damaged, cut short or no image"),
    "large": ("error", "more pixels than are read (data.max_pixels raises the limit)"),
    "leak": ("error", "a test image has the same bytes as a training image"),
    "duplicate": ("warning", "same bytes as another image of the split"),
    "hole": (
        "warning",
        "zero bytes in the middle of the picture's data, as interrupted downloads leave them",
    ),
    "damaged": (
        "warning",
        "the decoder complains, and fills in what it cannot read: was the file cut, or garbled?",
    ),
    "flat": (
        "warning",
        "one colour over much of the picture, as decoders fill in what a file lacks",
    ),
    "range": ("warning", "numbers that are read as a nearly black, or a clipped, picture"),
    "absent": ("warning", "no image of the split shows the label"),
    "few": ("warning", "so few images that single ones move the figures by points"),
    "label": (
        "warning",
        "several labels in one, or one written in two ways? ';' goes between names in a table",
    ),
    "box": ("note", "a box without area in the image, which localisation leaves out"),
    "unlabelled": ("note", "an image without a label"),
    "ignored": ("note", "it is not known whether the image shows the label"),
    "misnamed": ("note", "another format than its name says"),
    "frames": ("note", "several pictures in one file, of which the first is read"),
    "transparent": ("note", "transparent in part, which is ignored"),
    "grayscale": ("note", "no colours"),
    "CMYK": ("note", "colours for printing"),
    "rotated": ("note", "turned upright by its EXIF orientation"),
    "frequency": ("fact", "images that show the label"),
}
"""Severity and meaning of each kind. An error makes training fail or metrics wrong, a warning is
worth a look, a note is good to know."""


class Finding(NamedTuple):
    """One row of the report."""

    kind: str
    severity: str
    split: str = ""
    file: str = ""
    label: str = ""
    detail: str = ""
    number: int | None = None
    """Number of images, if the row is about several."""


@dataclass
class Audit:
    """Result of the check of a copy."""

    name: str
    """Concrete name of the data set."""
    lines: list[CountLine]
    findings: list[Finding] = field(default_factory=list)
    opened: int = 0
    """Number of image files that were read whole."""
    seconds: float = 0.0
    """Time that reading them took."""
    held_out: int | None = None
    """Training images that training holds out to select by; None where it is not known."""

    @property
    def right(self) -> bool:
        """True if there are no errors."""
        return not self.number("error")

    def number(self, severity: str) -> int:
        """Return the number of findings of a severity; one may stand for several."""
        return sum(one.number or 1 for one in self.findings if one.severity == severity)


def findings_table(findings: Sequence[Finding]) -> pa.Table:
    """Return the report as a table with one row for each finding."""
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
    """Check the lists, labels, boxes and image files of a copy.

    Args:
        config: the data set and its policies; nothing is dropped or held out.
        root: as for :func:`sadcl.data.load`.
        fast: do not open image files.
        progress: returns for the name of a task the function that its progress is reported to.

    Returns:
        Its findings are sorted: errors first, the frequency of each label last.

    Raises:
        UserError: for a copy that cannot be read.
    """
    show = progress or (lambda what: lambda done, total: None)
    bad_rows: list[Finding] = []
    try:
        listing = data.read_listing(config, root, progress=show("drawing the scenes"))
    except BadRows as bad:
        bad_rows = list(_bad_rows(bad))
        if bad.good is None or root is None:
            return Audit(config.name, [], bad_rows)
        place = data.annotation_folder(root)
        config = data.resolve(config, root)
        listing = data.Listing(config, place, READERS[config.name], config, bad.good)
    splits = [replace(images, max_pixels=config.max_pixels) for images in listing.splits]
    result = Audit(listing.config.name, compare_counts(listing.config, splits))
    result.findings += bad_rows
    result.findings += _count_findings(result.lines)
    matches = [files.match_files(images) for images in splits]
    files.check_disjoint(*(images for images, _ in matches))
    for part, images, (_, existing) in zip(PARTS, splits, matches, strict=True):
        result.findings += _missing_images(part, images, existing, config.missing)
        result.findings += _target_findings(part, images)
    if listing.config.name not in label_names.PUBLISHED:
        train, test = (images.subset(exist, images.name) for images, exist in matches)
        result.held_out = _number_held_out(train, config)
        result.findings += _few_images({"held-out": result.held_out, "test": len(test)})
    result.findings += _suspicious_labels(listing.config.name, splits[0].labels)
    if (flat_boxes := getattr(listing.reader, "flat_boxes", None)) is not None:
        show("looking at the boxes")(0, 0)
        for split, *row in flat_boxes(listing.place, listing.reader_config, splits):
            result.findings.append(_finding("box", PARTS[split], *row))
    if not fast:
        if root is not None:
            matches = [
                (remote.with_root(images, listing.place, root), existing)
                for images, existing in matches
            ]
        start = time.monotonic()
        result.findings += _content_findings(matches, show("looking at the images"))
        result.opened = sum(len(existing) for _, existing in matches)
        result.seconds = time.monotonic() - start
    order = list(KINDS)
    result.findings.sort(key=lambda row: (SEVERITIES.index(row.severity), order.index(row.kind)))
    return result


def _finding(
    kind: str, split: str = "", file: str = "", label: str = "", detail: str = ""
) -> Finding:
    return Finding(kind, KINDS[kind][0], split, file, label, detail)


def _bad_rows(bad: BadRows) -> Iterator[Finding]:
    """Yield the rows of a table that cannot be used, as far as they are described."""
    for row in bad.rows:
        yield _finding("row", detail=row)
    if more := bad.number - len(bad.rows):
        yield _finding("row", detail="more rows, which are not listed")._replace(number=more)


def _count_findings(lines: Sequence[CountLine]) -> Iterator[Finding]:
    """Yield the numbers that differ from the published ones."""
    for line in lines:
        if line.severity:
            detail = f"{line.what}: {line.here} here, {line.published} published; {line.remark}"
            yield Finding("count", line.severity, detail=detail)


def _missing_images(
    part: str, images: ImageSet, existing: NDArray[np.int64], policy: str
) -> Iterator[Finding]:
    """Yield the images of a split that are not on disk."""
    for i in np.setdiff1d(np.arange(len(images)), existing).tolist():
        file = images.files[i].as_py()
        if policy == "drop":
            detail = "left out: data.missing = 'drop'"
            yield _finding("missing", part, file, detail=detail)._replace(severity="note")
        else:
            yield _finding("missing", part, file, detail=f"not in {images.folder}")


def _number_held_out(train: ImageSet, config: Data) -> int:
    """Return how many of the training images that exist training will hold out."""
    targets = train.targets
    if config.unlabelled == "drop":
        targets = targets[(targets != 0).any(axis=1)]
    return int(hold_out(targets, config.holdout, config.split_seed).sum())


def _few_images(counts: Mapping[str, int]) -> Iterator[Finding]:
    """Yield the parts that have few images for the figures that are measured on them."""
    for part, number in counts.items():
        if 0 < number < MIN_IMAGES:
            yield _finding("few", part, detail=f"{number} images, fewer than {MIN_IMAGES}")


def _suspicious_labels(name: str, labels: Sequence[str]) -> Iterator[Finding]:
    """Yield labels that look like several, or like another."""
    if name not in label_names.PUBLISHED:
        for remark in label_names.remarks_on(labels):
            yield _finding("label", label=remark.label, detail=remark.reason)


def _target_findings(part: str, images: ImageSet) -> Iterator[Finding]:
    """Yield what follows from the targets of a split."""
    if len(images) and (images.targets < 0).all():
        finding = _finding("ignored", part, detail="no label of this split is known")
        yield finding._replace(number=len(images))
        return
    for i in np.flatnonzero((images.targets == 0).all(axis=1)).tolist():
        yield _finding("unlabelled", part, images.files[i].as_py())
    for i, column in np.argwhere(images.targets == -1).tolist():
        yield _finding("ignored", part, images.files[i].as_py(), images.labels[column])
    count_L = (images.targets == 1).sum(axis=0).tolist()
    for label, count in zip(images.labels, count_L, strict=True):
        if not count:
            untested = "it has no AP, and is left out of mAP"
            detail = "it cannot be learned" if part == "train" else untested
            yield _finding("absent", part, "", label, detail)
        yield _finding("frequency", part, "", label)._replace(number=count)


def _content_findings(
    splits: Sequence[tuple[ImageSet, NDArray[np.int64]]], progress: Progress
) -> Iterator[Finding]:
    """Yield what follows from the bytes of the image files.

    Args:
        splits: each with the positions of its images that exist.
        progress: called with the number of inspected files and of all files.
    """
    items = [(part, int(i)) for part, (_, positions) in enumerate(splits) for i in positions]
    paths = [splits[part][0].path(i) for part, i in items]
    first_of: list[dict[bytes, int]] = [{}, {}]
    with warnings.catch_warnings():
        # Pillow's warnings of odd EXIF data and the like do not name the file
        warnings.simplefilter("ignore")
        limits = [splits[part][0].max_pixels for part, _ in items]
        inspected = enumerate(zip(items, inspect_files(paths, limits), strict=True), start=1)
        for done, ((part, i), image_file) in inspected:
            images = splits[part][0]
            name = images.files[i].as_py()
            for kind, detail in image_file.remarks:
                yield _finding(kind, PARTS[part], name, detail=detail)
            for other, kind in ((part, "duplicate"), *([(0, "leak")] if part == 1 else [])):
                others = splits[other][0]
                twin = first_of[other].get(image_file.digest) if image_file.digest else None
                if twin is not None:
                    same_labels = (others.targets[twin] == images.targets[i]).all()
                    detail = f"same bytes as {others.files[twin].as_py()}"
                    detail += "" if same_labels else ", but other labels"
                    yield _finding(kind, PARTS[part], name, detail=detail)
            first_of[part].setdefault(image_file.digest, i)
            if done % 64 == 0 or done == len(paths):
                progress(done, len(paths))
