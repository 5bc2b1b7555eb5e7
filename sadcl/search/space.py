"""What a search may choose from: plain values, checked when they are made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
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

    def holds(self, value: Any) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high


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

    def holds(self, value: Any) -> bool:
        return isinstance(value, int) and self.low <= value <= self.high


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

    def holds(self, value: Any) -> bool:
        return value in self.values


@dataclass(frozen=True)
class When:
    """A field that is searched only where another field of the space has one of some values; elsewhere the base's holds.

    For example the size of a bank, where there is one: ``When("bank.policy", "fifo", Int(4, 64))``.
    """

    field: str
    values: tuple[Any, ...]
    then: Float | Int | Choice

    def __init__(self, field: str, values: Any, then: Float | Int | Choice) -> None:
        several = values if isinstance(values, tuple) else (values,)
        for name, value in (("field", field), ("values", several), ("then", then)):
            object.__setattr__(self, name, value)
        if not isinstance(then, Float | Int | Choice):
            raise UserError(f"When(..., then) needs a Float, an Int or a Choice, but got {then!r}.")

    def __str__(self) -> str:
        return f"{self.then}, where {self.field} is {' or '.join(map(str, self.values))}"

    @property
    def probes(self) -> tuple[Any, ...]:
        return self.then.probes


Plain = Float | Int | Choice
Distribution = Plain | When
Space = Mapping[str, Distribution]


def check(space: Space, base: Config) -> None:
    """Find out at construction whether every field exists and every bound makes a configuration.

    Raises:
        UserError: for an empty space, an unknown field, a bound out of a field's range, or a condition that never holds.
    """
    if not space:
        raise UserError("The search space is empty: name at least one configuration field.")
    for field, distribution in space.items():
        if not isinstance(distribution, Plain | When):
            raise UserError(
                f"The space of {field} must be a Float, Int, Choice or When, but got {distribution!r}."
            )
    for _ in bounds(space, base):
        pass


def bounds(space: Space, base: Config) -> Iterator[Config]:
    """The base with each field at each of its bounds, or values, where it is searched.

    Raises:
        UserError: for an unknown field, a bound out of a field's range, or a condition that never holds.
    """
    for field, distribution in space.items():
        for value in distribution.probes:
            yield base.override({**_condition(space, field, ()), field: value})


def _condition(space: Space, field: str, seen: tuple[str, ...]) -> dict[str, Any]:
    """Settings under which a field is searched."""
    distribution = space[field]
    if not isinstance(distribution, When):
        return {}
    on = space.get(distribution.field)
    if distribution.field in (*seen, field) or not isinstance(
        on.then if isinstance(on, When) else on, Choice
    ):
        raise UserError(
            f"{field} is searched where {distribution.field} is {distribution.values}, but that is no Choice of the space."
        )
    if missing := [value for value in distribution.values if value not in on.probes]:  # type: ignore[union-attr]
        raise UserError(
            f"{field} is searched where {distribution.field} is {missing[0]!r}, which the space never takes."
        )
    return {
        **_condition(space, distribution.field, (*seen, field)),
        distribution.field: distribution.values[0],
    }


def draw(space: Space, suggest: Callable[[str, Plain], Any]) -> dict[str, Any]:
    """A setting, each value from ``suggest``; a conditional field comes after what it depends on, or is left out."""
    setting: dict[str, Any] = {}
    waiting = dict(space)
    while waiting:
        for field, distribution in list(waiting.items()):
            if not isinstance(distribution, When):
                setting[field] = suggest(field, distribution)
            elif distribution.field in waiting:
                continue
            elif setting.get(distribution.field) in distribution.values:
                setting[field] = suggest(field, distribution.then)
            del waiting[field]
    return setting


def every(space: Space) -> Iterator[dict[str, Any]]:
    """All settings of a space, one after the other; none of one that has a ``Float``."""
    if any(isinstance(plain(distribution), Float) for distribution in space.values()):
        return
    path: list[
        Any
    ] = []  # at each choice of a setting the values that are left, of which the first is taken
    while True:
        at = iter(range(len(space)))

        def take(field: str, of: Plain) -> Any:
            depth = next(at)  # noqa: B023
            if depth == len(path):
                path.append(
                    of.values if isinstance(of, Choice) else range(int(of.low), int(of.high) + 1)
                )
            return path[depth][0]

        yield draw(space, take)
        while path and len(path[-1]) == 1:
            path.pop()
        if not path:
            return
        path[-1] = path[-1][1:]


def plain(distribution: Distribution) -> Plain:
    """What a field is drawn from, where it is."""
    return distribution.then if isinstance(distribution, When) else distribution


def check_setting(space: Space, setting: Mapping[str, Any], base: Config) -> None:
    """Find out whether a setting can be tried first.

    Raises:
        UserError: for a field that the space does not have, or a value that is not in it.
    """
    base.override(setting)
    for field, value in setting.items():
        known = space.get(field)
        if known is None:
            raise UserError(
                f"The setting {dict(setting)} sets {field!r}, which is not in the space."
            )
        if not plain(known).holds(value):
            raise UserError(
                f"The setting {dict(setting)} has {field} = {value!r}, but the space has {known}."
            )


def transfer(setting: Mapping[str, Any], there: Space, here: Space) -> dict[str, Any]:
    """A setting of one space in another: each number keeps its place between the bounds (on the scale of its space).

    So a temperature that both search alike stays what it is, and a weight whose bounds go with the number of labels
    keeps its ratio to them. A choice stays where the other space has it; what does not carry over is left out.
    """
    moved: dict[str, Any] = {}
    for field, value in setting.items():
        one, two = (plain(space[field]) if field in space else None for space in (there, here))
        if isinstance(two, Choice) or isinstance(one, Choice):
            if isinstance(two, Choice) and value in two.values:
                moved[field] = value
        elif one is not None and two is not None:
            moved[field] = value if one == two else _between(_share(value, one), two)
    return moved


def _share(value: float, of: Float | Int) -> float:
    low, high = (math.log(of.low), math.log(of.high)) if of.log else (of.low, of.high)
    return ((math.log(value) if of.log else value) - low) / (high - low)


def _between(share: float, of: Float | Int) -> float | int:
    low, high = (math.log(of.low), math.log(of.high)) if of.log else (of.low, of.high)
    value = low + share * (high - low)
    value = min(max(math.exp(value) if of.log else value, of.low), of.high)
    return round(value) if isinstance(of, Int) else value


def setting_of(base: Config, space: Space) -> dict[str, Any]:
    """What the base has for the fields of a space, those left out that the space does not hold."""
    flat = base.flat()
    flat["loss.prototype_tau"], flat["prototypes.epsilon"] = (
        base.loss.tau_of_prototypes,
        base.prototype_epsilon,
    )
    found = draw(space, lambda field, of: flat[field] if of.holds(flat[field]) else None)
    return {field: value for field, value in found.items() if value is not None}


def contrasts(
    base: Config, *, epsilon: tuple[float, float] = (0.5, 0.95)
) -> dict[str, Distribution]:
    """The space of both contrasts around a recipe: temperatures, admission thresholds, weights up to eight times off.

    Args:
        epsilon: bounds of both thresholds; scores of a network that trains from random weights for minutes are low.
    """
    weights = {
        f"loss.{name}": getattr(base.loss, name) for name in ("sample_weight", "prototype_weight")
    }
    return {
        "loss.tau": Float(0.05, 0.5, log=True),
        "loss.prototype_tau": Float(0.03, 0.3, log=True),
        "bank.epsilon": Float(*epsilon),
        "prototypes.epsilon": Float(*epsilon),
        **{field: Float(weight / 8, weight * 8, log=True) for field, weight in weights.items()},
    }


def describe(space: Space) -> dict[str, str]:
    """Field -> text, for the plan, the study's identity and the tables."""
    return {field: str(distribution) for field, distribution in sorted(space.items())}


def _check_bounds(low: float, high: float, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high)) or not low < high:
        raise UserError(f"low < high must hold, but got low={low}, high={high}.")
    if log and low <= 0:
        raise UserError(f"A logarithmic scale needs low > 0, but got low={low}.")
