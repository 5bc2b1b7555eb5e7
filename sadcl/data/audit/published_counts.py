"""What a copy has beside what its publisher, or the paper's Table 2, says that it has.

Axes: N images, L labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sadcl.config import Data
from sadcl.data.base import ImageSet

TOLERANCE = 0.1
"""Published cardinalities have one decimal, and policies for doubtful objects move them a little."""


class PublishedCounts(NamedTuple):
    """Numbers of a data set, and why a copy may rightly have others."""

    train: int
    test: int
    labels: int
    cardinality: float
    labelled: bool = False
    """The numbers are of images with a label."""
    known: Mapping[int, str] = {}
    """Other numbers of images that go around."""
    why: str = ""
    """Why whatever other number may be right; where there is no reason it is an error."""
    note: str = ""


class CountLine(NamedTuple):
    """One number."""

    what: str
    here: str
    published: str
    severity: str
    """Empty where both agree."""
    remark: str


_DROPPED = "of the images with a label alone; the others were dropped from this copy's lists"


def published_counts(config: Data, splits: Sequence[ImageSet]) -> PublishedCounts | None:
    """None where the numbers are nobody's but yours."""
    if config.name == "coco14":
        return PublishedCounts(82_783, 40_504, 80, 2.9, known={82_081: _DROPPED, 40_137: _DROPPED})
    if config.name == "coco17":
        return PublishedCounts(118_287, 5_000, 80, 2.9, known={117_266: _DROPPED, 4_952: _DROPPED})
    if config.name == "voc2007":
        return PublishedCounts(5_011, 4_952, 20, 1.5)
    if config.name == "voc2012" and config.voc2012_test == "server":
        return PublishedCounts(
            11_540, 10_991, 20, 1.4, note="test labels are with the evaluation server"
        )
    if config.name == "voc2012":
        note = "voc2012_test = 'val'; the paper's 11,540 and 10,991 are trainval and test: voc2012_test = 'server'"
        return PublishedCounts(5_717, 5_823, 20, 1.4, note=note)
    if config.name == "nuswide":
        why = "splits in the wild disagree: many images can no longer be had; say in a report which one was used"
        return PublishedCounts(125_449, 83_898, 81, 2.4, labelled=True, why=why)
    if config.name == "vg500":
        derived = splits[0].listed == splits[1].listed
        why = "SSGRL's train_list_500.txt and test_list_500.txt are not there, so a fixed permutation divides all images"
        return PublishedCounts(82_904, 10_000, 500, 13.6, why=why if derived else "")
    return None


def compare_counts(config: Data, splits: Sequence[ImageSet]) -> list[CountLine]:
    """Both numbers of images, of labels, and of labels an image, over both splits where their labels are known."""
    known = published_counts(config, splits)
    lines = []
    for part, images in zip(("train", "test"), splits, strict=True):
        labelled = int((images.targets != 0).any(axis=1).sum())
        lines.append(
            _images(f"{part} images", len(images), labelled, known and getattr(known, part), known)
        )
    lines.append(_line("labels", len(splits[0].labels), known and known.labels))
    shown_N = np.concatenate(
        [(s.targets == 1).sum(axis=1) for s in splits if (s.targets >= 0).any()]
    )
    if known is not None and known.labelled:
        shown_N = shown_N[shown_N > 0]
    mean = float(shown_N.mean()) if len(shown_N) else 0.0
    theirs = "" if known is None else f"{known.cardinality}"
    far = known is not None and abs(mean - known.cardinality) > TOLERANCE + 0.005
    policy = f"difficult = {config.difficult!r}" if config.name.startswith("voc") else ""
    remark = ", ".join(filter(None, ["differs" if far else "", policy]))
    return [
        *lines,
        CountLine("labels an image", f"{mean:.2f}", theirs, "warning" if far else "", remark),
    ]


def _images(
    what: str, count: int, labelled: int, theirs: int | None, known: PublishedCounts | None
) -> CountLine:
    line = _line(what, count, theirs)
    with_label = f"{labelled:,} of them with a label" if labelled < count else ""
    if known is None or theirs is None:
        return line._replace(remark=with_label)
    if known.labelled and labelled == theirs:
        line = line._replace(remark="", severity="")
    if line.severity:
        reason = known.known.get(count) or known.why
        line = line._replace(
            remark=f"differs: {reason}"
            if reason
            else "differs: not the whole of it, or another release",
            severity="warning" if reason else "error",
        )
    return line._replace(remark="; ".join(filter(None, [line.remark, with_label, known.note])))


def _line(what: str, count: int, theirs: int | None) -> CountLine:
    severity, remark = ("error", "differs") if theirs is not None and count != theirs else ("", "")
    return CountLine(what, f"{count:,}", "" if theirs is None else f"{theirs:,}", severity, remark)
