"""Numbers of whole copies agree with the published ones, and others say why they differ."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sadcl.config import Data
from sadcl.data.audit import published_counts
from sadcl.data.base import ImageSet


def numbers(name, train, test, labels, shown, **fields):
    """Return the lines of an invented copy, by what they are about.

    Each labelled image shows ``shown`` labels on average.
    """
    sets = []
    for count, bare in (train, test):
        targets = np.zeros((count + bare, labels), np.int8)
        targets[:count, : math.floor(shown)] = 1
        targets[: round(count * (shown % 1)), math.floor(shown)] = 1
        sets.append(
            ImageSet(
                "x",
                "",
                ["x"] * (count + bare),
                targets,
                ("x",) * labels,
                fields.pop("listed", "list"),
            )
        )
    lines = published_counts.compare_counts(Data(name=name, **fields), sets)
    return {line.what: (line.severity, line.remark) for line in lines}


@pytest.mark.parametrize(
    ("name", "train", "test", "labels", "shown", "fields"),
    [
        ("coco14", (82_081, 702), (40_137, 367), 80, 2.94, {}),
        ("voc2007", (5_011, 0), (4_952, 0), 20, 1.45, {}),
        ("voc2012", (5_717, 0), (5_823, 0), 20, 1.4, {}),
        ("voc2012", (11_540, 0), (10_991, 0), 20, 1.4, {"voc2012_test": "server"}),
        ("nuswide", (125_449, 36_340), (83_898, 23_961), 81, 2.42, {}),
        ("nuswide", (125_449, 0), (83_898, 0), 81, 2.42, {}),
    ],
)
def test_whole_copies_agree_with_the_published_numbers(name, train, test, labels, shown, fields):
    assert {
        severity for severity, _ in numbers(name, train, test, labels, shown, **fields).values()
    } == {""}


def test_numbers_that_differ_say_why_that_may_be_right():
    dropped = numbers("coco14", (82_081, 0), (40_137, 0), 80, 2.94)
    assert dropped["train images"][0] == dropped["test images"][0] == "warning"
    assert "with a label alone" in dropped["train images"][1]
    cut = numbers("coco14", (82_780, 0), (40_504, 0), 79, 2.0)
    lines = ("train images", "test images", "labels", "labels an image")
    assert [cut[what][0] for what in lines] == ["error", "", "error", "warning"]
    assert numbers("nuswide", (119_000, 0), (50_000, 0), 81, 2.4)["train images"][0] == "warning"
    assert "trainval" in numbers("voc2012", (5_717, 0), (5_823, 0), 20, 1.4)["train images"][1]
    listed = numbers(
        "vg500", (900, 0), (100, 0), 500, 13.6
    )  # both from one file: there are no lists
    assert listed["train images"][0] == "warning"
    assert "SSGRL" in listed["train images"][1]
