"""What a search may choose from: plain values, checked when they are made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sadcl.config import Config
from sadcl.errors import UserError


@dataclass(frozen=True)
class Float:
    """A number between two bounds, on a logarithmic scale where ``log``."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high, self.log)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{', logarithmic' if self.log else ''}"

    @property
    def probes(self) -> tuple[float, ...]:
        return (self.low, self.high)


@dataclass(frozen=True)
class Int:
    """A whole number between two bounds, both possible."""

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high, self.log)
        if self.low != int(self.low) or self.high != int(self.high):
            raise UserError(f"Int needs whole bounds, but got low={self.low}, high={self.high}.")

    def __str__(self) -> str:
        return f"{self.low} to {self.high}, whole numbers{', logarithmic' if self.log else ''}"

    @property
    def probes(self) -> tuple[int, ...]:
        return (self.low, self.high)


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        if len(values) < 2 or len(set(map(repr, values))) < len(values):
            raise UserError(f"Choice needs at least two different values, but got {values}.")
        object.__setattr__(self, "values", values)

    def __str__(self) -> str:
        return f"one of {', '.join(map(repr, self.values))}"

    @property
    def probes(self) -> tuple[Any, ...]:
        return self.values


Distribution = Float | Int | Choice
Space = Mapping[str, Distribution]


def check(space: Space, base: Config) -> None:
    """Find out at construction whether every field exists and every bound makes a configuration.

    Raises:
        UserError: for an empty space, an unknown field or a bound out of a field's range.
    """
    if not space:
        raise UserError("The search space is empty: name at least one configuration field.")
    for field, distribution in space.items():
        for value in distribution.probes:
            base.override({field: value})


def describe(space: Space) -> dict[str, str]:
    """Field -> text, for the plan, the study's identity and the tables."""
    return {field: str(distribution) for field, distribution in sorted(space.items())}


def _check_bounds(low: float, high: float, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high)) or not low < high:
        raise UserError(f"low < high must hold, but got low={low}, high={high}.")
    if log and low <= 0:
        raise UserError(f"A logarithmic scale needs low > 0, but got low={low}.")
