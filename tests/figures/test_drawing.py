"""Colours and marks."""

from sadcl.figures.drawing import look_of


def test_looks_differ():
    assert len({(look["color"], look["marker"]) for look in map(look_of, range(132))}) == 132
