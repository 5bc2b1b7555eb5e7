"""The space of a search: distributions of fields, which are checked when they are made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sadcl.config import Config
from sadcl.errors import UserError
from sadcl.search.plain_values import without_numpy

ON_STEP = 1e-8
"""The tolerance, in steps, within which a number is a multiple of the step; Optuna's too."""


def _make_plain(distribution: Float | Int) -> None:
    for name in ("low", "high", "log", "step"):
        object.__setattr__(distribution, name, without_numpy(getattr(distribution, name)))


@dataclass(frozen=True)
class Float:
    """A number between two bounds, both included.

    Args:
        low: the lower bound.
        high: the upper bound, a whole number of steps above ``low`` where there is a step.
        log: draw on a logarithmic scale.
        step: the distance between two possible values; None allows every number. It excludes
            ``log``.

    Raises:
        UserError: for bounds, a scale and a step that do not fit together.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        _make_plain(self)
        _check_bounds(self.low, self.high, self.log)
        if self.step is not None:
            _check_step(self.low, self.high, self.log, self.step)

    def __str__(self) -> str:
        step = "" if self.step is None else f", step {self.step:g}"
        return f"{self.low:g} to {self.high:g}{step}{', log scale' if self.log else ''}"

    @property
    def boundary_values(self) -> tuple[float, ...]:
        return (self.low, self.high)

    @property
    def count(self) -> int | None:
        """The number of possible values; None for infinitely many."""
        return None if self.step is None else round((self.high - self.low) / self.step) + 1

    def value_at(self, index: int) -> float:
        """Return a possible value by its index from ``low``, computed as Optuna does."""
        assert self.step is not None
        return min(max(index * self.step + self.low, self.low), self.high)

    def contains(self, value: Any) -> bool:
        return (
            isinstance(value, (int, float))
            and self.low <= value <= self.high
            and (self.step is None or _on_step(value - self.low, self.step))
        )


@dataclass(frozen=True)
class Int:
    """An integer between two bounds, both included.

    Args:
        low: the lower bound.
        high: the upper bound, a whole number of steps above ``low``.
        log: draw on a logarithmic scale.
        step: the distance between two possible values. One above 1 excludes ``log``.

    Raises:
        UserError: for bounds, a scale and a step that do not fit together.
    """

    low: int
    high: int
    log: bool = False
    step: int = 1

    def __post_init__(self) -> None:
        _make_plain(self)
        _check_bounds(self.low, self.high, self.log)
        if self.low != int(self.low) or self.high != int(self.high):
            raise UserError(f"Int needs whole bounds, but got low={self.low}, high={self.high}.")
        if not math.isfinite(self.step) or self.step != int(self.step):
            raise UserError(f"Int needs a whole step, but got step={self.step}.")
        if self.step != 1:
            _check_step(self.low, self.high, self.log, self.step)

    def __str__(self) -> str:
        step = "" if self.step == 1 else f", step {self.step}"
        return f"{self.low} to {self.high}, integers{step}{', log scale' if self.log else ''}"

    @property
    def boundary_values(self) -> tuple[int, ...]:
        return (self.low, self.high)

    @property
    def count(self) -> int:
        """The number of possible values."""
        return int(self.high - self.low) // int(self.step) + 1

    def value_at(self, index: int) -> int:
        """Return a possible value by its index from ``low``."""
        return int(self.low) + index * int(self.step)

    def contains(self, value: Any) -> bool:
        return (
            isinstance(value, int)
            and self.low <= value <= self.high
            and (value - self.low) % self.step == 0
        )


@dataclass(frozen=True)
class Choice:
    """One of several values.

    Raises:
        UserError: for fewer than two different values.
    """

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        values = without_numpy(values)
        equal = any(value in values[:i] for i, value in enumerate(values))  # as 1, 1.0 and True are
        if len(values) < 2 or equal:
            raise UserError(f"Choice needs at least two different values, but got {values}.")
        object.__setattr__(self, "values", values)

    def __str__(self) -> str:
        return f"one of {', '.join(map(repr, self.values))}"

    @property
    def boundary_values(self) -> tuple[Any, ...]:
        return self.values

    @property
    def count(self) -> int:
        """The number of possible values."""
        return len(self.values)

    def value_at(self, index: int) -> Any:
        return self.values[index]

    def contains(self, value: Any) -> bool:
        return value in self.values


@dataclass(frozen=True)
class When:
    """A distribution of a field that is searched only where another field has one of some values.

    Elsewhere the field keeps the value of the base. For example the size of a bank, where there is
    one: ``When("bank.policy", "fifo", Int(4, 64))``.

    Args:
        field: the other field, which must be a ``Choice`` of the same space.
        values: one value of that field, or a tuple of several.
        then: the distribution where the condition holds.

    Raises:
        UserError: for a ``then`` that is not a ``Float``, an ``Int`` or a ``Choice``.
    """

    field: str
    values: tuple[Any, ...]
    then: Float | Int | Choice

    def __init__(self, field: str, values: Any, then: Float | Int | Choice) -> None:
        values = without_numpy(values)
        several = values if isinstance(values, tuple) else (values,)
        for name, value in (("field", field), ("values", several), ("then", then)):
            object.__setattr__(self, name, value)
        if not isinstance(then, Float | Int | Choice):
            raise UserError(f"When(..., then) needs a Float, an Int or a Choice, but got {then!r}.")

    def __str__(self) -> str:
        return f"{self.then}, where {self.field} is {' or '.join(map(str, self.values))}"

    @property
    def boundary_values(self) -> tuple[Any, ...]:
        return self.then.boundary_values


Plain = Float | Int | Choice
Distribution = Plain | When
Space = Mapping[str, Distribution]


def plain(distribution: Distribution) -> Plain:
    """Return the distribution of a field where it is searched, without its condition."""
    return distribution.then if isinstance(distribution, When) else distribution


def check_space(space: Space, base: Config) -> None:
    """Check that every field exists and that every bound makes a configuration.

    Raises:
        UserError: for an empty space, an unknown field, a bound outside a field's range, or a
            condition that never holds.
    """
    if not space:
        raise UserError("The search space is empty: name at least one configuration field.")
    for field, distribution in space.items():
        if not isinstance(distribution, Plain | When):
            raise UserError(
                f"The space of {field} must be a Float, Int, Choice or When, "
                f"but got {distribution!r}."
            )
    for _ in boundary_configs(space, base):
        pass


def boundary_configs(space: Space, base: Config) -> Iterator[Config]:
    """Yield the base with each field in turn at each of its bounds, or values.

    A conditional field is taken where its condition holds.

    Raises:
        UserError: for an unknown field, a bound outside a field's range, or a condition that never
            holds.
    """
    for field, distribution in space.items():
        for value in distribution.boundary_values:
            yield base.override({**_condition(space, field, ()), field: value})


def _condition(space: Space, field: str, path: tuple[str, ...]) -> dict[str, Any]:
    """Return settings under which a field is searched.

    Args:
        space: the whole space.
        field: the field.
        path: the fields whose conditions led here, which finds circles.
    """
    distribution = space[field]
    if not isinstance(distribution, When):
        return {}
    other = space.get(distribution.field)
    choice = other.then if isinstance(other, When) else other
    if distribution.field in (*path, field) or not isinstance(choice, Choice):
        raise UserError(
            f"{field} is searched where {distribution.field} is {distribution.values}, "
            "but that is no Choice of the space."
        )
    if missing := [value for value in distribution.values if value not in choice.values]:
        raise UserError(
            f"{field} is searched where {distribution.field} is {missing[0]!r}, "
            "which the space never takes."
        )
    return {
        **_condition(space, distribution.field, (*path, field)),
        distribution.field: distribution.values[0],
    }


def space_text(space: Space) -> dict[str, str]:
    """Return each field's distribution in words, sorted by field."""
    return {field: str(distribution) for field, distribution in sorted(space.items())}


def space_to_json(space: Space) -> dict[str, dict[str, Any]]:
    """Return a space as plain JSON by field, as a study's file stores it.

    Each distribution has the form of Optuna's ``distribution_to_json``: a name and attributes. A
    conditional one has ``when`` besides, with the other field and its values.
    """
    return {field: _to_json(distribution) for field, distribution in sorted(space.items())}


def _to_json(distribution: Distribution) -> dict[str, Any]:
    if isinstance(distribution, When):
        condition = {"field": distribution.field, "values": _with_lists(distribution.values)}
        return {**_to_json(distribution.then), "when": condition}
    if isinstance(distribution, Choice):
        attributes: dict[str, Any] = {"choices": _with_lists(distribution.values)}
        return {"name": "CategoricalDistribution", "attributes": attributes}
    kind: type[float] | type[int] = float if isinstance(distribution, Float) else int
    step = None if distribution.step is None else kind(distribution.step)
    attributes = {"low": kind(distribution.low), "high": kind(distribution.high)}
    attributes |= {"log": distribution.log, "step": step}
    return {"name": f"{kind.__name__.capitalize()}Distribution", "attributes": attributes}


def space_from_json(stored: Mapping[str, Mapping[str, Any]]) -> dict[str, Distribution]:
    """Return the space that :func:`space_to_json` has stored.

    Lists among the values of a choice become tuples.

    Raises:
        UserError: for a distribution that this version does not have, or that is incomplete.
    """
    space = {}
    for field, distribution in stored.items():
        try:
            space[field] = _from_json(distribution)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"The stored distribution of {field} cannot be read ({error}): {distribution!r}. "
                "A newer version of sadcl may have written it."
            ) from None
    return space


def _from_json(stored: Mapping[str, Any]) -> Distribution:
    name, attributes = stored["name"], stored["attributes"]
    then: Plain
    if name == "CategoricalDistribution":
        then = Choice(*(_without_lists(value) for value in attributes["choices"]))
    elif name in ("FloatDistribution", "IntDistribution"):
        kind = Float if name == "FloatDistribution" else Int
        then = kind(**{key: attributes[key] for key in ("low", "high", "log", "step")})
    else:
        raise ValueError(f"unknown name {name!r}")
    if (condition := stored.get("when")) is None:
        return then
    return When(condition["field"], _without_lists(condition["values"]), then)


def _with_lists(value: Any) -> Any:
    """Return a value with lists for tuples, as JSON has it."""
    return list(map(_with_lists, value)) if isinstance(value, list | tuple) else value


def _without_lists(value: Any) -> Any:
    """Return a value with tuples for lists, which JSON cannot tell apart."""
    return tuple(map(_without_lists, value)) if isinstance(value, list) else value


def contrast_space(
    base: Config, *, epsilon: tuple[float, float] = (0.5, 0.95)
) -> dict[str, Distribution]:
    """Return the space of both contrasts around a recipe.

    It has the temperatures, the admission thresholds and the loss weights, which lie up to eight
    times below and above those of the recipe.

    Args:
        base: the recipe.
        epsilon: the bounds of both thresholds. A network that has trained from random weights for
            minutes gives low scores and needs low ones.
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


def _check_bounds(low: float, high: float, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high)) or not low < high:
        raise UserError(f"low < high must hold, but got low={low}, high={high}.")
    if log and low <= 0:
        raise UserError(f"A logarithmic scale needs low > 0, but got low={low}.")


def _check_step(low: float, high: float, log: bool, step: float) -> None:
    if not (math.isfinite(step) and step > 0):
        raise UserError(f"step > 0 must hold, but got step={step}.")
    if log:
        raise UserError(f"A logarithmic scale has no steps, but got log=True, step={step}.")
    # As decimals, because (0.7 - 0.1) % 0.2 is not 0 in floats. Optuna counts in decimals too, and
    # would lower `high` to the last step.
    first, last, size = (Decimal(str(value)) for value in (low, high, step))
    if (last - first) % size or last - first < size:
        raise UserError(
            f"high must be a whole number of steps above low, but got low={low}, high={high}, "
            f"step={step}; the last step below high is at {first + (last - first) // size * size}."
        )


def _on_step(distance: float, step: float) -> bool:
    steps = distance / step
    return abs(steps - round(steps)) < ON_STEP
