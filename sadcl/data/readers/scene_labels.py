"""What the labels of the drawn scenes look like: polygons, sizes and colours."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


class Label(NamedTuple):
    """The look of a label."""

    name: str
    group: str
    """Labels of a group often occur together."""
    hue: float
    """Its most frequent hue, 0 to 1, which labels of other groups share."""
    radius: tuple[float, float]
    """Smallest and largest half of the object's size in pixels."""
    parts: tuple[tuple[Points, int], ...]
    """Polygons from -1 to 1, y down, each with the number of its ink: 0 light, 1 dark."""


def _arc(
    x: float, y: float, radius: float, start: float = 0.0, stop: float = 360.0, n: int = 20
) -> Points:
    angle = np.radians(np.linspace(start, stop, n))
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


def _box(x0: float, y0: float, x1: float, y1: float) -> Points:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def _poly(*points: tuple[float, float]) -> Points:
    return np.array(points, dtype=float)


def _star(n: int, inner: float) -> Points:
    angle = np.radians(np.arange(2 * n) * 180 / n - 90)
    radius = np.where(np.arange(2 * n) % 2, inner, 1.0)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _hollow(outer: Points, inner: Points) -> Points:
    """Return one outline with a hole, by the even-odd rule."""
    return np.concatenate([outer, outer[:1], inner, inner[:1]])


def _petals(n: int) -> Iterator[tuple[Points, int]]:
    for angle in np.radians(np.arange(n) * 360 / n - 90):
        yield _arc(0.62 * math.cos(angle), 0.62 * math.sin(angle), 0.4, n=10), 0


def _stripe(y0: float, y1: float) -> tuple[Points, int]:
    """Return a band across the unit disc."""
    x0, x1 = math.sqrt(1 - y0 * y0), math.sqrt(1 - y1 * y1)
    return _poly((-x0, y0), (x0, y0), (x1, y1), (-x1, y1)), 1


_CHECKS = tuple(
    (_box(x, y, x + 0.5, y + 0.5), 1) for x, y in ((-1, -1), (0, -1), (-0.5, -0.5), (0.5, -0.5))
)
_CHECKS += tuple((points + np.array([0.0, 1.0]), ink) for points, ink in _CHECKS)

# The most frequent label comes first: the position decides the frequency.
LABELS: tuple[Label, ...] = (
    Label("house", "street", 0.02, (12, 19), (
        (_box(-0.75, -0.1, 0.75, 1), 0), (_poly((-1, -0.1), (0, -1), (1, -0.1)), 1),
        (_box(-0.2, 0.4, 0.2, 1), 1))),
    Label("disc", "garden", 0.10, (13, 20), ((_arc(0, 0, 1), 0),)),
    Label("star", "sky", 0.14, (11, 18), ((_star(5, 0.42), 0),)),
    Label("fish", "sea", 0.55, (12, 19), (
        (_arc(-0.2, 0, 0.62) * np.array([1.25, 0.8]), 0),
        (_poly((0.3, 0), (1, -0.55), (1, 0.55)), 0), (_arc(-0.6, -0.1, 0.13, n=8), 1))),
    Label("board", "play", 0.02, (10, 17), ((_box(-1, -1, 1, 1), 0), *_CHECKS)),
    Label("car", "street", 0.55, (13, 20), (
        (_poly((-0.55, -0.1), (-0.3, -0.6), (0.4, -0.6), (0.6, -0.1)), 0),
        (_box(-1, -0.1, 1, 0.4), 0),
        (_arc(-0.5, 0.42, 0.25, n=12), 1), (_arc(0.5, 0.42, 0.25, n=12), 1))),
    Label("moon", "sky", 0.14, (11, 18), (
        (np.concatenate([_arc(0, 0, 1, 50, 310), _arc(0.42, 0, 0.8, 290, 70)]), 0),)),
    Label("ring", "sea", 0.02, (11, 18), ((_hollow(_arc(0, 0, 1), _arc(0, 0, 0.58)), 0),)),
    Label("flower", "garden", 0.88, (11, 18), (*_petals(5), (_arc(0, 0, 0.36, n=12), 1))),
    Label("ball", "play", 0.55, (11, 18), (
        (_arc(0, 0, 1), 0), _stripe(-0.75, -0.35), _stripe(0.0, 0.4), _stripe(0.7, 0.95))),
    Label("tree", "street", 0.35, (13, 20), (
        (_box(-0.16, 0.3, 0.16, 1), 1), (_poly((-0.8, 0.45), (0, -0.5), (0.8, 0.45)), 0),
        (_poly((-0.6, -0.1), (0, -1), (0.6, -0.1)), 0))),
    Label("kite", "sky", 0.88, (11, 18), (
        (_poly((-0.7, -0.3), (0, -1), (0.7, -0.3), (0, 1)), 0),
        (_poly((0, -1), (0.7, -0.3), (0, -0.3)), 1),
        (_poly((-0.7, -0.3), (0, -0.3), (0, 1)), 1))),
    Label("boat", "sea", 0.10, (13, 19), (
        (_poly((-1, 0.35), (1, 0.35), (0.6, 0.9), (-0.6, 0.9)), 0),
        (_poly((-0.05, -1), (-0.05, 0.25), (-0.8, 0.25)), 1),
        (_poly((0.08, -0.7), (0.08, 0.25), (0.7, 0.25)), 1))),
    Label("mushroom", "garden", 0.02, (11, 18), (
        (_box(-0.28, 0, 0.28, 1), 1), (_arc(0, 0.05, 1, 180, 360), 0),
        (_arc(-0.4, -0.4, 0.17, n=8), 1), (_arc(0.35, -0.35, 0.2, n=8), 1))),
    Label("die", "play", 0.14, (10, 16), (
        (_box(-1, -1, 1, 1), 0),
        *((_arc(x, y, 0.22, n=10), 1)
          for x, y in ((-0.5, -0.5), (0.5, 0.5), (0, 0), (-0.5, 0.5), (0.5, -0.5))))),
    Label("arrow", "street", 0.35, (12, 19), (
        (_poly((-1, -0.22), (0.1, -0.22), (0.1, -0.7), (1, 0), (0.1, 0.7), (0.1, 0.22),
               (-1, 0.22)), 0),)),
    Label("bolt", "sky", 0.10, (12, 19), (
        (_poly((0.25, -1), (-0.55, 0.15), (-0.05, 0.15), (-0.25, 1), (0.55, -0.2),
               (0.05, -0.2)), 0),)),
    Label("bead", "sea", 0.88, (5, 8), ((_arc(0, 0, 1), 0),)),
    Label("ladder", "garden", 0.10, (12, 19), (
        (_box(-0.55, -1, -0.35, 1), 0), (_box(0.35, -1, 0.55, 1), 0),
        *((_box(-0.5, y, 0.5, y + 0.2), 0) for y in (-0.8, -0.35, 0.1, 0.55)))),
    Label("target", "play", 0.35, (12, 19), (
        (_arc(0, 0, 1), 0), (_arc(0, 0, 0.7), 1), (_arc(0, 0, 0.38, n=12), 0))),
)  # fmt: skip
