"""Rows know whether their goals are reached, and ratios are of pairs."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("figures", "reached"),
    [
        ({"ratio": 50.0, "goal": 50.0}, True),
        ({"ratio": 49.9, "goal": 50.0}, False),
        ({"goal": 50.0}, False),
        ({"at_most": 2.0}, True),
        ({"at_most": 1.9}, False),
        ({"ratio": 60.0, "goal": 50.0, "at_most": 1.9}, False),
        ({"ratio": 60.0}, None),
    ],
)
def test_what_is_reached(load, figures, reached):
    assert load("rows").Row("x", 2.0, "s", **figures).reached is reached


def test_ratios_are_of_pairs(load):
    row = load("rows").compare("x", "s", [1.0, 2.0, 4.0], [10.0, 10.0, 100.0], limit=0.5)
    assert (row.ours, row.reference, row.ratio, row.low, row.high, row.share) == (
        2.0,
        10.0,
        10.0,
        5.0,
        25.0,
        0.25,
    )
    assert load("rows").compare("x", "s", [1.0]).ratio is None
