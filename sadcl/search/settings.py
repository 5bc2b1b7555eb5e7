"""The settings of a space: drawn, listed, checked, and carried over to another space."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sadcl.config import Config
from sadcl.errors import UserError
from sadcl.search.space import Choice, Float, Int, Plain, Space, When, plain

MAX_COUNTED = 10_000
"""The number of settings up to which a finite space is counted."""


def draw(space: Space, suggest: Callable[[str, Plain], Any]) -> dict[str, Any]:
    """Draw a setting.

    A conditional field comes after the field that it depends on, and is left out where its
    condition does not hold.

    Args:
        space: the space.
        suggest: returns a value for a field and its distribution.
    """
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


def all_settings(space: Space) -> Iterator[dict[str, Any]]:
    """Yield all settings of a finite space, one after the other; nothing for an infinite one.

    It walks the tree of choices depth first. ``path`` holds, for each choice of the current
    setting, the indices of the values that are left, of which the first is taken.
    """
    if any(plain(distribution).count is None for distribution in space.values()):
        return
    path: list[range] = []
    while True:
        depths = iter(range(len(space)))

        def take(field: str, distribution: Plain) -> Any:
            depth = next(depths)  # noqa: B023
            if depth == len(path):
                count = distribution.count
                assert count is not None
                path.append(range(count))
            return distribution.value_at(path[depth][0])

        yield draw(space, take)
        while path and len(path[-1]) == 1:
            path.pop()
        if not path:
            return
        path[-1] = path[-1][1:]


def check_setting(space: Space, setting: Mapping[str, Any], base: Config) -> None:
    """Check that a setting belongs to a space.

    Raises:
        UserError: for a field that the space does not have, or a value outside its distribution.
    """
    base.override(setting)
    for field, value in setting.items():
        distribution = space.get(field)
        if distribution is None:
            raise UserError(
                f"The setting {dict(setting)} sets {field!r}, which is not in the space."
            )
        if not plain(distribution).contains(value):
            raise UserError(
                f"The setting {dict(setting)} has {field} = {value!r}, "
                f"but the space has {distribution}."
            )


def setting_of(base: Config, space: Space) -> dict[str, Any]:
    """Return the values of a configuration that a space contains, by field."""
    flat = base.flat()
    flat["loss.prototype_tau"] = base.loss.tau_of_prototypes
    flat["prototypes.epsilon"] = base.prototype_epsilon
    values = draw(space, lambda field, d: flat[field] if d.contains(flat.get(field)) else None)
    return {field: value for field, value in values.items() if value is not None}


def transfer(setting: Mapping[str, Any], source: Space, target: Space) -> dict[str, Any]:
    """Carry a setting of one space over to another.

    Each number keeps its place between the bounds, on its space's scale. So a temperature that both
    spaces search alike stays the same, and a weight whose bounds depend on the number of labels
    keeps its ratio to them. A choice stays if the other space has it. Whatever does not carry over
    is left out.

    Args:
        setting: the values by field.
        source: the space of the setting.
        target: the other space.
    """
    transferred: dict[str, Any] = {}
    for field, value in setting.items():
        one, two = (plain(space[field]) if field in space else None for space in (source, target))
        if isinstance(two, Choice) or isinstance(one, Choice):
            if isinstance(two, Choice) and value in two.values:
                transferred[field] = value
        elif one is not None and two is not None:
            transferred[field] = value if one == two else _value_at_share(_share(value, one), two)
    return transferred


def _share(value: float, distribution: Float | Int) -> float:
    """Return where a value lies between the bounds, 0 to 1."""
    low, high = _scaled_bounds(distribution)
    return ((math.log(value) if distribution.log else value) - low) / (high - low)


def _value_at_share(share: float, distribution: Float | Int) -> float | int:
    """Return the possible value that lies nearest to a share of the way between the bounds."""
    low, high = _scaled_bounds(distribution)
    value = low + share * (high - low)
    value = math.exp(value) if distribution.log else value
    value = min(max(value, distribution.low), distribution.high)
    if isinstance(distribution, Int) and distribution.step == 1:
        return round(value)
    if distribution.step is None:
        return value
    return distribution.value_at(round((value - distribution.low) / distribution.step))


def _scaled_bounds(distribution: Float | Int) -> tuple[float, float]:
    low, high = distribution.low, distribution.high
    return (math.log(low), math.log(high)) if distribution.log else (low, high)
