"""Compare the numbers of a copy with those that its publisher, or the paper's Table 2, reports.

Axes: N images, L labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sadcl.config import Data
from sadcl.data.base import ImageSet

TOLERANCE = 0.1
"""Largest difference in labels an image: published values have one decimal, and policies for
doubtful objects change them a little."""


class PublishedCounts(NamedTuple):
    """Numbers of a data set, and why a copy may rightly have others."""

    train: int
    """Training images."""
    test: int
    """Test images."""
    labels: int
    cardinality: float
    """Mean number of labels an image."""
    only_labelled: bool = False
    """The numbers count images with a label only."""
    variants: Mapping[int, str] = {}
    """Other numbers of images that are in circulation, each with its reason."""
    reason: str = ""
    """Why any other number may be right; without a reason another number is an error."""
    note: str = ""


class CountLine(NamedTuple):
    """One number of a copy beside the published one."""

    what: str
    here: str
    """In the copy."""
    published: str
    severity: str
    """Empty if both agree, else ``warning`` or ``error``."""
    remark: str


_DROPPED = "of the images with a label alone; the others were dropped from this copy's lists"


def published_counts(config: Data, splits: Sequence[ImageSet]) -> PublishedCounts | None:
    """Return the published numbers, or None for a data set of your own."""
    if config.name == "coco14":
        return PublishedCounts(
            82_783, 40_504, 80, 2.9, variants={82_081: _DROPPED, 40_137: _DROPPED}
        )
    if config.name == "coco17":
        return PublishedCounts(
            118_287, 5_000, 80, 2.9, variants={117_266: _DROPPED, 4_952: _DROPPED}
        )
    if config.name == "voc2007":
        return PublishedCounts(5_011, 4_952, 20, 1.5)
    if config.name == "voc2012" and config.voc2012_test == "server":
        return PublishedCounts(
            11_540, 10_991, 20, 1.4, note="test labels are with the evaluation server"
        )
    if config.name == "voc2012":
        note = (
            "voc2012_test = 'val'; the paper's 11,540 and 10,991 are trainval and test: "
            "voc2012_test = 'server'"
        )
        return PublishedCounts(5_717, 5_823, 20, 1.4, note=note)
    if config.name == "nuswide":
        reason = (
            "splits in circulation disagree, because many images are no longer available; say in a "
            "report which one was used"
        )
        return PublishedCounts(125_449, 83_898, 81, 2.4, only_labelled=True, reason=reason)
    if config.name == "vg500":
        is_permuted = splits[0].list_name == splits[1].list_name
        reason = (
            "SSGRL's train_list_500.txt and test_list_500.txt are missing from this copy, so a "
            "fixed permutation divides all images"
        )
        return PublishedCounts(82_904, 10_000, 500, 13.6, reason=reason if is_permuted else "")
    return None


def compare_counts(config: Data, splits: Sequence[ImageSet]) -> list[CountLine]:
    """Compare the numbers of images of both splits, of labels, and of labels an image.

    The last is a mean over both splits, or over those whose labels are known.
    """
    published = published_counts(config, splits)
    lines = []
    for part, images in zip(("train", "test"), splits, strict=True):
        labelled = int((images.targets != 0).any(axis=1).sum())
        number = published and getattr(published, part)
        lines.append(_image_line(f"{part} images", len(images), labelled, number, published))
    lines.append(_line("labels", len(splits[0].labels), published and published.labels))
    count_N = np.concatenate(
        [(s.targets == 1).sum(axis=1) for s in splits if (s.targets >= 0).any()]
    )
    if published is not None and published.only_labelled:
        count_N = count_N[count_N > 0]
    mean = float(count_N.mean()) if len(count_N) else 0.0
    number = "" if published is None else f"{published.cardinality}"
    differs = published is not None and abs(mean - published.cardinality) > TOLERANCE + 0.005
    policy = f"difficult = {config.difficult!r}" if config.name.startswith("voc") else ""
    remark = ", ".join(filter(None, ["differs" if differs else "", policy]))
    severity = "warning" if differs else ""
    return [*lines, CountLine("labels an image", f"{mean:.2f}", number, severity, remark)]


def _image_line(
    what: str,
    count: int,
    labelled: int,
    number: int | None,
    published: PublishedCounts | None,
) -> CountLine:
    """Return the line of a number of images, with the reason why it may differ.

    Args:
        what: the split.
        count: images of the copy.
        labelled: those of them with a label.
        number: the published one.
        published: all published numbers.
    """
    line = _line(what, count, number)
    with_label = f"{labelled:,} of them with a label" if labelled < count else ""
    if published is None or number is None:
        return line._replace(remark=with_label)
    if published.only_labelled and labelled == number:
        line = line._replace(remark="", severity="")
    if line.severity:
        reason = published.variants.get(count) or published.reason
        line = line._replace(
            remark=f"differs: {reason or 'not the whole data set, or another release'}",
            severity="warning" if reason else "error",
        )
    return line._replace(remark="; ".join(filter(None, [line.remark, with_label, published.note])))


def _line(what: str, count: int, number: int | None) -> CountLine:
    differs = number is not None and count != number
    severity, remark = ("error", "differs") if differs else ("", "")
    published = "" if number is None else f"{number:,}"
    return CountLine(what, f"{count:,}", published, severity, remark)
