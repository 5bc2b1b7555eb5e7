"""Types in plain words, as a table of fields and a message about a value show them."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Union

from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from sadcl.config import component

_PLAIN: dict[Any, tuple[str, str]] = {
    bool: ("True or False", "True or False"),
    int: ("whole number", "whole numbers"),
    float: ("number", "numbers"),
    str: ("text", "texts"),
}
"""A type in words, and several of it."""


def type_text(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """Return a type in words, such as ``number from 0 to 1`` or ``one of slot, fifo, none``.

    Args:
        annotation: the type.
        metadata: of the field, with its bounds.
    """
    return _text(annotation, list(metadata), several=False)


def without_none(annotation: Any) -> tuple[Any, bool]:
    """Return a type without None, and whether it had it."""
    if typing.get_origin(annotation) not in (Union, types.UnionType):
        return annotation, False
    members = typing.get_args(annotation)
    others = tuple(one for one in members if one is not type(None))
    return Union[others] if others else annotation, len(others) < len(members)  # noqa: UP007


def words_among(annotation: Any) -> tuple[Any, ...]:
    """Return the words that a type allows besides values of another kind: ``all`` or a list."""
    if typing.get_origin(annotation) not in (Union, types.UnionType):
        return ()
    literals = [one for one in typing.get_args(annotation) if typing.get_origin(one) is Literal]
    return tuple(word for literal in literals for word in typing.get_args(literal))


def plain_type(annotation: Any) -> Any:
    """Return the class of a type's values, such as ``float``; of a literal that of its words.

    Of words or another type (:func:`words_among`) it is the other type's.
    """
    annotation, _ = without_none(annotation)
    if hasattr(annotation, "__metadata__"):
        return plain_type(annotation.__origin__)
    origin = typing.get_origin(annotation)
    if words_among(annotation):
        members = typing.get_args(annotation)
        return plain_type(next(one for one in members if typing.get_origin(one) is not Literal))
    if origin is Literal:
        return type(typing.get_args(annotation)[0])
    return origin or annotation


def _text(annotation: Any, metadata: list[Any], *, several: bool) -> str:
    annotation, has_none = without_none(annotation)
    if hasattr(annotation, "__metadata__"):  # Annotated
        metadata = [*metadata, *annotation.__metadata__]
        return _text(annotation.__origin__, metadata, several=several) + ", or None" * has_none
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if (words := _validated(metadata)) is not None:
        text = words + "s" * several
    elif origin is Literal:
        text = ("one of " if len(arguments) > 1 else "") + ", ".join(map(str, arguments))
    elif origin in (Union, types.UnionType):
        text = " or ".join(_text(one, [], several=several) for one in arguments)
    elif origin in (tuple, list) or (inspect.isclass(origin) and issubclass(origin, Sequence)):
        items = [one for one in arguments if one is not Ellipsis]
        is_fixed = origin is tuple and Ellipsis not in arguments
        of = _text(items[0], [], several=True) if items else "values"
        text = f"list of {len(items)} {of}" if is_fixed and len(items) > 1 else f"list of {of}"
    elif annotation is dict or (inspect.isclass(origin) and issubclass(origin, Mapping)):
        text = "values by name"
    elif annotation in _PLAIN:
        text = _PLAIN[annotation][several] + _range(annotation, metadata)
    elif annotation is Any:
        text = "any value"
    else:
        text = inspect.formatannotation(annotation)
    return text + ", or None" * has_none


def _validated(metadata: Iterable[Any]) -> str | None:
    """Return in words what the validators of this package accept; None without one of them."""
    for one in metadata:
        if isinstance(one, BeforeValidator):
            if isinstance(one.func, component.WordOrPath):
                return f"one of {', '.join(one.func.words)} or an import path"
            if one is component.IS_PATH:
                return "import path"
    return None


def _bounds(metadata: Iterable[Any]) -> Iterator[tuple[str, float]]:
    for one in metadata:
        if isinstance(one, FieldInfo):
            yield from _bounds(one.metadata)
        for name in ("ge", "gt", "le", "lt"):
            if (value := getattr(one, name, None)) is not None:
                yield name, value


def _range(kind: type, metadata: Iterable[Any]) -> str:
    """Return the bounds of a number in words."""
    bounds = dict(_bounds(metadata))
    if kind is int and "lt" in bounds:
        bounds["le"] = bounds.pop("lt") - 1
    if bounds.keys() == {"ge", "le"}:
        return f" from {bounds['ge']} to {bounds['le']}"
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    return " and".join(f" {sign} {bounds[name]}" for name, sign in signs.items() if name in bounds)
